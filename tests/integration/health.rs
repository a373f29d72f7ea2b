//! `hammerd health`, as a container's health check or a probe runs it.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::daemon::{Daemon, Finished, run};
use crate::support::dead::closed_port;
use crate::support::{Origin, Reply, target};

/// `hammerd health` with these arguments and variables: its exit code, and what it says.
#[track_caller]
fn health(args: &[&str], envs: &[(&str, &str)]) -> (Option<i32>, String) {
    let Finished { code, stdout, stderr } = run(&[&["health"], args].concat(), envs, "");
    assert_eq!(stdout, "", "results of a probe are its exit code");
    (code, stderr)
}

/// Arguments and environment.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

const WELL: (Option<i32>, String) = (Some(0), String::new());

#[test]
fn a_running_daemon_is_healthy_and_one_that_drains_is_not_ready() {
    let origin = Origin::start(|_| Reply::silence());
    let mut daemon = Daemon::start(&target("a", &origin.url("/"), "10/s", ""));
    let address = daemon.address().to_string();
    assert_eq!(health(&["--address", &address], &[]), WELL);
    assert_eq!(health(&["--ready", "--address", &address], &[]), WELL);
    assert_eq!(health(&["--address", &format!("localhost:{}", daemon.address().port())], &[]), WELL);

    origin.wait_requests(1);
    daemon.signal(Signal::TERM);
    daemon.scrape_when("the drain", |_| daemon.get("/-/ready").status == 503);
    let (code, said) = health(&["--ready", "--address", &address], &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("http://{address}/-/ready answers 503")), "{said}");
    assert_eq!(health(&["--address", &address], &[]), WELL, "it drains, but it works");
    daemon.signal(Signal::TERM);
    daemon.wait_exit(crate::support::PATIENCE);
    let (code, said) = health(&["--address", &address], &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains(&address) && said.contains("refused"), "{said}");
}

/// By the variable, by the file or the text that holds the configuration, by the flag for it; and at the usual port.
#[test]
fn the_daemon_is_found_where_the_configuration_puts_it() {
    let origin = Origin::start(|_| Reply::ok(""));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "10/s", ""));
    let port = daemon.address().port();
    let (everywhere, all, off) = (format!("0.0.0.0:{port}"), format!(":{port}"), "off");
    let text = |listen: &str| format!("[server]\nlisten = \"{listen}\"\n{}", target("a", "http://a/", "1/s", ""));
    let file = daemon.path("other.toml");
    std::fs::write(&file, text(&all)).expect("a file");
    let file = file.to_str().expect("UTF-8");
    // What it was made into while the daemon runs on what it was.
    let broken = daemon.path("broken.toml");
    std::fs::write(&broken, format!("{}\n[targets.b]\nrate =\n", text(&all))).expect("a file");
    let broken = broken.to_str().expect("UTF-8");
    let listen = "HAMMERD__SERVER__LISTEN";
    let cases: [Case<'_>; 6] = [
        (&[], &[(listen, &everywhere)]),
        (&[], &[("HAMMERD_CONFIG", file)]),
        (&[], &[("HAMMERD_CONFIG_INLINE", &text(&everywhere))]),
        (&["--config", file], &[]),
        // The variable wins, and what can't be read is not needed.
        (&["--config", "/nonexistent"], &[(listen, &everywhere), ("HAMMERD_CONFIG_INLINE", "rate = {")]),
        (&["--config", broken], &[(listen, &everywhere)]),
    ];
    for (args, envs) in cases {
        assert_eq!(health(args, envs), WELL, "{args:?} {envs:?}");
    }
    let (code, said) = health(&[], &[("HAMMERD_CONFIG", file), (listen, off)]);
    assert_eq!(code, Some(1));
    assert!(said.contains("switched off"), "{said}");
    let (_, said) = health(&["--config", "/nonexistent"], &[(listen, "nowhere")]);
    assert!(said.is_empty() || said.contains("http://127.0.0.1:9955/-/healthy"), "{said}");
}

#[test]
fn who_does_not_answer_or_is_no_hammerd_is_told_in_time() {
    let (silent, garbage) =
        (Origin::start(|_| Reply::silence()), Origin::start(|_| Reply::raw("nonsense\r\n\r\n").close()));
    let full = TcpListener::bind("127.0.0.1:0").expect("a listener");
    for (address, word) in [
        (silent.address().to_string(), "timed out"),
        (full.local_addr().expect("its address").to_string(), "timed out"),
        (garbage.address().to_string(), "no HTTP"),
        (closed_port().to_string(), "refused"),
        ("no port".to_owned(), "127.0.0.1:9955"),
    ] {
        let begun = Instant::now();
        let (code, said) = health(&["--address", &address], &[]);
        assert_eq!(code, Some(1), "{address}: {said}");
        assert!(said.contains(&address) && said.contains(word), "{address}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{address} takes {:?}", begun.elapsed());
    }
}
