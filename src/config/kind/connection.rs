//! How a target is reached: the peer, its name, the HTTP version.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value as Json, json};

use super::super::Traceparent;
use super::super::error::Mistakes;
use super::super::node::{Node, Shape};
use super::super::url;
use super::{Kind, Refusal, Scalar, Span, list, pattern};
use crate::net::{Family, HttpVersion, Peer, Refresh, TlsVersion};

/// Where a connection goes in place of the URL's host.
pub(in super::super) struct ConnectTo;

impl Scalar for ConnectTo {
    type Value = Peer;

    fn parse(node: &Node) -> Result<Peer, Refusal> {
        let refusal = || {
            let accepted = "it is a host and port, as in 10.0.0.7:8443 or [fd00::7]:443, or unix: and a path, as in \
                            unix:/run/app.sock";
            Refusal::Clean(accepted.to_owned())
        };
        let text = node.as_text().ok_or_else(refusal)?;
        if let Some(path) = text.strip_prefix("unix:") {
            // What the kernel's sockaddr_un holds, its final NUL left out.
            let fits = path.starts_with('/') && path.len() <= 107 && !path.contains('\0');
            return if fits { Ok(Peer::Unix(path.into())) } else { Err(refusal()) };
        }
        let (host, port) = url::host_and_port(text).ok_or_else(refusal)?;
        Ok(Peer::Tcp { host: host.to_owned(), port })
    }

    fn schema() -> Json {
        pattern(r"unix:/.{1,106}|([^\s/:]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")
    }
}

/// One of a closed set of words.
macro_rules! word {
    ($(#[doc = $about:literal])+ $kind:ident: $words:ty) => {
        $(#[doc = $about])+
        pub(in super::super) struct $kind;

        impl Scalar for $kind {
            type Value = $words;

            fn parse(node: &Node) -> Result<$words, Refusal> {
                let text = words(node);
                let word = <$words>::ALL.into_iter().find(|word| text == word.label());
                word.ok_or_else(|| {
                    let words: Vec<_> = <$words>::ALL.iter().map(|word| format!("{:?}", word.label())).collect();
                    Refusal::Shown(format!("it is one of {}", words.join(", ")))
                })
            }

            fn schema() -> Json {
                let word = pattern(&<$words>::ALL.map(|word| word.label().replace('.', r"\.")).join("|"));
                json!({ "anyOf": [word, { "type": "number" }] })
            }
        }
    };
}

word! {
    /// Which addresses of a name count.
    FamilyWord: Family
}

word! {
    /// Which HTTP is spoken.
    HttpVersionWord: HttpVersion
}

word! {
    /// The lowest version of TLS that is accepted.
    TlsVersionWord: TlsVersion
}

word! {
    /// Whether requests carry a trace context.
    TraceparentWord: Traceparent
}

/// A word as it was meant: 2 and 1.1 are words too.
fn words(node: &Node) -> String {
    match &node.shape {
        Shape::Text(text) => text.content.clone(),
        Shape::Integer(number) => number.to_string(),
        Shape::Float(number) => number.to_string(),
        _ => String::new(),
    }
}

/// How often a name is looked up.
pub(in super::super) struct RefreshText;

impl Scalar for RefreshText {
    type Value = Refresh;

    fn parse(node: &Node) -> Result<Refresh, Refusal> {
        match node.as_text() {
            Some("ttl") => return Ok(Refresh::Ttl),
            Some("once") => return Ok(Refresh::Once),
            _ => {}
        }
        let every = <Span<1_000_000, 86_400_000_000> as Scalar>::parse(node);
        every.map(Refresh::Every).map_err(|_| {
            Refusal::Shown("it is \"ttl\", \"once\" or a duration from 1s to 24h, as in \"30s\"".to_owned())
        })
    }

    fn schema() -> Json {
        let span = <Span<1_000_000, 86_400_000_000> as Scalar>::schema();
        json!({ "anyOf": [pattern("ttl|once"), span] })
    }
}

/// Name servers.
pub(in super::super) struct Servers;

impl Kind for Servers {
    type Value = Vec<SocketAddr>;

    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self::Value> {
        const ACCEPTED: &str = "a name server is an address, as in 10.0.0.2, 10.0.0.2:5353 or [fd00::2]:53";
        const PORT: u16 = 53;
        let parse = |text: &str| {
            let alone = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT));
            text.parse().or(alone).ok().filter(|server: &SocketAddr| server.port() != 0)
        };
        list(node, key, mistakes, "a list of name servers", |item| {
            item.as_text().and_then(parse).ok_or(ACCEPTED.to_owned())
        })
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": pattern(r"[0-9a-fA-F:.]+|[0-9.]+:[0-9]{1,5}|\[[0-9a-fA-F:.]+\]:[0-9]{1,5}") })
    }
}

/// A name that a certificate is checked for.
pub(in super::super) struct ServerName;

impl Scalar for ServerName {
    type Value = String;

    fn parse(node: &Node) -> Result<String, Refusal> {
        let accepted = || Refusal::Clean("it is a host name or an address, as a certificate has it".to_owned());
        let text = node.as_text().ok_or_else(accepted)?;
        match rustls::pki_types::ServerName::try_from(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err(accepted()),
        }
    }

    fn schema() -> Json {
        pattern(r"[0-9A-Za-z_.:-]{1,253}")
    }
}
