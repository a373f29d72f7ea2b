//! What a service manager is told of us: the protocol of `sd_notify(3)`, datagrams to the socket that `NOTIFY_SOCKET`
//! names.
//!
//! Without that variable nothing is said. A manager that does not listen holds nothing up for longer than a second, and
//! is complained of once.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::warn;

use crate::clock;

/// How long a message may take to be taken.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager, if there is one; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Notify(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
    failed: AtomicBool,
}

/// Why nobody can be told although somebody asked to be.
#[derive(Debug)]
pub enum NotifyError {
    /// `NOTIFY_SOCKET` names no Unix domain socket.
    Address(OsString),
    /// No socket can be had.
    Socket(io::Error),
    /// `WATCHDOG_USEC` is no number of microseconds.
    Watchdog(OsString),
}

impl Notify {
    /// The manager that the variables of the environment name, as `variable` gives them to process `pid`.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Self, NotifyError> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(Self(None)) };
        let address = address(&name).ok_or(NotifyError::Address(name))?;
        let socket = UnixDatagram::unbound().map_err(NotifyError::Socket)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(NotifyError::Socket)?;
        // Of a process that started us, for itself.
        let others = variable("WATCHDOG_PID").is_some_and(|asked| asked.to_str() != Some(&pid.to_string()));
        let watchdog = match variable("WATCHDOG_USEC").filter(|_| !others) {
            None => None,
            Some(text) => match text.to_str().and_then(|text| text.parse().ok()).filter(|micros| *micros > 0) {
                Some(micros) => Some(Duration::from_micros(micros)),
                None => return Err(NotifyError::Watchdog(text)),
            },
        };
        Ok(Self(Some(Arc::new(Manager { socket, address, watchdog, failed: AtomicBool::new(false) }))))
    }

    /// We are at work, from the start or again after [`reloading`](Self::reloading).
    pub fn ready(&self, status: &str) {
        self.say(|| format!("READY=1\nSTATUS={}", line(status)));
    }

    /// The configuration is read again; [`ready`](Self::ready) ends this.
    pub fn reloading(&self) {
        self.say(|| format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", clock::now_ns() / 1000));
    }

    /// We are about to end.
    pub fn stopping(&self, status: &str) {
        self.say(|| format!("STOPPING=1\nSTATUS={}", line(status)));
    }

    /// We still work.
    pub fn alive(&self) {
        self.say(|| "WATCHDOG=1".to_owned());
    }

    /// The longest silence of [`alive`](Self::alive) before we are taken for dead; `None` when nobody watches.
    pub fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref().and_then(|manager| manager.watchdog)
    }

    fn say(&self, message: impl FnOnce() -> String) {
        let Some(manager) = &self.0 else { return };
        let sent = manager.socket.send_to_addr(message().as_bytes(), &manager.address);
        match sent {
            Ok(_) => manager.failed.store(false, Ordering::Relaxed),
            Err(error) if !manager.failed.swap(true, Ordering::Relaxed) => {
                warn!(%error, "the service manager can't be told of us (NOTIFY_SOCKET)");
            }
            Err(_) => {}
        }
    }
}

/// A path, or behind an `@` a name in the abstract namespace.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

/// A line break would begin another message.
fn line(status: &str) -> String {
    status.replace(char::is_control, " ")
}

impl fmt::Display for NotifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(name) => {
                let name = name.to_string_lossy();
                write!(f, "NOTIFY_SOCKET={name:?} is neither a path of a socket nor a name behind an @")
            }
            Self::Socket(error) => write!(f, "no socket for NOTIFY_SOCKET: {error}"),
            Self::Watchdog(text) => {
                write!(f, "WATCHDOG_USEC={:?} is no number of microseconds", text.to_string_lossy())
            }
        }
    }
}

impl std::error::Error for NotifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket(source) => Some(source),
            Self::Address(_) | Self::Watchdog(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As with these variables, for process 7.
    fn notify(variables: &[(&str, &str)]) -> Result<Notify, NotifyError> {
        let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Notify::new(value, 7)
    }

    #[test]
    fn the_variables_are_taken_at_their_word_or_refused() {
        const SOCKET: (&str, &str) = ("NOTIFY_SOCKET", "@x");
        let watchdog = |variables: &[_]| notify(variables).expect("accepted").watchdog();
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "1000000")]), None, "nobody to tell");
        assert_eq!(watchdog(&[("NOTIFY_SOCKET", ""), ("WATCHDOG_USEC", "1000000")]), None);
        assert_eq!(watchdog(&[SOCKET]), None);
        assert_eq!(watchdog(&[SOCKET, ("WATCHDOG_USEC", "1000000")]), second);
        assert_eq!(watchdog(&[SOCKET, ("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "7")]), second);
        assert_eq!(watchdog(&[SOCKET, ("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "8")]), None);
        for (variables, word) in [
            ([("NOTIFY_SOCKET", "run/x"), ("WATCHDOG_USEC", "1")], "run/x"),
            ([("NOTIFY_SOCKET", "vsock:2:1"), ("WATCHDOG_USEC", "1")], "vsock:2:1"),
            ([SOCKET, ("WATCHDOG_USEC", "soon")], "soon"),
            ([SOCKET, ("WATCHDOG_USEC", "0")], "\"0\""),
        ] {
            let said = notify(&variables).expect_err(word).to_string();
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(line("refused\nWATCHDOG=1"), "refused WATCHDOG=1");
    }
}
