//! What is accepted, and what it then means.

use std::time::Duration;

use http::StatusCode;

use super::super::section::{self, Root, Section};
use super::super::{Members, Metrics, Shard, frozen_differences, plan, redacted, schema};
use super::*;
use crate::pace::{Process, Rate, Stripe};

#[test]
fn what_nobody_sets_has_the_documented_value() {
    let config = accept(&inline(ONE_TARGET));
    assert_eq!(config.server.listen, Some(([127, 0, 0, 1], 9955).into()));
    assert!(!config.server.lifecycle);
    assert_eq!((config.shutdown.grace, config.shutdown.linger), (Duration::from_secs(20), Duration::from_secs(5)));
    assert_eq!(config.engine.workers, None);
    assert_eq!(config.engine.coalesce, Duration::from_micros(250));
    assert_eq!(config.engine.late_after, Duration::from_millis(100));
    assert_eq!(config.limits.max_total_rate, Rate::per_second(100_000));
    assert_eq!((config.limits.max_total_in_flight, config.limits.max_targets), (10_000, 10_000));
    assert_eq!(config.limits.max_body, 10 << 20);
    assert_eq!(config.limits.deny_networks, ["169.254.0.0/16".parse().unwrap(), "fe80::/10".parse().unwrap()]);
    assert_eq!(config.limits.allow_networks, []);
    assert_eq!(config.metrics.buckets.first(), Some(&0.0005));
    assert_eq!(config.metrics.buckets.last(), Some(&10.0));
    assert_eq!(config.metrics.native_schema, 3);
    let x = target(&config, "x");
    assert_eq!((x.rate, x.process), (Rate::per_second(1), Process::Even));
    assert_eq!((x.timeout, x.max_in_flight), (Duration::from_secs(10), 100));
    assert_eq!((x.http.method.as_str(), x.http.body.len(), x.http.max_body), ("GET", 0, 10 << 20));
    assert!(x.http.expect_status.contains(StatusCode::FOUND));
    assert!(!x.http.expect_status.contains(StatusCode::BAD_REQUEST));
    assert_eq!(x.http.headers["host"], "a.example");
    assert_eq!(x.http.headers["user-agent"], concat!("hammerd/", env!("CARGO_PKG_VERSION")));
    assert_eq!(x.http.headers.len(), 2);
}

