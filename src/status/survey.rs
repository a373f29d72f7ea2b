//! One pass over all targets: which of them are asked for, in their order, and how all of them do together.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};

use super::query::{Order, Query, Sort};
use super::{BIT, Status};
use crate::roster::{Entry, TargetInfo};
use crate::stats::{History, Shape, State};

/// See the module.
#[derive(Debug)]
pub struct Survey {
    pub(super) query: Query,
    after: Option<Arc<str>>,
    /// What matches, in the order of the names until it is over; with what it is sorted by.
    found: Vec<(Option<f64>, Arc<str>)>,
    targets: usize,
    states: [u64; State::COUNT],
    asked_rate: f64,
}

impl Survey {
    /// Before the first target.
    pub fn new(query: Query) -> Self {
        Self { query, after: None, found: Vec::new(), targets: 0, states: [0; State::COUNT], asked_rate: 0.0 }
    }

    /// Looks at the next few targets. Returns whether it is over. Calls `pause` after every target.
    pub fn go_on(&mut self, status: &Status, pause: impl Fn()) -> bool {
        let after = self.after.take();
        self.after = status.roster.walk(after.as_deref(), BIT, |name, target| {
            self.see(status, name, target);
            pause();
        });
        let over = self.after.is_none();
        if over {
            self.sort();
        }
        over
    }

    fn see(&mut self, status: &Status, name: &Arc<str>, target: &Entry) {
        let state = status.state(target);
        self.targets += 1;
        self.states[state.index()] += 1;
        self.asked_rate += target.info().rate_per_second;
        let wanted = self.query.state.is_none_or(|wanted| wanted == state);
        if wanted && matches(&self.query.search, name, target.info()) {
            self.found.push((key(self.query.sort, state, target, &status.shape_of(target)), Arc::clone(name)));
        }
    }

    /// Those without a value come last, and equal ones in the order of their names.
    fn sort(&mut self) {
        let descending = self.query.order == Order::Descending;
        if self.query.sort == Sort::Name {
            if descending {
                self.found.reverse();
            }
            return;
        }
        self.found.sort_by(|(left, _), (right, _)| match (left, right) {
            (Some(left), Some(right)) if descending => right.total_cmp(left),
            (Some(left), Some(right)) => left.total_cmp(right),
            _ => right.is_some().cmp(&left.is_some()),
        });
    }

    /// The names of the targets that the answer has, once it is over.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.found.iter().map(|(_, name)| name).skip(self.query.offset).take(self.query.limit)
    }

    /// How many match.
    pub(super) fn matching(&self) -> usize {
        self.found.len()
    }

    /// All targets together.
    pub(super) fn fleet(&self, status: &Status) -> Value {
        let by_state = State::ALL.iter().map(|state| (state.label().to_owned(), json!(self.states[state.index()])));
        json!({
            "targets": self.targets,
            "states": by_state.collect::<Map<_, _>>(),
            "asked_rate": self.asked_rate,
            "in_flight": status.roster.workers().iter().map(|worker| worker.in_flight()).sum::<usize>(),
        })
    }
}

impl Status {
    /// How a target does.
    pub(super) fn state(&self, target: &Entry) -> State {
        if self.draining.load(Ordering::Relaxed) { State::Draining } else { target.history().state() }
    }
}

/// Whether the name, the authority or a label has `search` in it. `search` is in lower case.
fn matches(search: &str, name: &str, info: &TargetInfo) -> bool {
    if search.is_empty() {
        return true;
    }
    // Names are in lower case by themselves.
    name.contains(search)
        || info.authority.to_lowercase().contains(search)
        || info.labels.iter().any(|(label, value)| format!("{label}={value}").to_lowercase().contains(search))
}

fn key(sort: Sort, state: State, target: &Entry, shape: &Shape) -> Option<f64> {
    let (history, asked_rate) = (target.history(), target.info().rate_per_second);
    let recent = History::recent_of(asked_rate);
    let tally = || history.tally(recent);
    let quantile = |q| history.values(recent, shape).quantile(shape, q);
    match sort {
        Sort::Name => None,
        Sort::State => Some(state.index() as f64),
        Sort::AskedRate => Some(asked_rate),
        Sort::ScheduledRate => tally().per_second(tally().scheduled),
        Sort::StartedRate => tally().per_second(tally().started()),
        Sort::FinishedRate => tally().per_second(tally().finished),
        Sort::ErrorRatio => tally().error_ratio(),
        Sort::P50 => quantile(0.5),
        Sort::P90 => quantile(0.9),
        Sort::P95 => quantile(0.95),
        Sort::P99 => quantile(0.99),
        Sort::P999 => quantile(0.999),
        Sort::Max => quantile(1.0),
        Sort::LastFailure => target.last_failure().get().map(|failure| failure.at_ns as f64),
    }
}
