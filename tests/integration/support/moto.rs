//! moto, which plays S3, IAM and STS of AWS, and checks signatures with what AWS's own tools sign with.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use super::process::Process;
use super::{PATIENCE, client, free_port, judge, wait_for};

/// A policy: every object may be read.
const ALLOWED: &str = concat!(
    "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%7B%22Effect%22%3A%22Allow%22%2C%22Action%22",
    "%3A%22s3%3AGetObject%22%2C%22Resource%22%3A%22%2A%22%7D%7D",
);
/// A role's: everybody may take it on.
const TRUST: &str = concat!(
    "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Princi",
    "pal%22%3A%7B%22AWS%22%3A%22%2A%22%7D%2C%22Action%22%3A%22sts%3AAssumeRole%22%7D%5D%7D",
);

/// A running moto with a bucket `conf`.
pub(crate) struct Moto {
    process: Process,
    address: SocketAddr,
}

/// Somebody who may read what is in the bucket.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) id: String,
    pub(crate) secret: String,
    /// Of a session only.
    pub(crate) token: Option<String>,
}

impl Moto {
    /// Starts it, makes the bucket, and has every signature checked from then on.
    pub(crate) fn start() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new(judge("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]).env("PYTHONUNBUFFERED", "1");
        let mut process = Process::serve("moto", &mut command);
        wait_for("answer of moto", 3 * PATIENCE, || match client::get(address, "/moto-api/data.json") {
            Ok(response) if response.status == 200 => Ok(()),
            _ => Err(process.check_alive()),
        });
        let moto = Self { process, address };
        moto.unchecked(|| drop(moto.call("s3", "PUT", "/conf", "")));
        moto
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts an object into the bucket, or takes it away.
    pub(crate) fn put(&self, key: &str, text: Option<&str>) {
        let (method, body) = text.map_or(("DELETE", ""), |text| ("PUT", text));
        self.unchecked(|| drop(self.call("s3", method, &format!("/conf/{key}"), body)));
    }

    /// A user with a key.
    pub(crate) fn user(&self, name: &str) -> Reader {
        let mut reader = None;
        self.unchecked(|| {
            self.ask("iam", &format!("Action=CreateUser&UserName={name}"));
            self.ask("iam", &format!("Action=PutUserPolicy&UserName={name}&PolicyName=read&PolicyDocument={ALLOWED}"));
            let answer = self.ask("iam", &format!("Action=CreateAccessKey&UserName={name}"));
            reader = Some(Reader {
                id: element(&answer, "AccessKeyId"),
                secret: element(&answer, "SecretAccessKey"),
                token: None,
            });
        });
        reader.expect("a user")
    }

    /// A session of a role, as a task has one.
    pub(crate) fn session(&self, role: &str) -> Reader {
        let mut reader = None;
        self.unchecked(|| {
            let answer =
                self.ask("iam", &format!("Action=CreateRole&RoleName={role}&AssumeRolePolicyDocument={TRUST}"));
            let arn = element(&answer, "Arn");
            self.ask("iam", &format!("Action=PutRolePolicy&RoleName={role}&PolicyName=read&PolicyDocument={ALLOWED}"));
            let answer = self.ask("sts", &format!("Action=AssumeRole&RoleArn={arn}&RoleSessionName=task"));
            reader = Some(Reader {
                id: element(&answer, "AccessKeyId"),
                secret: element(&answer, "SecretAccessKey"),
                token: Some(element(&answer, "SessionToken")),
            });
        });
        reader.expect("a session")
    }

    /// Ends what its sessions may do.
    pub(crate) fn forget_role(&self, role: &str) {
        self.unchecked(|| drop(self.ask("iam", &format!("Action=DeleteRolePolicy&RoleName={role}&PolicyName=read"))));
    }

    /// The lines of its log about requests for this object.
    pub(crate) fn log_of(&self, key: &str) -> Vec<String> {
        let asked = format!("GET /conf/{key} ");
        self.process.stderr().into_iter().filter(|line| line.contains(&asked)).collect()
    }

    /// Does what nobody has to sign.
    fn unchecked(&self, what: impl FnOnce()) {
        let checked_after = |count: &str| {
            let headers = [("Content-Type", "text/plain")];
            let answer = client::request(self.address, "POST", "/moto-api/reset-auth", &headers, count.as_bytes());
            assert_eq!(answer.expect("an answer of moto").status, 200);
        };
        checked_after("inf");
        what();
        checked_after("0");
    }

    fn ask(&self, service: &str, action: &str) -> String {
        self.call(service, "POST", "/", &format!("{action}&Version=2010-05-08"))
    }

    #[track_caller]
    fn call(&self, service: &str, method: &str, path: &str, body: &str) -> String {
        // It finds the service in the header.
        let scope = format!("AKIA/20260101/us-east-1/{service}/aws4_request");
        let authorization = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none");
        let kind = if path == "/" { "application/x-www-form-urlencoded" } else { "text/plain" };
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", kind)];
        let answer = client::request(self.address, method, path, &headers, body.as_bytes()).expect("an answer of moto");
        assert!((200..300).contains(&answer.status), "{method} {path} {body}: {answer:?}");
        answer.text().to_owned()
    }
}

#[track_caller]
fn element(xml: &str, name: &str) -> String {
    let rest = xml.split_once(&format!("<{name}>")).map(|(_, rest)| rest);
    let value = rest.and_then(|rest| rest.split_once('<')).map(|(value, _)| value.to_owned());
    value.unwrap_or_else(|| panic!("no {name} in {xml}"))
}