#[test]
fn every_file_under_config_is_accepted() {
    let secrets = Folder::new();
    let certified = rcgen::generate_simple_self_signed(vec!["h".to_owned()]).unwrap();
    let (cert, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let mut seen = 0;
    for path in [files("config"), files("config/examples")].concat() {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut env = pairs(&[("SHOP_API_KEY", "k")]);
        // Secret files are where the example says; here they are in a folder of the test.
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = text
            .replace("/run/secrets/shop-token", secrets.write("token", "Bearer t\n").to_str().unwrap())
            .replace("/run/secrets/hook-url", secrets.write("url", "http://h/t\n").to_str().unwrap())
            .replace("/etc/hammerd/ca.pem", secrets.write("ca", &cert).to_str().unwrap())
            .replace("/etc/hammerd/client.pem", secrets.write("cert", &cert).to_str().unwrap())
            .replace("/etc/hammerd/client.key", secrets.write("key", &key).to_str().unwrap())
            .replace("/etc/hammerd/checkout.json", secrets.write("body", "{}").to_str().unwrap());
        env.push(("UNUSED".to_owned(), String::new()));
        let sources = Sources { files: vec![secrets.write(name, text)], env, ..Sources::default() };
        let config = accept(&sources);
        assert!(!config.targets.is_empty(), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn later_layers_win_key_by_key() {
    let folder = Folder::new();
    let base = folder.write("base.toml", format!("{ONE_TARGET}timeout = \"1s\"\nmax_in_flight = 1\nmax_body = 1\n"));
    let over = folder.write("over.yaml", "targets: { x: { timeout: 2s, max_in_flight: 2, headers: { X-B: file } } }");
    let json = folder.write("over.json", r#"{"targets": {"x": {"max_in_flight": 3}}, "metrics": {"buckets": [1, 2]}}"#);
    let sources = Sources {
        files: vec![base, over, json],
        inline: Some("[targets.x]\nrate = '2/s'\nmethod = 'PUT'\n".to_owned()),
        env: pairs(&[
            ("HAMMERD__TARGETS__X__RATE", "3/s"),
            ("HAMMERD__TARGETS__X__METHOD", "POST"),
            ("HAMMERD__TARGETS__X__HEADERS__X-B", "env"),
            ("HAMMERD__TARGETS__X__EXPECT_STATUS", "204, 4xx"),
            ("HAMMERD__SERVER__LISTEN", ":1"),
            ("HAMMERD__SERVER__LIFECYCLE", "true"),
            ("HAMMERD__LIMITS__ALLOW_NETWORKS", "10.0.0.0/8,10.1.2.3"),
            ("HAMMERD_CONFIG", "not a key"),
            ("HAMMERD_CONFIG_INLINE", "not a key"),
        ]),
        overrides: pairs(&[("server.listen", "off"), ("targets.x.rate", "4/s"), ("targets.x.headers.a.b", "${raw}")]),
        ..Sources::default()
    };
    let config = accept(&sources);
    let x = target(&config, "x");
    assert_eq!(x.http.max_body, 1, "first file");
    assert_eq!(x.timeout, Duration::from_secs(2), "second file");
    assert_eq!(x.max_in_flight, 3, "third file");
    assert_eq!(config.metrics.buckets[..], [1.0, 2.0], "a list is replaced as a whole");
    assert_eq!(x.http.method, "POST", "environment over inline");
    assert_eq!(x.http.headers["x-b"], "env", "header names mean the same in any case");
    assert_eq!(x.http.expect_status.to_string(), "204, 4xx");
    assert!(config.server.lifecycle);
    assert_eq!(config.limits.allow_networks.len(), 2);
    assert_eq!(config.server.listen, None, "flag over environment");
    assert_eq!(x.rate, Rate::per_second(4), "flag over all");
    assert_eq!(x.http.headers["a.b"], "${raw}", "the shell has expanded flags already");
}

#[test]
fn the_environment_alone_may_be_a_configuration() {
    let env = pairs(&[("HAMMERD__TARGETS__SHOP-1__URL", "http://h/"), ("HAMMERD__DEFAULTS__RATE", "5")]);
    let config = accept(&Sources { env, ..Sources::default() });
    assert_eq!(target(&config, "shop-1").rate, Rate::per_second(5));
}

#[test]
fn flags_alone_may_be_a_configuration() {
    let overrides = pairs(&[("targets.hit.url", "http://h/"), ("targets.hit.rate", "10/s"), ("server.listen", "off")]);
    let config = accept(&Sources { overrides, ..Sources::default() });
    assert_eq!((target(&config, "hit").rate, config.server.listen), (Rate::per_second(10), None));
}

#[test]
fn numbers_may_be_grouped_and_signed_as_toml_has_it() {
    let text = format!("{ONE_TARGET}max_in_flight = +1_000\nmax_body = 1_000\n[metrics]\nbuckets = [1_0.5, 2e1]");
    let config = accept(&inline(text));
    let x = target(&config, "x");
    assert_eq!((x.max_in_flight, x.http.max_body), (1000, 1000));
    assert_eq!(config.metrics.buckets[..], [10.5, 20.0]);
}

#[test]
fn standard_input_is_read_once_for_all_loads() {
    let mut sources = Sources { files: vec!["-".into()], ..Sources::default() };
    assert_eq!(refuse(&sources).to_string(), "stdin: can't be read: standard input was not read");
    sources.set_stdin(ONE_TARGET.as_bytes()).unwrap();
    assert_eq!(accept(&sources), accept(&sources));
}

#[test]
fn headers_and_labels_are_merged_with_the_defaults_name_by_name() {
    let text = r#"
        [defaults]
        rate = "1/h"
        headers = { a = "default", b = "default", host = "elsewhere" }
        labels = { team = "default", tier = "default" }
        [targets.x]
        url = "http://h:8080/"
        headers = { B = "own", user-agent = "me" }
        labels = { team = "own" }
        [targets.y]
        url = "http://h:8080/"
        headers.host = "third"
    "#;
    let config = accept(&inline(text));
    let x = target(&config, "x");
    let headers: Vec<_> = x.http.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("host", "elsewhere"), ("user-agent", "me"), ("a", "default"), ("b", "own")]);
    assert_eq!(x.labels, pairs(&[("team", "own"), ("tier", "default")]).into_iter().collect());
    assert_eq!(target(&config, "y").http.headers["host"], "third");
}

#[test]
fn a_targets_own_body_or_url_replaces_the_defaults_twin() {
    let folder = Folder::new();
    let file = folder.write("body", "from file\n");
    let text =
        format!("[defaults]\nbody_file = {file:?}\n{ONE_TARGET}body = 'own'\n[targets.y]\nurl='http://b'\nrate=1");
    let config = accept(&inline(text));
    assert_eq!(target(&config, "x").http.body, "own");
    assert_eq!(target(&config, "y").http.body, "from file\n");
}

#[test]
fn a_burst_is_the_process_and_its_size() {
    let text = format!(
        "[defaults]\nprocess = 'burst'\nburst = 5\n{ONE_TARGET}burst = 7\n[targets.y]\nurl='http://b'\nrate=1\n[targets.z]\nurl='http://b'\nrate=1\nprocess='even'"
    );
    let config = accept(&inline(text));
    assert_eq!(target(&config, "x").process, Process::Burst { size: 7 });
    assert_eq!(target(&config, "y").process, Process::Burst { size: 5 });
    assert_eq!(target(&config, "z").process, Process::Even);
}

#[test]
fn a_later_layer_may_swap_a_key_for_its_twin() {
    let folder = Folder::new();
    let body = folder.write("body", "from file");
    let first = format!(
        "{ONE_TARGET}body = 'inline'\nprocess = 'burst'\nburst = 2\nheaders.a = 'inline'\nheaders_file.b = {body:?}\n"
    );
    let first = folder.write("first.toml", first);
    let second = format!(
        "[targets.x]\nbody_file = {body:?}\nprocess = 'even'\nheaders.b = 'inline'\nheaders_file.a = {body:?}\n"
    );
    let config = accept(&Sources { files: vec![first], ..inline(second) });
    let x = target(&config, "x");
    assert_eq!((&x.http.body[..], x.process), (&b"from file"[..], Process::Even));
    assert_eq!(
        (&x.http.headers["a"], &x.http.headers["b"]),
        (&"from file".parse().unwrap(), &"inline".parse().unwrap())
    );
}

#[test]
fn the_shown_configuration_reads_back_as_the_same() {
    let text = format!(
        "{ONE_TARGET}process = 'burst'\nburst = 3\nbody = \"\\u0001 \\\" ${{NAME}} $${{x}} ä\"\nexpect_status = [204, '4xx', '500-501']\n\
         headers = {{ \"a.b\" = 'c', host = 'other' }}\nlabels = {{ team = 'a\"b' }}\ntimeout = '1h'\nmax_body = 1500\n\
         request_id_header = 'X-Request-Id'\n\
         [engine]\nworkers = 2\n[server]\nlisten = '[::1]:99'\n[targets.y]\nurl = 'http://[::1]:8/?q'\nrate = '7/250ms'\n"
    )
    .replace("${NAME}", "");
    let config = accept(&inline(text));
    let again = accept(&inline(redacted(&config)));
    assert_eq!(again, config);
    assert_eq!(redacted(&again), redacted(&config));
}

/// What does nothing beside other keys is left out; set by the target itself it would be refused.
#[test]
fn the_shown_configuration_reads_back_where_defaults_do_nothing() {
    let text = "[server]\nlisten = 'off'\n\
                [defaults]\nrate = 1\nurl = 'https://h/'\n\
                dns.refresh = 'once'\npool = { connect_timeout = '9s', max_requests = 9, max_connections = 9 }\n\
                [targets.hasty]\ntimeout = '1s'\nmax_in_flight = 2\n\
                [targets.literal]\nurl = 'https://[::1]/'\n\
                [targets.socket]\nconnect_to = 'unix:/s'\n\
                [targets.once]\npool.reuse = false\ntls.insecure_skip_verify = true\n";
    let shown = redacted(&accept(&inline(text)));
    assert_eq!(redacted(&accept(&inline(shown.clone()))), shown);
}

/// Whoever sets a key for one target, or in a later layer, need not take away all that it makes useless.
#[test]
fn an_exception_leaves_the_rest_as_it_is() {
    let folder = Folder::new();
    let ca = folder.write("ca.pem", rcgen::generate_simple_self_signed(vec!["h".to_owned()]).unwrap().cert.pem());
    let base = folder.write(
        "base.toml",
        format!(
            "[defaults]\nrate = 1\nurl = 'https://h/'\ntls.ca_file = {ca:?}\ndns.family = 'ipv4'\n\
             [targets.hasty]\npool.connect_timeout = '9s'\n\
             [targets.careless]\ntls.insecure_skip_verify = true\n\
             [targets.literal]\nurl = 'https://127.0.0.1/'\n\
             [targets.beforehand]\ntimeout = '1s'\ntls.handshake_timeout = '2s'\n\
             pool = {{ preconnect = 1, connect_timeout = '2s' }}\n\
             [targets.moved]\ndns.refresh = 'once'\n\
             [server]\nlifecycle = true\n[shutdown]\nlinger = '1s'\n"
        ),
    );
    let env = pairs(&[
        ("HAMMERD__TARGETS__HASTY__TIMEOUT", "1s"),
        ("HAMMERD__TARGETS__MOVED__URL", "http://127.0.0.1/"),
        ("HAMMERD__SERVER__LISTEN", "off"),
    ]);
    accept(&Sources { files: vec![base], env, ..Sources::default() });
}

/// Over TLS, too, it is sent as it is, in a header.
#[test]
fn a_host_header_that_is_no_authority_is_http1_where_the_version_is_open() {
    let alpn = |host: &str| {
        let text = format!("[targets.x]\nurl = 'https://h/'\nrate = 1\nheaders.host = '{host}'\n");
        let config = accept(&inline(text));
        let http = &target(&config, "x").http;
        assert_eq!(http.headers["host"], host);
        http.tls.as_ref().map(|tls| tls.spec().alpn.clone())
    };
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    assert_eq!(alpn("other.example:8443"), Some(both.to_vec()));
    for odd in ["a b", "a/b", "user@h"] {
        assert_eq!(alpn(odd), Some(vec![&b"http/1.1"[..]]), "{odd}");
    }
}

#[test]
fn a_header_of_ids_is_the_targets_own_or_that_of_the_defaults_or_there_is_none() {
    let text = format!(
        "[defaults]\nrequest_id_header = 'X-Request-Id'\n{ONE_TARGET}[targets.y]\nurl = 'http://h/'\nrate = 1\nrequest_id_header = 'traceparent'\n"
    );
    let config = accept(&inline(text));
    let header = |name: &str| target(&config, name).http.request_id_header.clone();
    assert_eq!(
        (header("x").unwrap(), header("y").unwrap()),
        ("x-request-id".parse().unwrap(), "traceparent".parse().unwrap())
    );
    assert_eq!(target(&accept(&inline(ONE_TARGET)), "x").http.request_id_header, None);
}

#[test]
fn the_plan_is_a_table_with_totals() {
    let text = format!(
        "[limits]\nmax_total_in_flight = 150\n{ONE_TARGET}[targets.checkout]\nurl = 'http://h:8/a?b=c'\nrate = '3/min'\nmethod = 'POST'\nprocess = 'burst'\nburst = 3\ntimeout = '90s'"
    );
    let want = "\
TARGET    RATE   PROCESS     METHOD  URL                TIMEOUT  MAX IN FLIGHT
checkout  3/min  burst of 3  POST    http://h:8/a?b=c   1m30s    100
x         1/s    even        GET     http://a.example/  10s      100

2 targets, 1.05/s in total, at most 150 requests in flight
";
    assert_eq!(plan(&accept(&inline(text))), want);
}

#[test]
fn buckets_reach_up_to_the_timeout() {
    let text = "[defaults]\nurl = 'http://h/'\nrate = 1\nbuckets = [0.5, 2]\n\
                [targets.plain]\ntimeout = '2s'\n\
                [targets.slow]\ntimeout = '2500ms'\n\
                [targets.own]\nbuckets = [1, 60]\nnative_schema = 5\n";
    let config = accept(&inline(text));
    let shape = |name: &str| {
        let Metrics { buckets, native_schema } = &config.targets[name].metrics;
        (buckets.to_vec(), *native_schema)
    };
    assert_eq!(shape("plain"), (vec![0.5, 2.0], 3));
    assert_eq!(shape("slow"), (vec![0.5, 2.0, 2.5], 3));
    assert_eq!(shape("own"), (vec![1.0, 60.0], 5));
    assert_eq!(config.metrics.buckets.last(), Some(&10.0));
    assert_eq!(accept(&inline(redacted(&config))).targets, config.targets);
}

#[test]
fn what_cannot_change_live_is_named() {
    let running = accept(&inline(ONE_TARGET));
    assert_eq!(frozen_differences(&running, &running), [""; 0]);
    let mut next = running.clone();
    next.targets.clear();
    next.engine.coalesce = Duration::ZERO;
    assert_eq!(frozen_differences(&running, &next), [""; 0]);
    next.server.listen = Some(([127, 0, 0, 1], 9956).into());
    next.engine.workers = std::num::NonZeroUsize::new(2);
    next.metrics.buckets = [1.0].into();
    next.metrics.native_schema = 4;
    next.server.lifecycle = true;
    next.shard = accept(&inline(format!("{ONE_TARGET}\n[shard]\nindex = 0\ncount = 1\n"))).shard;
    let differences = frozen_differences(&running, &next);
    assert_eq!(
        differences[0],
        "server.listen: can't change from 127.0.0.1:9955 to 127.0.0.1:9956 while running; restart hammerd"
    );
    let keys: Vec<_> = differences.iter().filter_map(|text| text.split(':').next()).collect();
    let want =
        ["server.listen", "server.lifecycle", "engine.workers", "metrics.buckets", "metrics.native_schema", "shard"];
    assert_eq!(keys, want);
    let mut other = next.clone();
    other.shard = accept(&inline(format!("{ONE_TARGET}\n[shard]\nindex = 1\ncount = 3\n"))).shard;
    assert_eq!(frozen_differences(&next, &other), [""; 0]);
}

#[test]
fn a_shard_is_an_index_and_a_count_or_a_list_to_be_found_in() {
    let shard = |env: &[(&str, &str)], overrides: &[(&str, &str)]| {
        accept(&Sources { env: pairs(env), overrides: pairs(overrides), ..inline(ONE_TARGET) }).shard
    };
    let refresh = Duration::from_secs(5);
    let fixed = |index, count| Some(Shard::Fixed { stripe: Stripe::new(index, count).expect("a stripe"), refresh });
    let pod = [("HAMMERD__SHARD__INDEX", "2"), ("HAMMERD__SHARD__COUNT", "5")];
    assert_eq!(shard(&[], &[]), None);
    assert_eq!(shard(&pod, &[]), fixed(2, 5));
    assert_eq!(shard(&pod, &[("shard.index", "0"), ("shard.count", "3")]), fixed(0, 3));
    let list = [("HAMMERD__SHARD__MEMBERS", "peers.shop.svc."), ("HAMMERD__SHARD__ADDRESS", "fd00::7")];
    let (name, address) = ("peers.shop.svc.".to_owned(), "fd00::7".parse().ok());
    assert_eq!(shard(&list, &[]), Some(Shard::Members(Members { name, address, refresh })));
    let shown = accept(&Sources { env: pairs(&list), ..inline(ONE_TARGET) });
    assert_eq!(accept(&inline(redacted(&shown))).shard, shown.shard);
    let shown = accept(&Sources { env: pairs(&pod), ..inline(ONE_TARGET) });
    assert_eq!(accept(&inline(redacted(&shown))).shard, shown.shard);
    assert!(
        plan(&shown).ends_with("of which this replica, number 2 of 5 counted from 0, sends 1/5\n"),
        "{}",
        plan(&shown)
    );
}

/// The keys of a section, as the reader knows them.
fn keys<S: Section>(except: &[&str]) -> Vec<String> {
    S::KEYS.iter().map(|key| key.name.to_owned()).filter(|name| !except.contains(&name.as_str())).collect()
}

#[test]
fn the_schema_and_the_shown_configuration_have_every_key_that_is_read() {
    let folder = Folder::new();
    let certified = rcgen::generate_simple_self_signed(vec!["h".to_owned()]).unwrap();
    let cert = folder.write("cert.pem", certified.cert.pem());
    let key = folder.write("key.pem", certified.signing_key.serialize_pem());
    let text = format!(
        "[targets.x]\nurl = 'https://h/'\nrate = 1\nbody = 'b'\nlabels.a = 'b'\nprocess = 'burst'\nburst = 2\n\
         buckets = [1]\nnative_schema = 2\nconnect_to = 'h2:1'\nrequest_id_header = 'x-request-id'\ntls = {{ ca_file = {cert:?}, cert_file = {cert:?}, key_file = {key:?}, server_name = 'n' }}\n\
         pool = {{ max_connections = 5, max_requests = 6 }}\n[shard]\nmembers = 'p'\naddress = '10.0.0.1'\n"
    );
    let shown: toml::de::DeTable<'_> = {
        let shown = redacted(&accept(&inline(text))).leak();
        toml::de::DeTable::parse(shown).unwrap().into_inner()
    };
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let described = |path: &str| -> Vec<String> {
        let section = schema.pointer(path).unwrap();
        assert_eq!(section["additionalProperties"], false, "{path}");
        let properties = section["properties"].as_object().unwrap();
        assert!(properties.values().all(|property| property["description"].is_string()), "{path}");
        properties.keys().cloned().collect()
    };
    let printed = |path: &[&str]| -> Vec<String> {
        let mut table = &shown;
        for name in path {
            table = table.get(*name).and_then(|value| value.get_ref().as_table()).unwrap();
        }
        table.keys().map(|key| key.get_ref().to_string()).collect()
    };
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    for (name, keys) in [
        ("server", keys::<section::Server>(&[])),
        ("shutdown", keys::<section::Shutdown>(&[])),
        ("engine", keys::<section::Engine>(&[])),
        ("limits", keys::<section::Limits>(&[])),
        ("metrics", keys::<section::Metrics>(&[])),
    ] {
        assert_eq!(described(&format!("/properties/{name}")), keys);
        assert_eq!(printed(&[name]), sorted(keys));
    }
    assert_eq!(described("/properties/shard"), keys::<section::Shard>(&[]));
    assert_eq!(printed(&["shard"]), sorted(keys::<section::Shard>(&["index", "count"])));
    assert_eq!(described(""), keys::<Root>(&[]));
    assert_eq!(described("/properties/defaults"), keys::<section::Target>(&[]));
    assert_eq!(described("/properties/targets/additionalProperties"), keys::<section::Target>(&[]));
    // What a file held is shown under the key that it stands for.
    let files = ["url_file", "headers_file", "body_file"];
    assert_eq!(printed(&["targets", "x"]), sorted(keys::<section::Target>(&files)));
    for (name, keys) in
        [("tls", keys::<section::Tls>(&[])), ("dns", keys::<section::Dns>(&[])), ("pool", keys::<section::Pool>(&[]))]
    {
        assert_eq!(described(&format!("/properties/defaults/properties/{name}")), keys);
        assert_eq!(printed(&["targets", "x", name]), sorted(keys));
    }
}

#[test]
fn every_default_of_the_schema_is_accepted() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let mut config = serde_json::json!({ "targets": { "x": { "url": "http://h/", "rate": 1 } } });
    for (section, properties) in schema["properties"].as_object().unwrap() {
        for (key, property) in properties["properties"].as_object().into_iter().flatten() {
            if let Some(default) = property.get("default") {
                config[section][key] = default.clone();
            }
        }
    }
    let folder = Folder::new();
    let files = vec![folder.write("defaults.json", config.to_string())];
    let spelled_out = accept(&Sources { files, ..Sources::default() });
    assert_eq!(spelled_out, accept(&inline("[targets.x]\nurl = 'http://h/'\nrate = 1")));
}

#[test]
fn ten_thousand_targets_are_accepted() {
    use std::fmt::Write as _;
    let mut text = "[defaults]\nheaders = { a = 'b' }\n".to_owned();
    for n in 0..10_000 {
        writeln!(text, "[targets.t{n}]\nurl = 'http://h/{n}'\nrate = '1/s'\nlabels = {{ n = '{n}' }}").unwrap();
    }
    let config = accept(&inline(text));
    assert_eq!(config.targets.len(), 10_000);
    assert_eq!(target(&config, "t7").labels["n"], "7");
}

#[test]
fn toml_yaml_and_json_say_the_same() {
    let folder = Folder::new();
    let files = [
        folder.write(
            "a.toml",
            "\u{feff}[targets.x]\nurl = 'http://h/'\nrate = 2.5\nmax_in_flight = 0x10\nlabels = { a = '007', d = 2020-01-01 }\n\
             body = \"😀\\t/\"\nexpect_status = [\n  200, # one\n  '3xx',\n]\n[server]\nlifecycle = true\n",
        ),
        folder.write(
            "a.yaml",
            "\u{feff}# one document\n---\nserver: { lifecycle: true }\ntargets:\n  x:\n    url: http://h/\n    rate: 2.5\n\
             \x20   max_in_flight: 0x10\n    labels: { a: 007, d: 2020-01-01 }\n    body: \"\\U0001F600\\t/\"\n\
             \x20   expect_status:\n    - 200\n    - 3xx\n...\n",
        ),
        folder.write(
            "a.json",
            "{\t\"server\": {\"lifecycle\": true},\r\n\t\"targets\": {\"x\": {\"url\": \"http:\\/\\/h\\/\", \"rate\": 2.5,\n\
             \"max_in_flight\": 16, \"labels\": {\"a\": \"007\", \"d\": \"2020-01-01\"}, \"body\": \"\\ud83d\\ude00\\t/\",\n\
             \"expect_status\": [200, \"3xx\"]}}}",
        ),
    ];
    let [toml, yaml, json] = files.map(|file| accept(&Sources { files: vec![file], ..Sources::default() }));
    let x = target(&toml, "x");
    assert_eq!((x.rate, x.max_in_flight), ("2.5/s".parse().unwrap(), 16));
    assert_eq!((&x.http.body[..], x.labels["a"].as_str()), ("😀\t/".as_bytes(), "007"));
    assert_eq!(toml, yaml);
    assert_eq!(toml, json);
}

#[test]
fn a_sum_of_rates_may_reach_the_ceiling() {
    let thirds = ["a", "b", "c"].map(|name| format!("[targets.{name}]\nurl = 'http://h/'\nrate = '1/3s'\n")).concat();
    accept(&inline(format!("[limits]\nmax_total_rate = '1/s'\n{thirds}")));
    let ones = ["a", "b", "c"].map(|name| format!("[targets.{name}]\nurl = 'http://h/'\nrate = '1/s'\n")).concat();
    accept(&inline(format!("[limits]\nmax_total_rate = '3/s'\nmax_targets = 3\n{ones}")));
}

#[test]
fn a_low_ceiling_lowers_what_nobody_set() {
    let text = format!("[limits]\nmax_total_in_flight = 7\nmax_body = 5\n{ONE_TARGET}");
    let config = accept(&inline(text));
    assert_eq!(target(&config, "x").max_in_flight, 7);
    assert_eq!(target(&config, "x").http.max_body, 5);
}

#[test]
fn a_target_name_is_a_key_for_texts() {
    let config = accept(&inline(ONE_TARGET));
    let (name, _) = config.targets.get_key_value("x").unwrap();
    assert_eq!((name.as_str(), format!("{name:>3}|")), ("x", "  x|".to_owned()));
    for (text, valid) in [
        ("a", true),
        ("0-a_b", true),
        (&*"a".repeat(63), true),
        (&*"a".repeat(64), false),
        ("", false),
        ("-a", false),
        ("_a", false),
        ("a__b", false),
        ("A", false),
        ("ä", false),
        ("a.b", false),
    ] {
        assert_eq!(super::super::TargetName::parse(text).is_some(), valid, "{text:?}");
    }
}
