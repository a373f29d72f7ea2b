//! Files of certificates and keys, and the system's own: what can't be used is refused with its name and the reason, and
//! what was in use stays in use; what has changed counts from the next reload on.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::faults::{assert_only_failure, assert_recover, failures};
use crate::support::certificates::{Authority, Certificate, seconds};
use crate::support::daemon::run;
use crate::support::nginx::Nginx;
use crate::support::{Daemon, Scrape, is_root, target};
use crate::tls::{EXPIRY, Files};

fn opened(scrape: &Scrape) -> f64 {
    scrape.value("hammerd_connections_opened_total", &[("target", "a")])
}

fn finished(scrape: &Scrape) -> f64 {
    scrape.value("hammerd_requests_total", &[("target", "a")])
}

/// What stands in the place of a good file.
enum Bad {
    Text(String),
    Directory,
    Nothing,
}

const NO_CERTIFICATE: &str = "it holds no certificate in PEM";
const NO_KEY: &str = "it holds no private key in PEM";
const NOT_ITS_KEY: &str = "it is not the key of the certificate in cert_file";
const ENCRYPTED: &str = "it is encrypted";

/// The file that is bad, the key that is blamed, what the file holds, and the reason that is given.
fn bad_files(authority: &Authority, client: &Certificate) -> Vec<(&'static str, &'static str, Bad, &'static str)> {
    let text = |text: &str| Bad::Text(text.to_owned());
    let in_section =
        |name: &str, text: &str| Bad::Text(format!("-----BEGIN {name}-----\n{text}\n-----END {name}-----\n"));
    let cut = |pem: &str| Bad::Text(format!("{pem}{}", &pem[..pem.len() / 2]));
    let (ca, cert, key) = (("ca.pem", "ca_file"), ("client.pem", "cert_file"), ("client.key", "key_file"));
    let mut cases = Vec::new();
    for (file, blamed) in [ca, cert, key] {
        let nothing_in_it = if blamed == "key_file" { NO_KEY } else { NO_CERTIFICATE };
        cases.push((file, blamed, Bad::Nothing, "No such file or directory"));
        cases.push((file, blamed, Bad::Directory, "is a directory"));
        cases.push((file, blamed, text(""), nothing_in_it));
        cases.push((file, blamed, text("no certificate at all\n"), nothing_in_it));
    }
    for (file, blamed) in [ca, cert] {
        cases.push((file, blamed, text(&client.key), NO_CERTIFICATE));
        cases.push((file, blamed, cut(authority.pem()), "it is not valid PEM: a section has no end"));
        cases.push((file, blamed, in_section("CERTIFICATE", "?"), "it is not valid PEM: base64"));
        cases.push((file, blamed, in_section("CERTIFICATE", "AAAA"), "invalid peer certificate"));
    }
    let other = authority.client("other");
    cases.push((key.0, key.1, text(&client.cert), NO_KEY));
    cases.push((key.0, key.1, text(&other.key), NOT_ITS_KEY));
    cases.push((key.0, key.1, in_section("ENCRYPTED PRIVATE KEY", "AAAA"), ENCRYPTED));
    let older_way = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA";
    cases.push((key.0, key.1, in_section("RSA PRIVATE KEY", older_way), ENCRYPTED));
    // Both are the certificate's fault, but which of the two files is the wrong one nobody can know.
    cases.push((cert.0, key.1, text(&other.cert), NOT_ITS_KEY));
    cases.push((cert.0, key.1, Bad::Text(format!("{}{}", authority.pem(), client.cert)), NOT_ITS_KEY));
    cases
}

fn replace(path: &Path, bad: &Bad) {
    std::fs::remove_file(path).expect("the good file");
    match bad {
        Bad::Text(text) => std::fs::write(path, text).expect("the bad file"),
        Bad::Directory => std::fs::create_dir(path).expect("a directory"),
        Bad::Nothing => {}
    }
}

fn restore(path: &Path, bad: &Bad, content: &str) {
    if let Bad::Directory = bad {
        std::fs::remove_dir(path).expect("the directory");
    }
    std::fs::write(path, content).expect("the good file");
}

