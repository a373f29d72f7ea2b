//! Objects in S3, or in what speaks like it.

use std::collections::BTreeMap;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderMap};

use super::credentials::{Credentials, Wallet};
use super::sigv4::{self, Scope};
use super::{Failure, Reason};
use crate::clock;
use crate::config::Endpoint;
use crate::net::Resolver;

/// `s3://bucket/key`.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) bucket: String,
    pub(super) key: String,
}

impl Object {
    /// What follows `s3://`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (bucket, key) = text.split_once('/')?;
        let name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let valid = (3..=63).contains(&bucket.len()) && bucket.bytes().all(name) && !key.is_empty();
        valid.then(|| Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// Whom to ask for it, and the headers that are needed for an answer.
    pub(super) async fn signed(
        &self,
        variables: &BTreeMap<String, String>,
        wallet: &mut Wallet,
        resolver: &Resolver,
    ) -> Result<(Endpoint, HeaderMap), Failure> {
        let (endpoint, region) = self.endpoint(variables)?;
        let credentials = wallet.get(variables, resolver).await?;
        let headers = sign(&endpoint, &region, &credentials, clock::unix_ms())?;
        Ok((endpoint, headers))
    }

    /// Where it is, and in which region.
    fn endpoint(&self, variables: &BTreeMap<String, String>) -> Result<(Endpoint, String), Failure> {
        let refused = |text: String| Failure::lasting(Reason::Credentials, text);
        let of_names = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| variables.get(name).map(|value| (name, value.trim_end_matches('/'))))
        };
        let own = of_names(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        let region = of_names(["AWS_REGION", "AWS_DEFAULT_REGION"]).map(|(_, region)| region);
        let region = match (region, own) {
            (Some(region), _) => region,
            (None, Some(_)) => "us-east-1",
            (None, None) => return Err(refused("AWS_REGION is not set: it names the bucket's region".to_owned())),
        };
        let (bucket, key) = (&self.bucket, sigv4::encode_path(&self.key));
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let (name, url) = match own {
            Some((name, own)) => (name, format!("{own}/{bucket}/{key}")),
            // The certificate is for names of one more part.
            None if bucket.contains('.') => ("AWS_REGION", format!("https://s3.{region}.{domain}/{bucket}/{key}")),
            None => ("AWS_REGION", format!("https://{bucket}.s3.{region}.{domain}/{key}")),
        };
        let endpoint = Endpoint::parse(&url).map_err(|error| refused(format!("{name}: {error}")))?;
        Ok((endpoint, region.to_owned()))
    }
}

fn sign(endpoint: &Endpoint, region: &str, credentials: &Credentials, unix_ms: u64) -> Result<HeaderMap, Failure> {
    let at = sigv4::timestamp(unix_ms);
    let host = endpoint.authority.to_str().unwrap_or_default();
    let mut signed = vec![("host", host), ("x-amz-content-sha256", sigv4::EMPTY), ("x-amz-date", at.as_str())];
    signed.extend(credentials.token.as_deref().map(|token| ("x-amz-security-token", token)));
    let scope = Scope { region, service: "s3", at: &at };
    let authorization = sigv4::authorization(endpoint.path.path(), &signed, sigv4::EMPTY, &scope, credentials);
    let mut headers = HeaderMap::new();
    let value = |text: &str| {
        let value = HeaderValue::try_from(text.trim());
        value.map_err(|_| {
            Failure::lasting(Reason::Credentials, "the credentials have characters that a header can't carry")
        })
    };
    for (name, text) in signed.into_iter().skip(1) {
        headers.insert(name, value(text)?);
    }
    headers.insert(AUTHORIZATION, value(&authorization)?);
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_a_bucket_and_a_key() {
        for (text, want) in [
            ("bucket/a/b.toml", Some(("bucket", "a/b.toml"))),
            ("my.bucket-1/x", Some(("my.bucket-1", "x"))),
            ("bucket/", None),
            ("bucket", None),
            ("/key", None),
            ("Bucket/x", None),
            ("b/x", None),
            ("me:secret@bucket/x", None),
        ] {
            let parsed = Object::parse(text);
            let parsed = parsed.as_ref().map(|object| (object.bucket.as_str(), object.key.as_str()));
            assert_eq!(parsed, want, "{text}");
        }
    }

    #[test]
    fn an_object_is_where_region_and_endpoint_put_it() {
        let object = |bucket: &str| Object { bucket: bucket.to_owned(), key: "a b.toml".to_owned() };
        for (bucket, variables, want) in [
            ("conf", &[("AWS_REGION", "eu-west-1")][..], "conf.s3.eu-west-1.amazonaws.com:443/a%20b.toml"),
            ("my.conf", &[("AWS_DEFAULT_REGION", "eu-west-1")], "s3.eu-west-1.amazonaws.com:443/my.conf/a%20b.toml"),
            ("conf", &[("AWS_REGION", "cn-north-1")], "conf.s3.cn-north-1.amazonaws.com.cn:443/a%20b.toml"),
            ("conf", &[("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000/")], "127.0.0.1:9000/conf/a%20b.toml"),
            ("conf", &[("AWS_ENDPOINT_URL", "http://minio/s3")], "minio:80/s3/conf/a%20b.toml"),
        ] {
            let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let found = object(bucket).endpoint(&variables);
            let (endpoint, _) = found.unwrap_or_else(|failure| panic!("{want}: {failure:?}"));
            assert_eq!(format!("{}:{}{}", endpoint.host, endpoint.port, endpoint.path), want);
        }
        let nowhere = object("conf").endpoint(&BTreeMap::new()).expect_err("no region");
        assert!(nowhere.text.contains("AWS_REGION"), "{nowhere:?}");
    }
}
