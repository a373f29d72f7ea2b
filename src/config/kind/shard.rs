//! Who shares the streams.

use std::net::IpAddr;

use serde_json::Value as Json;

use super::super::node::Node;
use super::super::url;
use super::{Refusal, Scalar, pattern};

/// A name whose records are the replicas.
pub(in super::super) struct Members;

impl Scalar for Members {
    type Value = String;

    fn parse(node: &Node) -> Result<String, Refusal> {
        let name = node.as_text().filter(|name| url::is_name(name));
        name.map(str::to_owned)
            .ok_or_else(|| Refusal::Clean("it is a host name, as in hammerd-peers.shop.svc.cluster.local".to_owned()))
    }

    fn schema() -> Json {
        pattern(r"[0-9A-Za-z_.-]{1,253}")
    }
}

/// An address, without a port.
pub(in super::super) struct Address;

impl Scalar for Address {
    type Value = IpAddr;

    fn parse(node: &Node) -> Result<IpAddr, Refusal> {
        let address = node.as_text().and_then(|text| text.parse().ok());
        address.ok_or_else(|| Refusal::Clean("it is an address, as in 10.0.0.7 or fd00::7".to_owned()))
    }

    fn schema() -> Json {
        pattern(r"[0-9a-fA-F:.]+")
    }
}