/// Rows 34 and 45: what a check finds broken a reload refuses as a whole, and the connections before it go on.
#[test]
fn a_file_that_cannot_be_used_is_refused_with_its_reason_and_the_old_one_stays() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let nginx = Nginx::builder().certificate(authority.server(&["127.0.0.1"])).client_ca(&authority).start();
    let (trust, client) = (files.trust(&authority), authority.client("first"));
    let config = target("a", &nginx.mutual_url("/"), "20/s", &format!("{trust}{}", files.identity(&client)));
    let daemon = Daemon::start(&config);
    daemon.scrape_after("a", 5.0);
    let checked = files.path("checked.toml");
    std::fs::write(&checked, &config).expect("a config");
    let checked = checked.to_str().expect("UTF-8");
    assert_eq!(run(&["check", "--config", checked], &[], "").code, Some(0));

    for (name, blamed, bad, reason) in bad_files(&authority, &client) {
        let path = files.path(name);
        let good = std::fs::read_to_string(&path).expect("a good file");
        replace(&path, &bad);
        let end = run(&["check", "--config", checked], &[], "");
        assert_eq!(end.code, Some(78), "{name}, {reason}: {end:?}");
        let blamed_file = if blamed == "key_file" { "client.key" } else { name };
        let words = [&format!("targets.a.tls.{blamed}: "), blamed_file, "can't be used: ", reason];
        let told = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(end.stderr.lines().any(told), "{words:?} are not on one line of\n{}", end.stderr);

        let lines = daemon.log_lines().len();
        assert!(!daemon.reload(), "{name} is accepted although {reason}");
        let log = daemon.log_lines();
        assert!(log[lines..].iter().any(|line| told(&line.to_string())), "{words:?} are not in {:?}", &log[lines..]);
        restore(&path, &bad, &good);
    }

    let before = daemon.scrape();
    let after = daemon.scrape_after("a", finished(&before) + 10.0);
    assert_eq!(failures(&after, "a"), HashMap::new());
    assert_eq!(opened(&after), 1.0, "the connection goes on");
    // Several in one file are a chain, or several to trust.
    files.put("", "ca.pem", &format!("{}{}", Authority::new("stranger").pem(), authority.pem()));
    files.put("", "client.pem", &format!("{}{}", client.cert, authority.pem()));
    assert!(daemon.reload(), "all files are good again: {:?}", daemon.log_lines().last());
    let reloaded = assert_recover(&daemon, &["a"], 20.0, Duration::ZERO);
    assert_eq!(failures(&reloaded, "a"), HashMap::new());
    assert_eq!(opened(&reloaded), 2.0, "whom to trust has changed");
}

#[test]
fn a_key_that_may_not_be_read_is_refused_by_name() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let config = target("a", "https://shop.example/", "1/s", &files.identity(&authority.client("first")));
    let set_mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
    };
    set_mode(&files.path(""), 0o755);
    set_mode(&files.path("client.key"), 0o000);
    // Root may read everything.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let end = Daemon::builder(&config).wrapped(if is_root() { &nobody } else { &[] }).run();
    assert_eq!(end.code, Some(78), "{end:?}");
    for word in ["targets.a.tls.key_file: ", "client.key", "Permission denied"] {
        assert!(end.stderr.contains(word), "no {word} in {end:?}");
    }
    assert!(!end.stderr.contains("cert_file"), "the certificate is good: {end:?}");
}

