//! How many connections a target has on a worker, and who gets the next one: first come, first served.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::{Mutex, MutexGuard, Notify};

/// Connections that are open or being opened, and the requests that wait for one.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Cell<usize>,
    /// Told when one is given back, or an idle connection comes in, or a shared one has room.
    pub(super) freed: Notify,
    /// As many requests as the peer took on a shared connection before it said farewell to those that ran there, as far as
    /// it has: some servers count to ten or a hundred.
    pub(super) quota: Cell<Option<u64>>,
    /// Held by the request that gets the next one. Others wait for it in the order in which they came.
    next: Mutex<()>,
    /// How many hold it or wait for it.
    waiting: Cell<usize>,
}

/// Counts as a connection until it is dropped.
#[derive(Debug)]
pub(super) struct Seat(Rc<Seats>);

/// A request's place in front of all that wait. The next one comes to the front when it is dropped.
pub(super) struct Turn<'a> {
    _next: MutexGuard<'a, ()>,
    _waiting: Waiting<'a>,
}

/// Counts as waiting until it is dropped.
struct Waiting<'a>(&'a Cell<usize>);

impl Seats {
    /// How many connections there are.
    pub(super) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Whether a request that comes now has to wait behind others.
    pub(super) fn someone_waits(&self) -> bool {
        self.waiting.get() > 0
    }

    /// Waits behind those who wait already.
    pub(super) async fn turn(&self) -> Turn<'_> {
        self.waiting.set(self.waiting.get() + 1);
        let waiting = Waiting(&self.waiting);
        Turn { _next: self.next.lock().await, _waiting: waiting }
    }
}

impl Seat {
    pub(super) fn take(seats: &Rc<Seats>) -> Self {
        seats.taken.set(seats.taken.get() + 1);
        Self(Rc::clone(seats))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.freed.notify_one();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
