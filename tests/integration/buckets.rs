//! Configurations in S3: moto plays it, and checks each signature with AWS's own code.

use crate::sources::{BESIDE, FOLLOW, asked_rate, failures, is_up, reloads};
use crate::support::daemon::run;
use crate::support::moto::{Moto, Reader};
use crate::support::{Daemon, Origin, PATIENCE, Reply, target, wait_until};

/// Of the environment.
type Variables<'a> = &'a [(&'a str, &'a str)];

fn config(rate: &str) -> String {
    format!("{FOLLOW}{}", target("a", "http://127.0.0.1:1/", rate, ""))
}

/// The environment of somebody who has a key.
fn variables<'a>(moto: &'a str, reader: &'a Reader) -> Vec<(&'a str, &'a str)> {
    let token = reader.token.as_deref().map(|token| ("AWS_SESSION_TOKEN", token));
    let named = [
        ("AWS_ENDPOINT_URL_S3", moto),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", reader.id.as_str()),
        ("AWS_SECRET_ACCESS_KEY", reader.secret.as_str()),
    ];
    named.into_iter().chain(token).collect()
}

#[test]
fn an_object_is_asked_for_changes_by_who_may_read_it() {
    let moto = Moto::start();
    let url = moto.url();
    let (user, session) = (moto.user("hammerd"), moto.session("task"));
    moto.put("a.toml", Some(&config("20/s")));
    let mut builder = Daemon::builder(BESIDE).arg("--config").arg("s3://conf/a.toml");
    for (name, value) in variables(&url, &user) {
        builder = builder.env(name, value);
    }
    let daemon = builder.start();
    wait_until("answers that nothing has changed", PATIENCE, || {
        moto.log_of("a.toml").iter().filter(|line| line.contains("\" 304 ")).count() >= 2
    });
    assert_eq!(reloads(&daemon.scrape()), (0.0, 0.0));
    moto.put("a.toml", Some(&config("30/s")));
    let scrape = daemon.scrape_when("the change", |scrape| reloads(scrape) == (1.0, 0.0));
    assert_eq!(asked_rate(&scrape), 30.0);
    moto.put("a.toml", Some("garbage"));
    daemon.scrape_when("the refusal", |scrape| reloads(scrape) == (1.0, 1.0));
    daemon.wait_log(&["reload refused", "s3://conf/a.toml:1"], 1);
    moto.put("a.toml", None);
    let scrape = daemon.scrape_when("failures", |scrape| failures(scrape, "status") >= 1.0);
    assert_eq!((asked_rate(&scrape), is_up(&scrape)), (30.0, false));
    daemon.wait_log(&["can't be had", "s3://conf/a.toml", "404", "NoSuchKey"], 1);
    moto.put("a.toml", Some(&config("40/s")));
    daemon.scrape_when("its return", |scrape| reloads(scrape) == (2.0, 1.0) && asked_rate(scrape) == 40.0);

    // The judge does judge: a wrong secret, a wrong token.
    moto.put("b.yaml", Some("targets:\n  a:\n    url: http://shop.example/\n    rate: 7/s\n"));
    let check = |reader: &Reader| run(&["check", "--config", "s3://conf/b.yaml"], &variables(&url, reader), "");
    for reader in [&user, &session] {
        let end = check(reader);
        assert_eq!(end.code, Some(0), "{end:?}");
        assert!(end.stdout.contains("7/s"), "{end:?}");
    }
    let wrong = Reader { secret: "wrong".to_owned(), ..user.clone() };
    let other = Reader { token: Some("another".to_owned()), ..session.clone() };
    for (reader, code) in [(&wrong, "SignatureDoesNotMatch"), (&other, "InvalidToken")] {
        let end = check(reader);
        assert_eq!(end.code, Some(1), "{end:?}");
        assert!(end.stderr.contains(code) && end.stderr.contains("s3://conf/b.yaml"), "{end:?}");
        assert!(!end.stderr.contains(reader.secret.as_str()), "{end:?}");
    }
}

/// As a task of ECS or a pod of EKS has them.
#[test]
fn credentials_come_from_the_containers_endpoint_and_are_asked_for_again_when_refused() {
    let moto = Moto::start();
    let (first, second) = (moto.session("first"), moto.session("second"));
    moto.put("a.toml", Some(&config("20/s")));
    let answer = |reader: &Reader| {
        let token = reader.token.as_deref().unwrap_or_default();
        let (id, secret) = (&reader.id, &reader.secret);
        let body = serde_json::json!({ "AccessKeyId": id, "SecretAccessKey": secret, "Token": token });
        Reply::ok(&body.to_string())
    };
    let reply = answer(&first);
    let agent = Origin::start(move |_| reply.clone());
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    std::fs::write(&token, "agent-token\n").expect("a file");
    let daemon = Daemon::builder(BESIDE)
        .arg("--config")
        .arg("s3://conf/a.toml")
        .env("AWS_ENDPOINT_URL_S3", &moto.url())
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent.url("/v1/credentials"))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().expect("UTF-8"))
        .start();
    wait_until("answers that nothing has changed", PATIENCE, || {
        moto.log_of("a.toml").iter().filter(|line| line.contains("\" 304 ")).count() >= 3
    });
    let asked = agent.requests();
    assert_eq!(asked.len(), 1, "one answer serves for a while");
    assert_eq!((asked[0].path.as_str(), asked[0].header("authorization")), ("/v1/credentials", Some("agent-token")));

    // A session that is over.
    let reply = answer(&second);
    agent.set_reply(move |_| reply.clone());
    moto.forget_role("first");
    let scrape = daemon.scrape_when("a refusal", |scrape| failures(scrape, "status") >= 1.0);
    assert_eq!(asked_rate(&scrape), 20.0);
    daemon.scrape_when("the next session", is_up);
    assert_eq!((agent.requests().len(), reloads(&daemon.scrape())), (2, (0.0, 0.0)));
}

#[test]
fn an_object_that_nobody_can_ask_for_is_told_by_what_is_missing() {
    let moto = "http://127.0.0.1:1";
    let key = ("AWS_ACCESS_KEY_ID", "id");
    let secret = ("AWS_SECRET_ACCESS_KEY", "s3cret");
    let region = ("AWS_REGION", "eu-central-1");
    let endpoint = ("AWS_ENDPOINT_URL_S3", moto);
    let agent = Origin::start(|_| Reply::ok("{\"AccessKeyId\": \"s3cret\"}"));
    let half = agent.url("/");
    let full = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let cases: [(Variables<'_>, &str); 6] = [
        (&[key, secret], "AWS_REGION is not set"),
        (&[region], "no credentials"),
        (&[region, key], "only one is set"),
        (&[region, (full, "http://192.0.2.1/x")], "without TLS only loopback"),
        (&[region, (full, &half)], "no credentials"),
        (&[key, secret, ("AWS_ENDPOINT_URL_S3", "nonsense")], "AWS_ENDPOINT_URL_S3"),
    ];
    for (variables, words) in cases {
        let end = run(&["check", "--config", "s3://conf/a.toml"], variables, "");
        assert_eq!(end.code, Some(1), "{variables:?}: {end:?}");
        assert!(end.stderr.contains(words) && end.stderr.contains("s3://conf/a.toml"), "{variables:?}: {end:?}");
        assert!(!end.stderr.contains("s3cret"), "{end:?}");
    }
    let nameless = run(&["check", "--config", "s3://conf"], &[region, endpoint], "");
    assert_eq!(nameless.code, Some(2), "{nameless:?}");
    assert!(nameless.stderr.contains("s3://bucket/path"), "{nameless:?}");
}
