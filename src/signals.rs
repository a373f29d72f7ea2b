//! Signals become an enum here, and nothing behind this knows of numbers.

use std::io;
use std::pin::Pin;

use futures_core::Stream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_tokio::{Signals, SignalsInfo};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: print the summary so far.
    Report,
    /// SIGTERM, SIGINT: end.
    Stop {
        /// The signal's number, for the exit code when the end is cut short.
        number: u8,
    },
}

/// The process's signals. Several of one kind that arrive together may come as one.
pub struct SignalStream(SignalsInfo);

impl SignalStream {
    /// Takes over the signals, also as PID 1, which has no default actions. Called inside the control runtime.
    pub fn new() -> io::Result<Self> {
        Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1]).map(Self)
    }

    /// The next signal; never ends.
    pub async fn next(&mut self) -> Signal {
        loop {
            match std::future::poll_fn(|cx| Pin::new(&mut self.0).poll_next(cx)).await {
                Some(SIGHUP) => return Signal::Reload,
                Some(SIGUSR1) => return Signal::Report,
                Some(number) => return Signal::Stop { number: u8::try_from(number).unwrap_or(0) },
                // Only after its handle was closed, which nobody does.
                None => std::future::pending().await,
            }
        }
    }
}
