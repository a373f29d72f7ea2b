//! What happens on a target's connections, below its requests.

use super::Counter;
use super::cell::Cut;
use crate::outcome::labels;

labels! {
    /// Why a connection was closed.
    CloseReason {
        /// The peer closed it, or asked for it.
        Peer => "peer",
        /// A request on it failed, or its peer broke the protocol.
        Failed => "failed",
        /// A request on it passed its deadline or was cut off.
        Canceled => "canceled",
        /// It had been idle for too long, or there were enough idle ones.
        Idle => "idle",
        /// It had reached its largest age.
        MaxAge => "max_age",
        /// It had served as many requests as it may.
        MaxRequests => "max_requests",
        /// It was for one request only.
        SingleUse => "single_use",
        /// The name does not lead to its address any more.
        AddressGone => "address_gone",
        /// Its target was changed or removed, or the process ended.
        Retired => "retired",
    }
}

/// Counts of one target's connections on one worker; single writer.
#[derive(Debug, Default)]
pub struct Wire {
    /// Bytes written to connections, heads included.
    pub sent_bytes: Counter,
    /// Bytes read from connections, heads included.
    pub received_bytes: Counter,
    /// Addresses that the last successful lookup gave.
    pub dns_addresses: Counter,
    /// When the certificate that the peer showed last expires, in seconds since 1970; 0 for none.
    pub certificate_not_after: Counter,
    cut: Cut,
    opened: Counter,
    open: Counter,
    closed: [Counter; CloseReason::COUNT],
}

impl Wire {
    /// A connection was established.
    pub fn open(&self) {
        self.cut.write(|| {
            self.opened.add(1);
            self.open.add(1);
        });
    }

    /// A connection that was counted as opened is gone.
    pub fn close(&self, reason: CloseReason) {
        self.cut.write(|| {
            self.open.subtract(1);
            self.closed[reason.index()].add(1);
        });
    }

    /// A copy of the counts, in which `opened` is `open` and all of `closed`.
    pub fn snapshot(&self) -> WireSnapshot {
        self.cut.read(|| WireSnapshot {
            sent_bytes: self.sent_bytes.get(),
            received_bytes: self.received_bytes.get(),
            dns_addresses: self.dns_addresses.get(),
            certificate_not_after: self.certificate_not_after.get(),
            opened: self.opened.get(),
            open: self.open.get(),
            closed: std::array::from_fn(|index| self.closed[index].get()),
        })
    }
}

/// A copy of a target's connection counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WireSnapshot {
    /// Bytes written.
    pub sent_bytes: u64,
    /// Bytes read.
    pub received_bytes: u64,
    /// Addresses in use.
    pub dns_addresses: u64,
    /// When the peer's certificate expires, in seconds since 1970, the earliest where there are several; 0 for none.
    pub certificate_not_after: u64,
    /// Connections opened so far.
    pub opened: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections closed so far, by [`CloseReason::index`].
    pub closed: [u64; CloseReason::COUNT],
}

impl WireSnapshot {
    /// Adds the counts of another worker's connections.
    pub fn merge(&mut self, other: &Self) {
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.dns_addresses = self.dns_addresses.max(other.dns_addresses);
        self.certificate_not_after = match (self.certificate_not_after, other.certificate_not_after) {
            (0, seen) | (seen, 0) => seen,
            (one, another) => one.min(another),
        };
        self.opened += other.opened;
        self.open += other.open;
        for (total, part) in self.closed.iter_mut().zip(other.closed) {
            *total += part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is warned of an expiry wants to know of the first one, and nothing of workers that have seen none.
    #[test]
    fn of_several_certificates_the_one_that_expires_first_counts() {
        for (seen, shown) in [([0, 0], 0), ([0, 7], 7), ([7, 0], 7), ([9, 7], 7), ([7, 9], 7)] {
            let [mut one, other] =
                seen.map(|certificate_not_after| WireSnapshot { certificate_not_after, ..WireSnapshot::default() });
            one.merge(&other);
            assert_eq!(one.certificate_not_after, shown, "of {seen:?}");
        }
    }
}
