//! Tells a service manager that we work, for as long as we do.
//!
//! A message from a timer alone would say no more than that the timer works. So before each one the workers are asked
//! for a sign, which they give between two rounds of their loop, and the control loop must have been round lately.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::{HEARTBEAT, Shared};
use crate::clock;
use crate::fleet::Pulse;
use crate::notify::Notify;

/// Says that we work, twice in the time that the manager waits for it. Does not end when there is a watchdog.
pub(super) async fn watch(notify: Notify, shared: Arc<Shared>, pulse: Pulse) {
    let Some(patience) = notify.watchdog() else { return };
    let interval = patience / 2;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut well = true;
    loop {
        ticks.tick().await;
        let was_well = well;
        well = works(&shared, &pulse, interval).await;
        if well {
            notify.alive();
        } else if was_well {
            warn!("the workers or the control loop stand still: the watchdog is not told that all is well");
        }
    }
}

async fn works(shared: &Shared, pulse: &Pulse, interval: Duration) -> bool {
    let silence = Duration::from_nanos(clock::now_ns().saturating_sub(shared.last_round_ns()));
    // In a drain the workers end one after the other.
    silence < interval.max(3 * HEARTBEAT) && (!shared.is_ready() || pulse.beats(interval).await)
}
