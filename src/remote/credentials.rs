//! Who we are to AWS: from the environment, or from the endpoint that ECS and EKS give their containers.
//!
//! Left out: instance profiles, web identities, profiles in files and single sign-on. A presigned `https://` URL needs
//! none of them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderMap};
use serde::Deserialize;

use super::{Failure, Reason, ask, text_of};
use crate::clock;
use crate::config::Endpoint;
use crate::net::Resolver;

/// How long those of an endpoint are used before it is asked again; it gives none that expire sooner.
const MAX_AGE_NS: u64 = 300_000_000_000;
/// Where `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` is.
const ECS: &str = "http://169.254.170.2";

/// A key and its secret.
#[derive(Clone, Deserialize)]
pub(super) struct Credentials {
    #[serde(rename = "AccessKeyId")]
    pub(super) id: String,
    #[serde(rename = "SecretAccessKey")]
    pub(super) secret: String,
    /// Of a session.
    #[serde(rename = "Token")]
    pub(super) token: Option<String>,
}

/// Those that an endpoint gave, and when.
#[derive(Debug, Default)]
pub(super) struct Wallet(Option<(Rc<Credentials>, u64)>);

impl Wallet {
    /// They were refused: the next ones are asked for.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// The credentials to use now.
    pub(super) async fn get(
        &mut self,
        variables: &BTreeMap<String, String>,
        resolver: &Resolver,
    ) -> Result<Rc<Credentials>, Failure> {
        if let Some(credentials) = of_environment(variables)? {
            return Ok(Rc::new(credentials));
        }
        let now_ns = clock::now_ns();
        if let Some((known, since_ns)) = &self.0
            && now_ns.saturating_sub(*since_ns) < MAX_AGE_NS
        {
            return Ok(Rc::clone(known));
        }
        let fresh = Rc::new(of_container(variables, resolver).await?);
        self.0 = Some((Rc::clone(&fresh), now_ns));
        Ok(fresh)
    }
}

fn of_environment(variables: &BTreeMap<String, String>) -> Result<Option<Credentials>, Failure> {
    match (variables.get("AWS_ACCESS_KEY_ID"), variables.get("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            let token = variables.get("AWS_SESSION_TOKEN").cloned();
            Ok(Some(Credentials { id: id.clone(), secret: secret.clone(), token }))
        }
        (None, None) => Ok(None),
        _ => Err(refused("of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set")),
    }
}

async fn of_container(variables: &BTreeMap<String, String>, resolver: &Resolver) -> Result<Credentials, Failure> {
    const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
    let relative = variables.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{ECS}{path}"));
    let full = variables.get("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let Some(url) = relative.as_ref().or(full) else {
        return Err(refused(
            "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run with a task role, or name a presigned \
             https:// URL",
        ));
    };
    let endpoint = Endpoint::parse(url).map_err(|error| refused(format!("the credentials' URL: {error}")))?;
    if !endpoint.secure && !is_near(&endpoint.host) {
        let text = "AWS_CONTAINER_CREDENTIALS_FULL_URI: without TLS only loopback and the addresses of ECS and EKS are \
                    accepted";
        return Err(refused(text));
    }
    let mut headers = HeaderMap::new();
    let file_name = format!("{TOKEN}_FILE");
    let token = match variables.get(&file_name) {
        Some(file) => Some(text_of(&file_name, PathBuf::from(file)).await?),
        None => variables.get(TOKEN).cloned(),
    };
    if let Some(token) = token {
        let value = HeaderValue::try_from(token.trim());
        let value = value.map_err(|_| refused(format!("{TOKEN}: it has characters that a header can't carry")))?;
        headers.insert(AUTHORIZATION, value);
    }
    let answer = ask::get(&endpoint, headers, &mut None, resolver).await.map_err(|failure| Failure {
        reason: Reason::Credentials,
        text: format!("no credentials of the container: {}", failure.text),
        passing: failure.passing,
    })?;
    // Its error could repeat a part of them.
    serde_json::from_slice(&answer.body)
        .map_err(|_| refused("what the container's endpoint answers are no credentials"))
}

/// As AWS's own tools have it.
fn is_near(host: &str) -> bool {
    const EKS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
    host == "localhost" || EKS.contains(&host) || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn refused(text: impl Into<String>) -> Failure {
    Failure::lasting(Reason::Credentials, text)
}

impl fmt::Debug for Credentials {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).finish_non_exhaustive()
    }
}
