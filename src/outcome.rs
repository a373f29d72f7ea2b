//! What a strike came to: a complete response or one failure reason, and how long each phase took.
//!
//! Pure. Every label text that a strike can produce stands here, in closed enums.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Declares a closed set of label values: the enum, how many there are, all of them, and the text of each.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant,)+];
            /// How many values there are.
            pub const COUNT: usize = [$(Self::$variant,)+].len();
            /// Every label text, in the same order.
            pub const LABELS: [&'static str; Self::COUNT] = [$($text,)+];

            /// The label text.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Position in [`Self::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use labels;

labels! {
    /// Why a started request was not good. Exactly one for each failed request.
    Reason {
        /// The name does not exist.
        DnsNotFound => "dns_not_found",
        /// The resolver answered with a failure, or with no address.
        DnsFailed => "dns_failed",
        /// No answer from the resolver in time.
        DnsTimeout => "dns_timeout",
        /// Every address that the name resolved to is denied.
        Denied => "denied",
        /// Nobody listens on the port.
        ConnectRefused => "connect_refused",
        /// No answer to the connection attempt in time.
        ConnectTimeout => "connect_timeout",
        /// No route, or a router or a local rule said no.
        ConnectUnreachable => "connect_unreachable",
        /// All local ports towards this address are in use.
        LocalPorts => "local_ports",
        /// The process is out of file descriptors.
        LocalFds => "local_fds",
        /// Connected, but no TLS handshake in time.
        TlsTimeout => "tls_timeout",
        /// A certificate, the peer's or ours, was not accepted.
        TlsCertificate => "tls_certificate",
        /// What came is no TLS, or both sides have no version or cipher in common.
        TlsProtocol => "tls_protocol",
        /// Connected, but the first byte of the response did not come in time.
        TimeoutResponse => "timeout_response",
        /// The response began, but its last byte did not come in time.
        TimeoutBody => "timeout_body",
        /// The response body exceeds the bound.
        BodyTooLarge => "body_too_large",
        /// The peer reset the connection.
        Reset => "reset",
        /// The peer closed the connection before the response was complete.
        Eof => "eof",
        /// The peer closed a reused connection before any byte of the response: it may or may not have seen the request.
        EofReused => "eof_reused",
        /// What came is no valid response.
        Protocol => "protocol",
        /// Another error of the operating system on an open connection.
        Io => "io",
        /// A complete response with a status that does not count as success.
        Status => "status",
    }
}

labels! {
    /// Why an arrival was never sent.
    DropReason {
        /// The target has its largest number of requests in flight.
        InFlight => "in_flight",
        /// The arrival was noticed too late to be sent.
        Late => "late",
        /// The process has its largest number of requests in flight.
        GlobalLimit => "global_limit",
    }
}

labels! {
    /// A phase of a request, as far as it had it.
    Stage {
        /// Looking up the name.
        Dns => "dns",
        /// Opening a connection.
        Connect => "connect",
        /// Securing it.
        Tls => "tls",
        /// From handing the request to the connection to the first byte of the response.
        Wait => "wait",
        /// From the first byte of the response to its last.
        Receive => "receive",
    }
}

impl Stage {
    /// What it is called when the deadline passes in this phase.
    pub const fn timeout_reason(self) -> Reason {
        match self {
            Self::Dns => Reason::DnsTimeout,
            Self::Connect => Reason::ConnectTimeout,
            Self::Tls => Reason::TlsTimeout,
            Self::Wait => Reason::TimeoutResponse,
            Self::Receive => Reason::TimeoutBody,
        }
    }
}

labels! {
    /// Whether a finished request was good.
    Verdict {
        /// A complete response with an expected status.
        Ok => "ok",
        /// Anything else.
        Failed => "failed",
    }
}

/// What a strike came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The status code, when the response was complete.
    pub status: Option<u16>,
    /// Why it is not good; `None` when it is.
    pub failure: Option<Reason>,
}

impl Outcome {
    /// A complete response with an expected status.
    pub const fn good(status: u16) -> Self {
        Self { status: Some(status), failure: None }
    }

    /// A complete response with an unexpected status.
    pub const fn bad_status(status: u16) -> Self {
        Self { status: Some(status), failure: Some(Reason::Status) }
    }

    /// No complete response.
    pub const fn failed(reason: Reason) -> Self {
        Self { status: None, failure: Some(reason) }
    }

    /// Good or not.
    pub const fn verdict(self) -> Verdict {
        if self.failure.is_none() { Verdict::Ok } else { Verdict::Failed }
    }
}

