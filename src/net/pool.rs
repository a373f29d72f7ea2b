//! Idle connections of one target on one worker, and how long a connection may live.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use super::PoolPolicy;
use crate::stats::CloseReason;

/// What a connection has behind it and before it.
#[derive(Debug)]
pub struct Tenure {
    since_ns: u64,
    /// Its own deviation from the largest age, from 0 for a tenth less to [`Self::DEVIATIONS`] for a tenth more.
    deviation: u32,
    served: Cell<u32>,
}

impl Tenure {
    const DEVIATIONS: u32 = 1 << 16;

    /// Of a connection that is opened now. Its largest age is the policy's give or take a tenth, so that connections that
    /// were opened together don't end together.
    pub fn new(now_ns: u64) -> Self {
        let deviation = RandomState::new().hash_one(now_ns) as u32 % (Self::DEVIATIONS + 1);
        Self { since_ns: now_ns, deviation, served: Cell::new(0) }
    }

    /// One more request was given to it.
    pub fn serve(&self) {
        self.served.set(self.served.get().saturating_add(1));
    }

    /// Why it gets no more requests, if it gets none.
    pub fn over(&self, now_ns: u64, policy: &PoolPolicy) -> Option<CloseReason> {
        if !policy.reuse && self.served.get() > 0 {
            Some(CloseReason::SingleUse)
        } else if policy.max_requests.is_some_and(|max| u64::from(self.served.get()) >= max) {
            Some(CloseReason::MaxRequests)
        } else if now_ns.saturating_sub(self.since_ns) >= self.max_age_ns(policy) {
            Some(CloseReason::MaxAge)
        } else {
            None
        }
    }

    fn max_age_ns(&self, policy: &PoolPolicy) -> u64 {
        let age_ns = policy.max_age.as_nanos() as u64;
        // A day in nanoseconds takes 47 bits: nothing overflows.
        age_ns - age_ns / 10 + age_ns / 5 * u64::from(self.deviation) / u64::from(Self::DEVIATIONS)
    }
}

/// A connection that can wait for its next request.
pub trait Pooled {
    /// Why it can't take another request, if it can't.
    fn unfit(&self, now_ns: u64, policy: &PoolPolicy) -> Option<CloseReason>;
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
    policy: Cell<PoolPolicy>,
}

impl<C: Pooled> Pool<C> {
    /// A pool of at most `max_idle` idle connections.
    pub fn new(max_idle: usize, policy: PoolPolicy) -> Self {
        Self { idle: RefCell::new(VecDeque::new()), max_idle: Cell::new(max_idle), policy: Cell::new(policy) }
    }

    /// Keeps at most `max_idle` idle connections from now on, and those under `policy`.
    pub fn adapt(&self, max_idle: usize, policy: PoolPolicy) {
        self.max_idle.set(max_idle);
        self.policy.set(policy);
    }

    /// How many it keeps at most.
    pub fn max_idle(&self) -> usize {
        self.max_idle.get()
    }

    /// What it keeps to.
    pub fn policy(&self) -> PoolPolicy {
        self.policy.get()
    }

    /// The most recently used connection that may still be used.
    pub fn take(&self, now_ns: u64) -> Option<C> {
        let policy = self.policy.get();
        loop {
            let (connection, since_ns) = self.idle.borrow_mut().pop_back()?;
            match Self::ended(&connection, since_ns, now_ns, &policy) {
                Some(reason) => connection.close(reason),
                None => return Some(connection),
            }
        }
    }

    /// Takes back a connection after a request, and closes the oldest one if its time has come or it is one too many.
    pub fn put(&self, connection: C, now_ns: u64) {
        let policy = self.policy.get();
        if let Some(reason) = connection.unfit(now_ns, &policy) {
            return connection.close(reason);
        }
        let mut idle = self.idle.borrow_mut();
        idle.push_back((connection, now_ns));
        let Some((oldest, since_ns)) = idle.front() else { return };
        let too_many = || (idle.len() > self.max_idle.get()).then_some(CloseReason::Idle);
        if let Some(reason) = Self::ended(oldest, *since_ns, now_ns, &policy).or_else(too_many)
            && let Some((oldest, _)) = idle.pop_front()
        {
            oldest.close(reason);
        }
    }

    /// How long the next sweep can wait: until the oldest has idled for long enough, and at least for a tenth of what one
    /// may idle. So nothing idles for more than a tenth longer than it may.
    pub fn pause(&self, now_ns: u64) -> Duration {
        let may_idle = self.policy.get().idle_timeout;
        let since_ns = self.idle.borrow().front().map_or(0, |(_, since_ns)| *since_ns);
        may_idle.saturating_sub(Duration::from_nanos(now_ns.saturating_sub(since_ns))).max(may_idle / 10)
    }

    /// Closes every idle connection whose time has come, or whose address is not `known` any more; true when some are
    /// left.
    pub fn sweep(&self, now_ns: u64, known: impl Fn(&C) -> bool) -> bool {
        let (policy, mut idle) = (self.policy.get(), self.idle.borrow_mut());
        for _ in 0..idle.len() {
            let Some((connection, since_ns)) = idle.pop_front() else { break };
            let gone = || (!known(&connection)).then_some(CloseReason::AddressGone);
            match Self::ended(&connection, since_ns, now_ns, &policy).or_else(gone) {
                Some(reason) => connection.close(reason),
                None => idle.push_back((connection, since_ns)),
            }
        }
        !idle.is_empty()
    }

