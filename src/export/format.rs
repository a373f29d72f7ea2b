//! The forms in which a scrape can leave.

use std::fmt;

use prometheus::proto::{MetricFamily, MetricType};

/// How metrics are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics text 1.0.0: <https://prometheus.io/docs/specs/om/open_metrics_spec/>. Has exemplars.
    OpenMetrics,
    /// Prometheus' protobuf messages, each behind its length. Has native histograms and exemplars.
    Protobuf,
}

impl Format {
    /// Every format, the one that is taken in doubt first.
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// Its media type, as in the answer's header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// Whether it has a place for native histograms.
    pub(super) const fn has_native(self) -> bool {
        matches!(self, Self::Protobuf)
    }

    /// Whether it has a place for exemplars.
    pub(super) const fn has_exemplars(self) -> bool {
        !matches!(self, Self::Text)
    }
}

/// A family that the formats can't hold. Ours never are; a collector of somebody else's may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodeError {
    /// It has no name.
    Nameless,
    /// It is of a kind whose values the crate keeps to itself.
    Untyped(String),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nameless => f.write_str("a metric family has no name"),
            Self::Untyped(name) => write!(f, "metric family {name} is untyped"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// The name and the kind of a gathered family, if the formats can hold it.
pub(super) fn name_and_kind(family: &MetricFamily) -> Result<(&str, MetricType), EncodeError> {
    match (family.name(), family.get_field_type()) {
        ("", _) => Err(EncodeError::Nameless),
        (name, MetricType::UNTYPED) => Err(EncodeError::Untyped(name.to_owned())),
        sound => Ok(sound),
    }
}
