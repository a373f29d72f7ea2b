//! What is refused, and in which words.

use proptest::prelude::*;

use super::super::syntax::Syntax;
use super::*;
use crate::pace::Rate;

/// Every file of `tests/config/bad` stands beside the exact text of its rejection.
#[test]
fn every_bad_file_is_refused_in_the_expected_words() {
    let folder = repository().join("tests/config/bad");
    let bless = std::env::var_os("HAMMERD_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in files("tests/config/bad") {
        let got = refuse(&Sources { files: vec![path.clone()], ..Sources::default() }).to_string() + "\n";
        let got = got.replace(&format!("{}/", folder.display()), "");
        let expected = path.with_added_extension("txt");
        if bless {
            std::fs::write(&expected, &got).unwrap();
        }
        let want = std::fs::read_to_string(&expected).unwrap_or_default();
        if got != want {
            wrong.push(format!("{}: got\n{got}instead of\n{want}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mistakes_of_all_layers_come_at_once_and_in_order() {
    let folder = Folder::new();
    let one = folder.write("one.toml", "[targets.x]\nurl = \"http://h/\"\nrate = \"0/s\"\n\n[engine]\nworkers = 65\n");
    let two = folder.write("two.yaml", "targets:\n  y:\n    url: http://h/\n    tiemout: 1s\n    rate: 1\n");
    let sources = Sources {
        files: vec![one, two],
        inline: Some("\n[metrics]\nnative_schema = 7".to_owned()),
        env: pairs(&[
            ("HAMMERD__TARGETS__Y__MAX_IN_FLIGHT", "0123"),
            ("HAMMERD__TARGETS__Z__RATE", "1"),
            ("HAMMERD__TARGETS__Z__TIEMOUT", "1s"),
            ("HAMMERD__SERVER__LIFECYCLE", "TRUE"),
        ]),
        overrides: pairs(&[("server.listen", "here"), ("targets.hit.headers.te", "x")]),
        ..Sources::default()
    };
    let text = refuse(&sources).to_string().replace(&format!("{}/", folder.0.display()), "");
    let address = r#"an address is as in 127.0.0.1:9955, [::1]:9955, :9955 for every IPv4 address, or "off""#;
    let rate = format!("a rate is {}", Rate::ACCEPTED);
    let want = [
        &format!(r#"one.toml:3: targets.x.rate: "0/s" is not accepted: {rate}"#),
        r#"one.toml:6: engine.workers: 65 is not accepted: it is "auto" or a number from 1 to 64"#,
        r#"two.yaml:4: targets.y: unknown key "tiemout"; did you mean "timeout"?"#,
        "HAMMERD_CONFIG_INLINE:3: metrics.native_schema: 7 is not accepted: it is a whole number from 0 to 6",
        r#"environment HAMMERD__SERVER__LIFECYCLE: "TRUE" is not accepted: it is true or false"#,
        r#"environment HAMMERD__TARGETS__Y__MAX_IN_FLIGHT: "0123" is not accepted: it is a whole number from 1 to 100000"#,
        "environment HAMMERD__TARGETS__Z__RATE: neither url nor url_file is set, nor in [defaults]",
        r#"environment HAMMERD__TARGETS__Z__TIEMOUT: unknown key "tiemout"; did you mean "timeout"?"#,
        &format!(r#"--listen: "here" is not accepted: {address}"#),
        "--header te: neither url nor url_file is set, nor in [defaults]",
        "--header te: rate is not set, nor in [defaults]",
        "--header te: this header is not accepted: the connection sets it itself",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), want);
}

#[test]
fn what_is_missing_from_a_target_is_told_where_the_target_begins() {
    let folder = Folder::new();
    let file = folder.write("a.toml", "\n[targets.x]\nurl = \"http://h/\"\n");
    let env = pairs(&[("HAMMERD__TARGETS__X__TIMEOUT", "1s")]);
    let text = refuse(&Sources { files: vec![file], env, ..Sources::default() }).to_string();
    assert!(text.ends_with("a.toml:2: targets.x: rate is not set, nor in [defaults]"), "{text}");
}

#[test]
fn a_shard_of_a_flag_is_refused_as_the_flag() {
    let refused = |index: &str, count: &str| {
        let overrides = pairs(&[("shard.index", index), ("shard.count", count)]);
        refuse(&Sources { overrides, ..inline(ONE_TARGET) }).to_string()
    };
    assert_eq!(refused("3", "3"), "--shard: 3 is not accepted: with count = 3 it is 0 to 2");
    assert_eq!(refused("0", "0"), "--shard: \"0\" is not accepted: it is a whole number from 1 to 65536");
    assert_eq!(refused("one", "3"), "--shard: \"one\" is not accepted: it is a whole number from 0 to 65535");
}

#[test]
fn a_variable_that_names_no_key_is_refused() {
    for (names, want) in [
        (&["HAMMERD__"][..], "environment HAMMERD__: names no key, which is as in HAMMERD__TARGETS__CHECKOUT__RATE"),
        (
            &["HAMMERD__SERVER____LISTEN"],
            "environment HAMMERD__SERVER____LISTEN: names no key, which is as in HAMMERD__TARGETS__CHECKOUT__RATE",
        ),
        (
            &["HAMMERD__A", "HAMMERD__A__B"],
            "environment HAMMERD__A__B: sets a key that another variable sets, or one inside it",
        ),
        (
            &["HAMMERD__A__B", "HAMMERD__A"],
            "environment HAMMERD__A__B: sets a key that another variable sets, or one inside it",
        ),
        (
            &["HAMMERD__a", "HAMMERD__A"],
            "environment HAMMERD__a: sets a key that another variable sets, or one inside it",
        ),
        (
            &["HAMMERD__SERVR__LISTEN"],
            "environment HAMMERD__SERVR__LISTEN: unknown key \"servr\"; did you mean \"server\"?",
        ),
        (
            &["HAMMERD__TARGETS__X__HEADERS__A.B", "HAMMERD__TARGETS__X__HEADERS__a.b"],
            "environment HAMMERD__TARGETS__X__HEADERS__a.b: sets a key that another variable sets, or one inside it",
        ),
    ] {
        let env = names.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        assert_eq!(refuse(&Sources { env, ..inline(ONE_TARGET) }).to_string(), want, "{names:?}");
    }
}

#[test]
fn a_flag_that_is_given_twice_is_refused() {
    let overrides = pairs(&[("targets.x.headers.a", "1"), ("targets.x.headers.a", "2"), ("server.listen", "off")]);
    assert_eq!(refuse(&Sources { overrides, ..inline(ONE_TARGET) }).to_string(), "--header a: set twice");
}

#[test]
fn nothing_at_all_says_how_to_name_a_configuration() {
    let env = pairs(&[("HAMMERD_CONFIG", "x"), ("HOME", "/")]);
    let overrides = pairs(&[("server.listen", ":1")]);
    let text = refuse(&Sources { env, overrides, ..Sources::default() }).to_string();
    assert_eq!(text, "no configuration: name a file with --config or HAMMERD_CONFIG, or set HAMMERD_CONFIG_INLINE");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = Folder::new();
    let files = vec![folder.0.join("missing.toml"), folder.0.clone(), folder.write("empty.toml", "")];
    let text = refuse(&Sources { files, ..Sources::default() }).to_string();
    let name = folder.0.display();
    let want = format!(
        "{name}/missing.toml: can't be read: No such file or directory (os error 2)\n\
         {name}: can't be read: is a directory\n\
         {name}/empty.toml: empty: it sets no key"
    );
    assert_eq!(text, want);
}

/// Whoever names the authorities wants them asked.
#[test]
fn authorities_beside_no_verification_are_refused() {
    let (folder, ca) = (Folder::new(), rcgen::generate_simple_self_signed(vec!["h".to_owned()]).unwrap());
    let ca_file = folder.write("ca.pem", ca.cert.pem());
    let both = format!("tls = {{ ca_file = {ca_file:?}, insecure_skip_verify = true }}\n");
    let target = "[targets.x]\nurl = 'https://h/'\nrate = 1\n";
    let text = "tls.ca_file: set, but with insecure_skip_verify = true no certificate is checked";
    let of_target = refuse(&inline(format!("{target}{both}"))).to_string();
    assert_eq!(of_target, format!("HAMMERD_CONFIG_INLINE:4: targets.x.{text}"));
    let of_defaults = refuse(&inline(format!("[defaults]\n{both}{target}"))).to_string();
    assert_eq!(of_defaults, format!("HAMMERD_CONFIG_INLINE:2: defaults.{text}"));
}

#[test]
fn a_flood_of_mistakes_is_cut() {
    let keys: Vec<_> = (0..1000).map(|n| format!("k{n} = 1")).collect();
    let rejected = refuse(&inline(format!("[server]\n{}", keys.join("\n"))));
    assert_eq!(rejected.messages().len(), 101);
    // The thousand and that there is no target.
    assert_eq!(rejected.messages()[100], "and 901 more mistakes");
}

#[test]
fn a_ceiling_that_nobody_set_is_held_too() {
    let target = |n| format!("[targets.t{n}]\nurl = 'http://h/'\nrate = '100/s'");
    let text = (0..10_001).map(target).collect::<Vec<_>>().join("\n");
    let want = "\
HAMMERD_CONFIG_INLINE: limits.max_targets: 10001 targets are too many: at most 10000 are accepted
HAMMERD_CONFIG_INLINE: limits.max_total_rate: the targets' rates add up to 1000100/s, above 100000/s (the largest is t9999 with 100/s)";
    assert_eq!(refuse(&inline(text)).to_string(), want);
}

/// Pieces that make texts which are nearly configurations.
fn pieces() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "[targets.x]\n",
        "[targets",
        "]",
        "[",
        "{",
        "}",
        "url = ",
        "\"http://h/\"",
        "rate = ",
        "\"1/s\"",
        "1",
        "-",
        "\n",
        " ",
        ": ",
        "x",
        "headers",
        ".",
        "=",
        "\"",
        "'",
        "${A}",
        "${",
        "$${",
        "\\u0000",
        "\0",
        "é",
        "- ",
        "&a ",
        "*a",
        "!!",
        "defaults",
        "body_file = \"/\"",
        ",",
        "1e999",
        "0x",
        "#",
        "|\n",
        "? ",
        "---\n",
        "\t",
        "null",
        "[[targets]]\n",
        "expect_status",
        "burst = 1\n",
        "process = 'burst'\n",
        "99999999999999999999",
        "\u{feff}",
        "labels",
        "%",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in pieces()) {
        for syntax in [Syntax::Toml, Syntax::Yaml, Syntax::Json] {
            let _ = syntax.parse(&text, 0, &mut super::super::error::Mistakes::default());
        }
        let _ = load(&Sources { env: pairs(&[("A", "a\n")]), ..inline(text) });
    }

    #[test]
    fn no_bytes_make_a_load_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut sources = Sources { files: vec!["-".into()], ..Sources::default() };
        sources.set_stdin(&bytes[..]).unwrap();
        let _ = load(&sources);
    }

    #[test]
    fn no_value_of_any_key_makes_a_load_panic(key in prop::sample::select(KEYS), value in ".{0,30}", flag in any::<bool>()) {
        let pair = pairs(&[(key, &value)]);
        let (overrides, env) = if flag { (pair, vec![]) } else {
            let name = format!("HAMMERD__{}", key.to_uppercase().replace('.', "__"));
            (vec![], vec![(name, value)])
        };
        let _ = load(&Sources { env, overrides, ..inline(ONE_TARGET) });
    }
}

const KEYS: &[&str] = &[
    "server.listen",
    "server.lifecycle",
    "shutdown.grace",
    "engine.workers",
    "engine.coalesce",
    "limits.max_body",
    "limits.deny_networks",
    "metrics.buckets",
    "targets.x.url",
    "targets.x.rate",
    "targets.x.headers.a",
    "targets.x.headers_file.a",
    "targets.x.request_id_header",
    "targets.x.traceparent",
    "targets.x.buckets",
    "targets.x.native_schema",
    "targets.x.body",
    "targets.x.body_file",
    "targets.x.url_file",
    "targets.x.timeout",
    "targets.x.expect_status",
    "targets.x.labels.a",
    "targets.x.max_body",
    "targets.x.method",
    "targets.x.burst",
];
