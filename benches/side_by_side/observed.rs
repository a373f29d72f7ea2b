//! What it costs to be looked at: scrapes in quick succession, and a trace context with each request.

use std::fmt::Write as _;
use std::time::Duration;

use crate::contest::{Arena, Moment, TAIL, WARM_UP, put_window, scrape_for};
use crate::daemon::{Daemon, sum};
use crate::process::{Neighbours, Result};
use crate::sample::{Metric, Sample};

/// Targets, and the rate of each: as many requests a second as in the other scenarios.
const TARGETS: usize = 100;
const RATE: u64 = 100;
/// Between two scrapes.
const INTERVAL: Duration = Duration::from_millis(100);

/// How somebody looks at hammerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nobody does.
    Unseen,
    /// Each request has a sampled trace, of which the latency buckets keep exemplars.
    Traced,
    /// [`INTERVAL`] between scrapes.
    Scraped,
}

impl Look {
    /// In the order in which they run.
    pub(crate) const ALL: [Self; 3] = [Self::Unseen, Self::Traced, Self::Scraped];

    /// Its name in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Traced => "traced",
            Self::Scraped => "scraped at 10 Hz",
        }
    }
}

impl Arena {
    /// [`TARGETS`] targets, seen so: CPU per request, and evenness of the sum.
    pub(crate) fn observed(&self, sample: &mut Sample, look: Look, seconds: u64) -> Result<()> {
        let witness = self.witness(Duration::ZERO)?;
        let traceparent = if look == Look::Traced { "sampled" } else { "off" };
        let mut targets =
            format!("[defaults]\nurl = \"{}\"\nrate = \"{RATE}/s\"\ntraceparent = \"{traceparent}\"\n", witness.url());
        for index in 0..TARGETS {
            let _ = writeln!(targets, "[targets.t{index}]");
        }
        let life = WARM_UP + Duration::from_secs(seconds) + TAIL;
        let mut daemon = Daemon::with_targets(&targets, self.dir.path(), life)?;
        let neighbours = Neighbours::watch()?;
        let client = self.client(&mut daemon.command, life)?;
        std::thread::sleep(WARM_UP);
        let (before, window) = (Moment::of(&client)?, Duration::from_secs(seconds));
        match look {
            Look::Scraped => scrape_for(&daemon, &client, window, INTERVAL, sample)?,
            Look::Unseen | Look::Traced => std::thread::sleep(window),
        }
        let after = Moment::of(&client)?;
        let metrics = daemon.scrape()?;
        client.finish()?;
        let failed = sum(&metrics, "hammerd_request_failures_total");
        if failed > 0.0 {
            return Err(format!("{failed} requests failed").into());
        }
        let testimony = witness.finish()?;
        put_window(sample, &testimony, &before, &after);
        sample.judge(&testimony.arrivals_ns, (TARGETS as u64 * RATE) as f64);
        sample.put(Metric::Neighbours, neighbours.percent_of_core()?);
        Ok(())
    }
}
