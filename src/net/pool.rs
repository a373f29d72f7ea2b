//! Idle connections of one target on one worker.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::stats::CloseReason;

/// Nanoseconds after which an idle connection is closed. Below the 60 s and 75 s after which common servers and load
/// balancers close theirs, so that a request rarely meets a connection that is just going.
const MAX_IDLE_NS: u64 = 55_000_000_000;

/// A connection that can wait for its next request.
pub trait Pooled {
    /// Whether another request can be sent on it now.
    fn is_ready(&self) -> bool;
    /// Closes it.
    fn close(self, reason: CloseReason);
}

/// Keeps idle connections and gives out the most recently used one, so that those which a falling rate no longer needs
/// age at the other end, where they are closed.
#[derive(Debug)]
pub struct Pool<C: Pooled> {
    /// The most recently used at the back.
    idle: RefCell<VecDeque<(C, u64)>>,
    max_idle: Cell<usize>,
}

impl<C: Pooled> Pool<C> {
    /// A pool of at most `max_idle` idle connections.
    pub fn new(max_idle: usize) -> Self {
        Self { idle: RefCell::new(VecDeque::new()), max_idle: Cell::new(max_idle) }
    }

    /// Keeps at most `max_idle` idle connections from now on.
    pub fn resize(&self, max_idle: usize) {
        self.max_idle.set(max_idle);
    }

    /// The most recently used connection that still works and has not idled for too long.
    pub fn take(&self, now_ns: u64) -> Option<C> {
        loop {
            let (connection, since_ns) = self.idle.borrow_mut().pop_back()?;
            if !connection.is_ready() {
                connection.close(CloseReason::Peer);
            } else if now_ns.saturating_sub(since_ns) > MAX_IDLE_NS {
                connection.close(CloseReason::Idle);
            } else {
                return Some(connection);
            }
        }
    }

    /// Takes back a connection that is ready for another request, and closes the oldest if it has idled for too long,
    /// is dead, or is one too many.
    pub fn put(&self, connection: C, now_ns: u64) {
        let mut idle = self.idle.borrow_mut();
        idle.push_back((connection, now_ns));
        let Some((oldest, since_ns)) = idle.front() else { return };
        let reason = if !oldest.is_ready() {
            CloseReason::Peer
        } else if idle.len() > self.max_idle.get() || now_ns.saturating_sub(*since_ns) > MAX_IDLE_NS {
            CloseReason::Idle
        } else {
            return;
        };
        if let Some((oldest, _)) = idle.pop_front() {
            oldest.close(reason);
        }
    }
}

impl<C: Pooled> Drop for Pool<C> {
    fn drop(&mut self) {
        for (connection, _) in self.idle.get_mut().drain(..) {
            connection.close(CloseReason::Retired);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[derive(Clone)]
    struct Fake {
        name: u32,
        ready: Rc<Cell<bool>>,
        closed: Closed,
    }

    impl Pooled for Fake {
        fn is_ready(&self) -> bool {
            self.ready.get()
        }

        fn close(self, reason: CloseReason) {
            self.closed.borrow_mut().push((self.name, reason));
        }
    }

    type Closed = Rc<RefCell<Vec<(u32, CloseReason)>>>;

    fn fakes(count: u32) -> (Vec<Fake>, Closed) {
        let closed = Closed::default();
        let fake = |name| Fake { name, ready: Rc::new(Cell::new(true)), closed: Rc::clone(&closed) };
        ((0..count).map(fake).collect(), closed)
    }

    #[test]
    fn the_most_recently_used_goes_first_and_the_oldest_goes_when_there_are_too_many() {
        let (fakes, closed) = fakes(3);
        let pool = Pool::new(2);
        for fake in fakes {
            pool.put(fake, 0);
        }
        assert_eq!(*closed.borrow(), [(0, CloseReason::Idle)]);
        assert_eq!(pool.take(0).map(|fake| fake.name), Some(2));
        assert_eq!(pool.take(0).map(|fake| fake.name), Some(1));
        assert!(pool.take(0).is_none());
    }

    #[test]
    fn dead_connections_are_passed_over_and_the_rest_retired_with_the_pool() {
        let (fakes, closed) = fakes(3);
        let pool = Pool::new(9);
        for fake in fakes.clone() {
            pool.put(fake, 0);
        }
        fakes[2].ready.set(false);
        assert_eq!(pool.take(0).map(|fake| fake.name), Some(1));
        drop(pool);
        assert_eq!(*closed.borrow(), [(2, CloseReason::Peer), (0, CloseReason::Retired)]);
    }
}
