//! Log lines and results on their way out.
//!
//! For an operator who pipes hammerd into something that may hang, fill or die. Promised: no log line and no summary
//! ever stalls the thread that writes it or ends the process; what could not be written is counted
//! ([`Outlet::lost`]); at a normal exit nothing that was queued is lost ([`Outlet::flush`]).
//!
//! Left out: files, rotation, syslog. Whoever runs the process owns its standard error.

mod outlet;
mod throttle;

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use outlet::{Entry, Outlet, QUEUE_BYTES_MAX, QUEUE_ENTRIES_MAX};
pub use throttle::Throttle;

/// The filter when nobody asks for another: our own lines at `info`, those of dependencies at `warn`.
pub const DEFAULT_FILTER: &str = "info";

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people; coloured when standard error is a terminal.
    #[default]
    Text,
    /// One JSON object a line, the event's fields beside `timestamp`, `level` and `message`. The module that speaks
    /// is left out, because its usual key, `target`, is what the configuration calls a stream of requests.
    Json,
}

/// Why logging could not start.
#[derive(Debug)]
pub enum InitError {
    /// The filter is not one; the text says where.
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The filter is one word and no level.
    Level(String),
    /// Standard error can't be duplicated, or its thread can't be started.
    Outlet(io::Error),
    /// Logging was started before in this process.
    Twice,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter { filter, source } => write!(f, "log level {filter:?}: {source}"),
            Self::Level(given) => write!(
                f,
                "{given:?} is not one of error, warn, info, debug, trace and off; a module needs a level, as in hyper=debug"
            ),
            Self::Outlet(source) => write!(f, "cannot start the log writer: {source}"),
            Self::Twice => f.write_str("logging is already set up"),
        }
    }
}

impl std::error::Error for InitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Filter { source, .. } => Some(source),
            Self::Outlet(source) => Some(source),
            Self::Level(_) | Self::Twice => None,
        }
    }
}

/// Sends the process's log lines to standard error through the outlet returned, which is needed for its count of
/// losses and for the flush at exit.
///
/// `filter` is a level (`debug`: ours at debug, dependencies still at `warn`) or `RUST_LOG` directives
/// (`hyper=debug,hammerd::fleet=trace`), which refine the default.
pub fn init(format: Format, filter: &str) -> Result<Outlet, InitError> {
    let filter = parse(filter)?;
    let outlet = Outlet::stderr().map_err(InitError::Outlet)?;
    let coloured = io::stderr().is_terminal();
    let subscriber = subscriber(format, filter, outlet.clone(), coloured);
    subscriber.try_init().map_err(|_| InitError::Twice)?;
    Ok(outlet)
}

/// The filter for what the operator wrote, on top of the default.
fn parse(filter: &str) -> Result<EnvFilter, InitError> {
    let given = filter.trim();
    let directives = match given.parse::<LevelFilter>() {
        // An empty text parses as a level, "error"; nobody means that by it.
        _ if given.is_empty() => format!("warn,hammerd={DEFAULT_FILTER}"),
        Ok(level) => format!("{},hammerd={level}", level.min(LevelFilter::WARN)),
        // The filter would take it for a module, at every level.
        Err(_) if !given.contains('=') => return Err(InitError::Level(given.to_owned())),
        Err(_) => format!("warn,hammerd={DEFAULT_FILTER},{given}"),
    };
    EnvFilter::try_new(directives).map_err(|source| InitError::Filter { filter: given.to_owned(), source })
}

fn subscriber(
    format: Format,
    filter: EnvFilter,
    outlet: Outlet,
    coloured: bool,
) -> Box<dyn Subscriber + Send + Sync + 'static> {
    // The layer would report its own failures with `eprintln!`, which panics when standard error is gone.
    let layer = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(outlet);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        Format::Text => Box::new(registry.with(layer.with_ansi(coloured))),
        Format::Json => {
            let layer = layer.json().flatten_event(true).with_target(false);
            Box::new(registry.with(layer.with_current_span(false).with_span_list(false)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// What reaches the stream when `speak` logs under the given format and filter.
    fn logged(format: Format, filter: &str, coloured: bool, speak: impl FnOnce()) -> String {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::start("test", writer).unwrap();
        let subscriber = subscriber(format, parse(filter).unwrap(), outlet, coloured);
        tracing::subscriber::with_default(subscriber, speak);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    /// One line of each of some levels, ours and a dependency's; returns which came through.
    fn passed(filter: &str) -> Vec<String> {
        let text = logged(Format::Text, filter, false, || {
            tracing::error!(target: "hammerd::x", "our error");
            tracing::info!(target: "hammerd::x", "our info");
            tracing::debug!(target: "hammerd::x", "our debug");
            tracing::error!(target: "hyper", "their error");
            tracing::warn!(target: "hyper", "their warn");
            tracing::info!(target: "hyper", "their info");
        });
        text.lines().map(|line| line.rsplit(": ").next().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_default_is_our_info_and_the_warnings_of_others() {
        let default = ["our error", "our info", "their error", "their warn"];
        assert_eq!(passed(DEFAULT_FILTER), default);
        assert_eq!(passed(""), default);
    }

    #[test]
    fn a_bare_level_is_ours_and_only_quiets_others() {
        assert_eq!(passed("debug"), ["our error", "our info", "our debug", "their error", "their warn"]);
        assert_eq!(passed("error"), ["our error", "their error"]);
        assert_eq!(passed("off"), [""; 0]);
    }

    #[test]
    fn directives_refine_the_default() {
        assert_eq!(passed("hyper=info"), ["our error", "our info", "their error", "their warn", "their info"]);
        assert_eq!(passed("hyper=off,hammerd::x=error"), ["our error"]);
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = parse("inof").unwrap_err().to_string();
        assert!(error.starts_with("\"inof\" is not one of error, warn"), "{error}");
        let error = parse("hammerd=loud").unwrap_err();
        assert!(error.to_string().starts_with("log level \"hammerd=loud\": "), "{error}");
    }

    #[test]
    fn a_json_line_is_flat_and_its_time_is_rfc_3339_in_utc() {
        let text = logged(Format::Json, "info", true, || {
            tracing::info!(target: "hammerd::x", target = "checkout", failures = 3, "target \"fails\"\nbadly");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "target \"fails\"\nbadly");
        assert_eq!(line["target"], "checkout");
        assert_eq!(text.matches("\"target\":").count(), 1, "{text}");
        assert_eq!(line["failures"], 3);
        let time = line["timestamp"].as_str().unwrap();
        assert_eq!((time.find('T'), time.find('Z')), (Some(10), Some(time.len() - 1)), "{time}");
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn text_is_coloured_only_when_told_so() {
        let speak = || tracing::info!(target: "hammerd::x", "hello");
        assert!(logged(Format::Text, "info", true, speak).contains('\u{1b}'));
        assert!(!logged(Format::Text, "info", false, speak).contains('\u{1b}'));
    }
}
