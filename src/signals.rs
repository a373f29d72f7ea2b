//! Signals become an enum here, and nothing behind this knows of numbers.

use std::collections::VecDeque;
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
pub struct SignalStream {
    signals: SignalsInfo,
    /// What came while only a stop was waited for: a stop first, the others once each.
    set_aside: VecDeque<Signal>,
}

impl SignalStream {
    /// Takes over the signals, also as PID 1, which has no default actions. Called inside the control runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self { signals: Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1])?, set_aside: VecDeque::new() })
    }

    /// The next signal; never ends.
    pub async fn next(&mut self) -> Signal {
        match self.set_aside.pop_front() {
            Some(signal) => signal,
            None => self.arrival().await,
        }
    }

    /// Waits until a signal to stop has come. It, and what came before it, is left to [`next`](Self::next).
    pub async fn stop_comes(&mut self) {
        loop {
            match self.arrival().await {
                stop @ Signal::Stop { .. } => return self.set_aside.push_front(stop),
                signal if self.set_aside.contains(&signal) => {}
                signal => self.set_aside.push_back(signal),
            }
        }
    }

    async fn arrival(&mut self) -> Signal {
        match std::future::poll_fn(|cx| Pin::new(&mut self.signals).poll_next(cx)).await {
            Some(SIGHUP) => Signal::Reload,
            Some(SIGUSR1) => Signal::Report,
            Some(number) => Signal::Stop { number: u8::try_from(number).unwrap_or(0) },
            // Only after its handle was closed, which nobody does.
            None => std::future::pending().await,
        }
    }
}
