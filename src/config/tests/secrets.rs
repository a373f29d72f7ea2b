//! What a configuration keeps to itself.

use super::super::plan;
use super::*;

/// Any trace of a secret in what people get to see.
const SECRET: &str = "hunter2";

/// One configuration with a secret in every place that can have one.
fn with_secrets(folder: &Folder) -> Sources {
    let url = folder.write("url", format!("http://h/{SECRET}\n"));
    let body = folder.write("body", SECRET);
    let header = folder.write("header", format!("Bearer {SECRET}\r\n"));
    let text = format!(
        r#"
        [defaults]
        rate = 1
        headers = {{ Authorization = "{SECRET}", cookie = "a={SECRET}", x-api-key = "{SECRET}", x-csrf-token = "{SECRET}" }}
        headers_file = {{ x-file = {header:?} }}
        [targets.files]
        url_file = {url:?}
        body_file = {body:?}
        [targets.variables]
        url = "http://h/${{PASSWORD}}?x"
        body = "a ${{PASSWORD}}"
        headers = {{ x-variable = "a ${{PASSWORD}}" }}
        [targets.host]
        url = "http://${{PASSWORD}}.example/"
        "#
    );
    let env = pairs(&[
        ("PASSWORD", SECRET),
        ("HAMMERD__DEFAULTS__HEADERS__X-ENV", SECRET),
        ("HAMMERD__TARGETS__HOST__BODY", SECRET),
    ]);
    Sources { env, ..inline(text) }
}

#[test]
fn no_secret_is_in_anything_that_is_shown() {
    let folder = Folder::new();
    let sources = with_secrets(&folder);
    let config = accept(&sources);
    let all = [
        redacted(&config),
        plan(&config),
        format!("{config:?}"),
        format!("{config:#?}"),
        format!("{:?}", config.targets),
        format!("{sources:?}"),
    ];
    for shown in &all {
        assert!(!shown.contains(SECRET), "{shown}");
    }
    assert_eq!(all[0].matches("<secret>").count(), 3 * 6 + 1 + 3 + 3, "{}", all[0]);
    let files = &target(&config, "files").http;
    assert_eq!(files.path.as_str(), "/hunter2", "the request itself has it");
    assert_eq!((&files.body[..], &files.headers["x-file"]), (&b"hunter2"[..], &"Bearer hunter2".parse().unwrap()));
}

#[test]
fn no_secret_is_in_a_message() {
    let folder = Folder::new();
    let bad = folder.write("bad", format!("{SECRET}\n{SECRET}"));
    let latin = folder.write("latin", b"hunter2 \xe9");
    let blank = folder.write("blank", "\n");
    let text = format!(
        r#"
        [server]
        listen = "${{PASSWORD}}"
        [limits]
        deny_networks = ["${{PASSWORD}}"]
        [metrics]
        buckets = ["${{PASSWORD}}"]
        [targets.x]
        url = "${{PASSWORD}}://h"
        rate = "${{PASSWORD}}"
        timeout = "${{PASSWORD}}"
        method = "${{PASSWORD}}"
        max_in_flight = "${{PASSWORD}}"
        body_file = "${{PASSWORD}}"
        expect_status = "${{PASSWORD}}"
        labels = {{ a = "${{PASSWORD}}\n" }}
        headers = {{ a = "{SECRET}\n", b = "${{PASSWORD}}\u0000" }}
        headers_file = {{ c = {bad:?}, d = {latin:?}, e = {blank:?} }}
        [targets.y]
        rate = 1
        url_file = {bad:?}
        [targets.z]
        rate = 1
        url = "http://me:{SECRET}@h/"
        [targets.https]
        rate = 1
        url = "https://me:{SECRET}@h/"
        [targets.gopher]
        rate = 1
        url = "gopher://me:{SECRET}@h/"
        [targets.bare]
        rate = 1
        url = "me:{SECRET}@h/"
        [targets.fragment]
        rate = 1
        url = "http://me:{SECRET}@h/#top"
        [targets.query]
        rate = 1
        url = "http://h?me:{SECRET}@h/ "
        "#
    );
    let rejected = refuse(&Sources { env: pairs(&[("PASSWORD", SECRET)]), ..inline(text) });
    assert_eq!(rejected.messages().len(), 23, "{rejected}");
    assert!(!format!("{rejected} {rejected:?}").contains(SECRET), "{rejected}");
}

#[test]
fn every_load_reads_every_file_again() {
    let folder = Folder::new();
    let sources = with_secrets(&folder);
    let before = accept(&sources);
    assert_eq!(accept(&sources), before);
    folder.write("url", "http://h/changed");
    folder.write("body", "changed");
    folder.write("header", "changed");
    let after = accept(&sources);
    let files = &target(&after, "files").http;
    assert_eq!((files.path.as_str(), &files.body[..]), ("/changed", &b"changed"[..]));
    assert_eq!(files.headers["x-file"], "changed");
    assert_ne!(after, before);
}

#[test]
fn targets_that_share_a_body_file_share_its_bytes() {
    let folder = Folder::new();
    let body = folder.write("body", vec![b'x'; 1000]);
    let text = format!("[defaults]\nrate=1\nurl='http://h'\nbody_file={body:?}\n[targets.a]\n[targets.b]\n");
    let config = accept(&inline(text));
    let of = |name| target(&config, name).http.body.as_ptr();
    assert_eq!(of("a"), of("b"));
}

#[test]
fn a_file_above_its_bound_is_refused() {
    let folder = Folder::new();
    let text = format!("[limits]\nmax_body = 3\n{ONE_TARGET}body_file = {:?}\n", folder.write("body", "1234"));
    let rejected = refuse(&inline(text));
    assert!(rejected.to_string().ends_with("can't be used: larger than 3 bytes"), "{rejected}");
    let mut sources = Sources { files: vec!["-".into()], ..Sources::default() };
    assert!(sources.set_stdin(std::io::repeat(b'#')).is_err());
}