/// What is old, or has a form that nobody would trust today, is anybody's all the same.
#[test]
fn without_verification_certificates_of_any_age_and_form_will_do() {
    let old = [("v1", include_str!("support/old/x509_v1.pem")), ("rsa", include_str!("support/old/rsa_1024.pem"))];
    for (form, pem) in old {
        for protocol in ["TLSv1.2", "TLSv1.3"] {
            let nginx = Nginx::builder()
                .certificate(Certificate { cert: pem.to_owned(), key: pem.to_owned() })
                .directive(&format!("ssl_protocols {protocol}"))
                .directive("ssl_ciphers DEFAULT@SECLEVEL=0")
                .start();
            let careless = "tls = { insecure_skip_verify = true, resumption = false }\npool.max_requests = 3\n";
            let daemon = Daemon::start(
                &(target("a", &nginx.https1_url("/"), "40/s", careless)
                    + &target("careful", &nginx.https1_url("/"), "20/s", "")),
            );
            let scrape = daemon.scrape_after("a", 20.0);
            assert_eq!(failures(&scrape, "a"), HashMap::new(), "{form} over {protocol}");
            assert!(opened(&scrape) >= 6.0, "{form} over {protocol}: {}", scrape.summary());
            // The year that both end in.
            let expiry = scrape.value(EXPIRY, &[("target", "a")]);
            let accepted = seconds((2126, 1, 1))..seconds((2127, 1, 1));
            assert!(accepted.contains(&expiry), "{form} over {protocol}: {expiry}");
            assert_only_failure(&daemon.scrape_after("careful", 5.0), "careful", "tls_certificate");
        }
    }
}

/// Row 45, for the system's own list of authorities.
#[test]
fn the_systems_roots_are_read_again_at_a_reload() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let nginx = Nginx::builder().certificate(authority.server(&["127.0.0.1"])).start();
    let stranger = Authority::new("stranger").pem().to_owned();
    let both = format!("{stranger}{}", authority.pem());
    let install = |pem: &str| files.put("", "system.pem", pem);
    install(&stranger);
    let daemon = Daemon::builder(&target("a", &nginx.https2_url("/"), "20/s", ""))
        .env("SSL_CERT_FILE", files.path("system.pem").to_str().expect("UTF-8"))
        .env("SSL_CERT_DIR", "")
        .start();
    let failed = daemon.scrape_after("a", 10.0);
    assert_only_failure(&failed, "a", "tls_certificate");

    install(&both);
    assert!(daemon.reload());
    let healed = assert_recover(&daemon, &["a"], 20.0, Duration::ZERO);

    // What holds the same changes nothing, and a list that can't be read is none.
    for list in [both.as_str(), "", "nonsense"] {
        install(list);
        assert!(daemon.reload());
        let scrape = assert_recover(&daemon, &["a"], 20.0, Duration::ZERO);
        assert_eq!(opened(&scrape), opened(&healed), "the connection goes on");
        assert_eq!(failures(&scrape, "a"), failures(&healed, "a"));
    }

    install(&stranger);
    let before = failures(&daemon.scrape(), "a");
    assert!(daemon.reload());
    daemon.scrape_when("new failures", |scrape| {
        failures(scrape, "a").get("tls_certificate").copied().unwrap_or(0) >= before["tls_certificate"] + 5
    });
}

/// A warning about a certificate that nobody uses any more would be a false one, and no warning about the other a missed one.
#[test]
fn the_expiry_shown_is_of_a_certificate_that_is_in_use() {
    const SOONER: (i32, u8, u8) = (2100, 6, 7);
    let (authority, files) = (Authority::new("ca"), Files::new());
    let old = Nginx::builder().certificate(authority.server_valid(&["127.0.0.1"], ((2020, 1, 1), SOONER))).start();
    let config = |url: &str| target("a", url, "20/s", "");
    let secured = target("a", &old.https2_url("/"), "20/s", &files.trust(&authority));
    let daemon = Daemon::start(&secured);
    let shown = |scrape: &Scrape| scrape.try_value(EXPIRY, &[("target", "a")]);
    daemon.scrape_when("the expiry", |scrape| shown(scrape) == Some(seconds(SOONER)));
    assert!(daemon.reload_with(&config(&old.url("/"))));
    daemon.scrape_when("no expiry without TLS", |scrape| shown(scrape).is_none());
    assert!(daemon.reload_with(&secured));
    daemon.scrape_when("the expiry again", |scrape| shown(scrape) == Some(seconds(SOONER)));
}