    fn ended(connection: &C, since_ns: u64, now_ns: u64, policy: &PoolPolicy) -> Option<CloseReason> {
        let idled = now_ns.saturating_sub(since_ns) > policy.idle_timeout.as_nanos() as u64;
        connection.unfit(now_ns, policy).or(idled.then_some(CloseReason::Idle))
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
        fn unfit(&self, _: u64, _: &PoolPolicy) -> Option<CloseReason> {
            (!self.ready.get()).then_some(CloseReason::Peer)
        }

        fn close(self, reason: CloseReason) {
            self.closed.borrow_mut().push((self.name, reason));
        }
    }

    type Closed = Rc<RefCell<Vec<(u32, CloseReason)>>>;

    const POLICY: PoolPolicy = PoolPolicy {
        max_connections: None,
        reuse: true,
        max_age: Duration::from_secs(100),
        max_requests: None,
        idle_timeout: Duration::from_secs(10),
        preconnect: 0,
    };

    fn fakes(count: u32) -> (Vec<Fake>, Closed) {
        let closed = Closed::default();
        let fake = |name| Fake { name, ready: Rc::new(Cell::new(true)), closed: Rc::clone(&closed) };
        ((0..count).map(fake).collect(), closed)
    }

    #[test]
    fn the_most_recently_used_goes_first_and_the_oldest_goes_when_there_are_too_many() {
        let (fakes, closed) = fakes(3);
        let pool = Pool::new(2, POLICY);
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
        let pool = Pool::new(9, POLICY);
        for fake in fakes.clone() {
            pool.put(fake, 0);
        }
        fakes[2].ready.set(false);
        assert_eq!(pool.take(0).map(|fake| fake.name), Some(1));
        drop(pool);
        assert_eq!(*closed.borrow(), [(2, CloseReason::Peer), (0, CloseReason::Retired)]);
    }

    #[test]
    fn a_sweep_closes_what_has_idled_for_too_long_and_nothing_else() {
        let (fakes, closed) = fakes(3);
        let pool = Pool::new(9, POLICY);
        for (fake, put_s) in fakes.into_iter().zip([0, 5, 9]) {
            pool.put(fake, put_s * 1_000_000_000);
        }
        assert!(pool.sweep(10_000_000_000, |_| true), "all three have idled for ten seconds at most");
        assert!(closed.borrow().is_empty());
        assert!(pool.sweep(16_000_000_000, |_| true));
        assert_eq!(*closed.borrow(), [(0, CloseReason::Idle), (1, CloseReason::Idle)]);
        assert!(!pool.sweep(30_000_000_000, |_| true), "nothing is left");
    }

    #[test]
    fn a_sweep_closes_what_leads_to_an_address_that_is_gone() {
        let (fakes, closed) = fakes(3);
        let pool = Pool::new(9, POLICY);
        for fake in fakes {
            pool.put(fake, 0);
        }
        assert!(pool.sweep(1, |fake| fake.name != 1));
        assert_eq!(*closed.borrow(), [(1, CloseReason::AddressGone)]);
        assert_eq!(pool.take(1).map(|fake| fake.name), Some(2));
    }

    #[test]
    fn nothing_idles_for_more_than_a_tenth_longer_than_it_may_and_sweeps_are_few() {
        const MS: u64 = 1_000_000;
        let (fakes, closed) = fakes(60);
        let pool = Pool::new(60, POLICY);
        let put_ns = |name: u32| u64::from(name) * 150 * MS;
        for fake in fakes {
            let name = fake.name;
            pool.put(fake, put_ns(name));
        }
        let (mut now_ns, mut sweeps, mut gone) = (put_ns(59), 0, 0);
        loop {
            now_ns += pool.pause(now_ns).as_nanos() as u64;
            sweeps += 1;
            let left = pool.sweep(now_ns, |_| true);
            for (name, reason) in &closed.borrow()[gone..] {
                let idled_ms = (now_ns - put_ns(*name)) / MS;
                assert!((10_000..=11_000).contains(&idled_ms), "{name} had idled for {idled_ms} ms");
                assert_eq!(*reason, CloseReason::Idle);
            }
            gone = closed.borrow().len();
            if !left {
                break;
            }
        }
        assert_eq!(gone, 60);
        assert!(sweeps <= 12, "{sweeps} sweeps");
        pool.adapt(60, PoolPolicy { idle_timeout: Duration::from_secs(5), ..POLICY });
        assert_eq!(pool.pause(now_ns), Duration::from_millis(500), "what is kept elsewhere is looked at too");
    }

    #[test]
    fn a_tenure_ends_by_age_give_or_take_a_tenth_and_by_requests() {
        for now_ns in 0..100 {
            let tenure = Tenure::new(now_ns);
            assert_eq!(tenure.over(now_ns + 90_000_000_000 - 1, &POLICY), None);
            assert_eq!(tenure.over(now_ns + 110_000_000_000, &POLICY), Some(CloseReason::MaxAge));
        }
        let ends: std::collections::HashSet<u64> = (0..100).map(|_| Tenure::new(0).max_age_ns(&POLICY)).collect();
        assert!(ends.len() > 50, "connections opened together end together: {}", ends.len());
        let day = PoolPolicy { max_age: Duration::from_secs(86_400), ..POLICY };
        let longest = Tenure { deviation: Tenure::DEVIATIONS, ..Tenure::new(0) };
        assert_eq!(longest.max_age_ns(&day), 86_400_000_000_000 / 10 * 11);
        let (tenure, twice) = (Tenure::new(0), PoolPolicy { max_requests: Some(2), ..POLICY });
        tenure.serve();
        assert_eq!(tenure.over(0, &twice), None);
        assert_eq!(tenure.over(0, &PoolPolicy { reuse: false, ..POLICY }), Some(CloseReason::SingleUse));
        tenure.serve();
        assert_eq!(tenure.over(0, &twice), Some(CloseReason::MaxRequests));
    }
}
