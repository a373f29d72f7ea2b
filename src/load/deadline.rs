//! The deadlines of all requests in flight on a worker.
//!
//! A timer of the runtime for each request would cost more than the rest of its bookkeeping, and nearly none of them ever
//! fires. So deadlines are kept in a table that is looked through when the earliest one that was in it is due. Requests
//! come and go meanwhile: with responses that are quick beside their timeout, that is about once in a timeout.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Poll, Waker};

use slab::Slab;

/// The table is not looked through more often than this: the resolution of deadlines.
const RESOLUTION_NS: u64 = 1_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Deadlines {
    waiting: RefCell<Slab<Waiting>>,
    /// No deadline in the table lies before this.
    next_ns: Cell<u64>,
}

#[derive(Debug)]
struct Waiting {
    deadline_ns: u64,
    expired: bool,
    /// The task to wake; none before it has waited for the first time.
    waker: Option<Waker>,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self { waiting: RefCell::default(), next_ns: Cell::new(u64::MAX) }
    }

    /// A request that may take until `deadline_ns`.
    pub(super) fn enter(&self, deadline_ns: u64) -> usize {
        self.next_ns.set(self.next_ns.get().min(deadline_ns));
        self.waiting.borrow_mut().insert(Waiting { deadline_ns, expired: false, waker: None })
    }

    /// The request is over.
    pub(super) fn leave(&self, key: usize) {
        self.waiting.borrow_mut().try_remove(key);
    }

    /// When [`sweep`](Self::sweep) has something to do at the earliest; `u64::MAX` for never.
    pub(super) fn next_ns(&self) -> u64 {
        self.next_ns.get()
    }

    /// Expires what is due at `now_ns`.
    pub(super) fn sweep(&self, now_ns: u64) {
        if now_ns < self.next_ns.get() {
            return;
        }
        let mut next_ns = u64::MAX;
        for (_, waiting) in self.waiting.borrow_mut().iter_mut().filter(|(_, waiting)| !waiting.expired) {
            if waiting.deadline_ns > now_ns {
                next_ns = next_ns.min(waiting.deadline_ns);
                continue;
            }
            waiting.expired = true;
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
        self.next_ns.set(next_ns.max(now_ns + RESOLUTION_NS));
    }

    /// What `future` comes to, or `None` once the deadline of request `key` has passed. Taken by reference: an async fn has
    /// room for an argument twice, and this one is most of a request's memory.
    pub(super) async fn watch<F: Future>(&self, key: usize, mut future: Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            match self.waiting.borrow_mut().get_mut(key) {
                Some(waiting) if !waiting.expired => {
                    if !waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                        waiting.waker = Some(cx.waker().clone());
                    }
                    Poll::Pending
                }
                _ => Poll::Ready(None),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    const MS: u64 = 1_000_000;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_due_is_woken_once_and_ends_and_the_rest_waits() {
        let deadlines = Deadlines::new();
        let (early, late) = (deadlines.enter(10 * MS), deadlines.enter(30 * MS));
        assert_eq!(deadlines.next_ns(), 10 * MS);
        let woken = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let (early_answer, late_answer) = (pin!(std::future::pending::<()>()), pin!(std::future::pending::<()>()));
        let mut first = pin!(deadlines.watch(early, early_answer));
        let mut second = pin!(deadlines.watch(late, late_answer));
        assert!(first.as_mut().poll(&mut cx).is_pending() && second.as_mut().poll(&mut cx).is_pending());

        deadlines.sweep(9 * MS);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        deadlines.sweep(10 * MS);
        deadlines.sweep(12 * MS);
        assert_eq!((woken.0.load(Ordering::Relaxed), deadlines.next_ns()), (1, 30 * MS));
        assert_eq!(first.as_mut().poll(&mut cx), Poll::Ready(None));
        assert!(second.as_mut().poll(&mut cx).is_pending());
    }

    #[test]
    fn what_is_watched_is_not_there_twice() {
        let deadlines = Deadlines::new();
        let large = pin!(async {
            let room = [0_u8; 1000];
            std::future::pending::<()>().await;
            std::hint::black_box(room);
        });
        assert!(size_of_val(&deadlines.watch(0, large)) < 100);
    }

    #[test]
    fn an_answer_in_time_wins_and_leaves_nothing_to_look_for() {
        let deadlines = Deadlines::new();
        let key = deadlines.enter(10 * MS);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(pin!(deadlines.watch(key, pin!(std::future::ready(7)))).poll(&mut cx), Poll::Ready(Some(7)));
        deadlines.leave(key);
        deadlines.sweep(10 * MS);
        assert_eq!(deadlines.next_ns(), u64::MAX);
    }
}
