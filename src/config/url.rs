//! Where requests go: a target's, and those for a configuration.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::HeaderValue;
use http::uri::{Authority, PathAndQuery};

/// The parts of a URL.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Whether it is spoken to over TLS.
    pub(crate) secure: bool,
    /// Name or address to dial, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: PathAndQuery,
    /// What the `Host` header says.
    pub(crate) authority: HeaderValue,
}

/// Why a text is not a usable URL. Never repeats the text, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UrlError {
    NoScheme,
    OtherScheme,
    Userinfo,
    Fragment,
    Host,
    Port,
    Characters,
}

impl Endpoint {
    /// Longest host name that DNS carries.
    const MAX_HOST: usize = 253;

    /// Reads `http[s]://host[:port][/path][?query]`.
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::NoScheme)?;
        let secure = scheme.eq_ignore_ascii_case("https");
        if !secure && !scheme.eq_ignore_ascii_case("http") {
            return Err(UrlError::OtherScheme);
        }
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::Userinfo);
        }
        let (host, port) = split_port(authority)?;
        let usual_port = usual_port(secure);
        let port = port.unwrap_or(usual_port);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UrlError::Characters);
        }
        let path = PathAndQuery::try_from(path).map_err(|_| UrlError::Characters)?;
        let shown = if port == usual_port { host.to_owned() } else { format!("{host}:{port}") };
        let authority = HeaderValue::try_from(shown).map_err(|_| UrlError::Host)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self { secure, host: host.to_owned(), port, path, authority })
    }
}

/// What HTTP/2 and HTTP/3 have in place of this host header (RFC 9113, 8.3.1), if it can be that.
pub fn authority(host: &HeaderValue) -> Option<Authority> {
    let userinfo = host.as_bytes().contains(&b'@');
    Authority::try_from(host.as_bytes()).ok().filter(|_| !userinfo)
}

/// The port of a URL that names none.
pub(super) fn usual_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// Reads `host:port`; the host comes without brackets.
pub(super) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = split_port(text).ok()?;
    Some((host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port?))
}

/// Takes a valid host, in brackets for IPv6, and a port, if there is one, apart.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), UrlError> {
    let end = if authority.starts_with('[') {
        authority.find(']').map(|end| end + 1).ok_or(UrlError::Host)?
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(end);
    if !is_host(host) {
        return Err(UrlError::Host);
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Port)?)
        }
        _ => return Err(UrlError::Port),
    };
    Ok((host, port))
}

/// Whether a text is a host name and no address.
pub(super) fn is_name(text: &str) -> bool {
    is_host(text) && !text.starts_with('[') && text.parse::<Ipv4Addr>().is_err()
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // Digits and dots alone are an address; resolvers would read 127.1 or 010.0.0.1 each in its own way.
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= Endpoint::MAX_HOST && name.split('.').all(is_label) && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoScheme => "a URL begins with http:// or https://, as in https://host:8443/path",
            Self::OtherScheme => "this scheme is not supported; a URL begins with http:// or https://",
            Self::Userinfo => "a URL holds no user and password; use the header authorization or headers_file",
            Self::Fragment => "a fragment (#...) is never sent; leave it out or write %23",
            Self::Host => "the host is no name or address, as in shop.example, 10.0.0.7 or [fd00::7]",
            Self::Port => "a port is 1 to 65535",
            Self::Characters => "the path has characters that a request line can't carry; write them as %20 and so on",
        })
    }
}

impl std::error::Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_as_their_parts() {
        for (text, host, port, path, authority) in [
            ("http://a.example", "a.example", 80, "/", "a.example"),
            ("HTTP://a.example:80/x", "a.example", 80, "/x", "a.example"),
            ("http://a.example:8080?q=1&r", "a.example", 8080, "/?q=1&r", "a.example:8080"),
            ("http://10.0.0.7:1/a/b?c=/@:", "10.0.0.7", 1, "/a/b?c=/@:", "10.0.0.7:1"),
            ("http://[::1]:9/", "::1", 9, "/", "[::1]:9"),
            ("http://[fd00::7]", "fd00::7", 80, "/", "[fd00::7]"),
            (
                "http://my_svc.ns.svc.cluster.local./",
                "my_svc.ns.svc.cluster.local.",
                80,
                "/",
                "my_svc.ns.svc.cluster.local.",
            ),
        ] {
            let url = Endpoint::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.host.as_str(), url.port, url.path.as_str()), (host, port, path), "{text}");
            assert_eq!(url.authority, authority, "{text}");
        }
    }

    #[test]
    fn a_host_header_is_an_authority_if_it_is_a_host_and_a_port() {
        for (host, is) in [
            ("a.example", true),
            ("my_svc.example:8443", true),
            ("10.0.0.7:1", true),
            ("[::1]:9", true),
            ("", false),
            ("a example", false),
            ("a/b", false),
            ("a:1:2", false),
            ("user@a.example", false),
            ("\u{fc}mlaut.example", false),
        ] {
            let header = HeaderValue::from_bytes(host.as_bytes()).expect("a value");
            assert_eq!(authority(&header).map(|it| it.to_string()), is.then(|| host.to_owned()), "{host:?}");
        }
    }

    #[test]
    fn what_is_no_url_says_why() {
        for (text, why) in [
            ("", UrlError::NoScheme),
            ("localhost:8080", UrlError::NoScheme),
            ("ftp://a.example/", UrlError::OtherScheme),
            ("http://user:pw@a.example/", UrlError::Userinfo),
            ("http://a.example/#top", UrlError::Fragment),
            ("http://", UrlError::Host),
            ("http:///x", UrlError::Host),
            ("http://a b/", UrlError::Host),
            ("http://ümlaut.example/", UrlError::Host),
            ("http://a..b/", UrlError::Host),
            ("http://127.1/", UrlError::Host),
            ("http://999.0.0.1/", UrlError::Host),
            ("http://[::1/", UrlError::Host),
            ("http://[fe80::1%25eth0]/", UrlError::Host),
            ("http://a:0/", UrlError::Port),
            ("http://a:65536/", UrlError::Port),
            ("http://a:/", UrlError::Port),
            ("http://a:+80/", UrlError::Port),
            ("http://[::1]9/", UrlError::Port),
            ("http://a/b c", UrlError::Characters),
            ("http://a/b\r\nx: y", UrlError::Characters),
            ("http://a/ü", UrlError::Characters),
        ] {
            assert_eq!(Endpoint::parse(text).map(|url| url.host), Err(why), "{text:?}");
        }
    }
}