/// The times of one strike, kept by its hammer as it goes: which phase it is in and how long the completed ones took.
///
/// It lives outside the strike's future, so that a strike that is cut off by its deadline still tells where it was.
#[derive(Debug)]
pub struct Trace {
    stage: Cell<Option<(Stage, u64)>>,
    took_ns: [Cell<Option<u64>>; Stage::COUNT],
    /// Where an attempt that several strikes wait for has got to, and whether this one makes it.
    attempt: RefCell<Option<(Rc<Cell<Stage>>, bool)>>,
    /// By which it is known to others.
    identity: Cell<Option<u128>>,
}

impl Trace {
    /// Before the first phase.
    pub const fn new() -> Self {
        Self {
            stage: Cell::new(None),
            took_ns: [const { Cell::new(None) }; Stage::COUNT],
            attempt: RefCell::new(None),
            identity: Cell::new(None),
        }
    }

    /// The strike carries this trace id (W3C Trace Context).
    pub fn identify(&self, trace_id: u128) {
        self.identity.set(Some(trace_id));
    }

    /// The trace id that it carries, if any.
    pub fn trace_id(&self) -> Option<u128> {
        self.identity.get()
    }

    /// Enters a phase at `now_ns`; the one before it is complete. A phase entered again adds up.
    pub fn enter(&self, stage: Stage, now_ns: u64) {
        self.complete(now_ns);
        self.stage.set(Some((stage, now_ns)));
        if let Some((reached, true)) = &*self.attempt.borrow() {
            reached.set(stage);
        }
    }

    /// This strike makes an attempt: `reached` is told each phase that it enters, until [`Trace::part`].
    pub fn lead(&self, reached: &Rc<Cell<Stage>>) {
        *self.attempt.borrow_mut() = Some((Rc::clone(reached), true));
    }

    /// This strike waits for an attempt: until [`Trace::part`] it is in the phase that the attempt is in. What it waits
    /// counts as the phase that it entered itself.
    pub fn follow(&self, reached: &Rc<Cell<Stage>>) {
        *self.attempt.borrow_mut() = Some((Rc::clone(reached), false));
    }

    /// The attempt is over.
    pub fn part(&self) {
        *self.attempt.borrow_mut() = None;
    }

    /// The last phase is complete.
    pub fn complete(&self, now_ns: u64) {
        if let Some((stage, since_ns)) = self.stage.take() {
            let took_ns = &self.took_ns[stage.index()];
            took_ns.set(Some(took_ns.get().unwrap_or(0) + now_ns.saturating_sub(since_ns)));
        }
    }

    /// The phase that was entered and not completed.
    pub fn stage(&self) -> Option<Stage> {
        match &*self.attempt.borrow() {
            Some((reached, false)) => Some(reached.get()),
            _ => self.stage.get().map(|(stage, _)| stage),
        }
    }

    /// How long a phase took in nanoseconds, if the request had it and completed it.
    pub fn took_ns(&self, stage: Stage) -> Option<u64> {
        self.took_ns[stage.index()].get()
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_times_the_phases_that_were_completed() {
        let trace = Trace::new();
        trace.enter(Stage::Connect, 100);
        trace.enter(Stage::Wait, 150);
        assert_eq!(trace.stage(), Some(Stage::Wait));
        assert_eq!(Stage::ALL.map(|stage| trace.took_ns(stage)), [None, Some(50), None, None, None]);
        trace.complete(175);
        assert_eq!(Stage::ALL.map(|stage| trace.took_ns(stage)), [None, Some(50), None, Some(25), None]);
        assert_eq!(trace.stage(), None);
    }

    #[test]
    fn a_phase_entered_again_adds_up() {
        let trace = Trace::new();
        trace.enter(Stage::Wait, 0);
        trace.enter(Stage::Connect, 10);
        trace.enter(Stage::Wait, 30);
        trace.complete(35);
        assert_eq!((trace.took_ns(Stage::Wait), trace.took_ns(Stage::Connect)), (Some(15), Some(20)));
    }

    #[test]
    fn who_waits_for_an_attempt_is_where_the_attempt_is() {
        let (leader, follower, reached) = (Trace::new(), Trace::new(), Rc::new(Cell::new(Stage::Connect)));
        leader.lead(&reached);
        follower.enter(Stage::Connect, 0);
        follower.follow(&reached);
        leader.enter(Stage::Tls, 10);
        assert_eq!((leader.stage(), follower.stage()), (Some(Stage::Tls), Some(Stage::Tls)));
        leader.part();
        follower.part();
        leader.enter(Stage::Wait, 20);
        follower.enter(Stage::Receive, 30);
        assert_eq!((leader.stage(), follower.stage()), (Some(Stage::Wait), Some(Stage::Receive)));
        assert_eq!((follower.took_ns(Stage::Connect), follower.took_ns(Stage::Tls)), (Some(30), None));
    }

    #[test]
    fn labels_are_distinct_and_lie_at_their_index() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert_eq!(Reason::ALL.iter().filter(|other| other.label() == reason.label()).count(), 1);
        }
    }
}
