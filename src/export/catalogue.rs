//! Every metric of hammerd: name, kind, meaning, labels.

use prometheus::proto::MetricType;

/// One metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, in base units.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricType,
    /// Its meaning.
    pub help: &'static str,
    /// Its labels, `le` left out.
    pub labels: &'static [&'static str],
}

macro_rules! catalogue {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: MetricType::$kind, help: $help, labels: &[$($label),*] };
        )+
        /// All of them.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

catalogue! {
    SCHEDULED = COUNTER "hammerd_requests_scheduled_total" ["target"]
        "Arrivals that came due.";
    DROPPED = COUNTER "hammerd_requests_dropped_total" ["target", "reason"]
        "Arrivals that were never sent, by reason.";
    STARTED = COUNTER "hammerd_requests_started_total" ["target"]
        "Requests handed to a connection or to dialling one.";
    FINISHED = COUNTER "hammerd_requests_total" ["target"]
        "Requests that finished, well or badly.";
    CANCELED = COUNTER "hammerd_requests_canceled_total" ["target"]
        "Requests cut off by the end of the drain or by their target's removal.";
    RESPONSES = COUNTER "hammerd_responses_total" ["target", "code"]
        "Complete responses by status code (other: outside 100-599).";
    FAILURES = COUNTER "hammerd_request_failures_total" ["target", "reason"]
        "Requests that finished and were not good, each with one reason.";
    LATENCY = HISTOGRAM "hammerd_request_latency_seconds" ["target", "outcome"]
        "Arrival (intended start) to last byte or failure: free of coordinated omission.";
    DURATION = HISTOGRAM "hammerd_request_duration_seconds" ["target", "outcome"]
        "Actual send to last byte or failure, dialling included.";
    PHASE = HISTOGRAM "hammerd_request_phase_seconds" ["target", "phase"]
        "The phases of a request, each counted for requests that had and completed it.";
    LAG = HISTOGRAM "hammerd_schedule_lag_seconds" []
        "Arrival to actual send: what hammerd itself was late by.";
    IN_FLIGHT = GAUGE "hammerd_in_flight_requests" ["target"]
        "Requests started and not yet over.";
    IN_FLIGHT_LIMIT = GAUGE "hammerd_in_flight_requests_limit" ["target"]
        "The most requests that may be in flight.";
    ASKED_RATE = GAUGE "hammerd_target_requests_per_second" ["target"]
        "The rate that the schedule asks for now.";
    TARGET_INFO = GAUGE "hammerd_target_info" ["target", "protocol", "authority"]
        "1, with what is known of the target and its configured labels.";
    CONNECTIONS_OPEN = GAUGE "hammerd_connections_open" ["target"]
        "Connections open now.";
    CONNECTIONS_OPENED = COUNTER "hammerd_connections_opened_total" ["target"]
        "Connections established.";
    CONNECTIONS_CLOSED = COUNTER "hammerd_connections_closed_total" ["target", "reason"]
        "Connections closed, by reason.";
    SENT_BYTES = COUNTER "hammerd_sent_bytes_total" ["target"]
        "Bytes written to connections, heads included.";
    RECEIVED_BYTES = COUNTER "hammerd_received_bytes_total" ["target"]
        "Bytes read from connections, heads included.";
    DNS_ADDRESSES = GAUGE "hammerd_dns_addresses" ["target"]
        "Addresses that the last successful lookup gave; 0 for an address literal.";
    CERTIFICATE_NOT_AFTER = GAUGE "hammerd_tls_peer_certificate_not_after_timestamp_seconds" ["target"]
        "When the certificate that the target showed last expires, in Unix time: the earliest, where workers were shown several; no series before one was.";
    INSECURE = GAUGE "hammerd_tls_insecure_skip_verify" ["target"]
        "1 for a target whose certificate is not checked, 0 for others over TLS.";
    RETIRED = COUNTER "hammerd_retired_requests_total" ["stage"]
        "Totals of removed targets by stage of the ledger, so that sums over the process stay exact.";
    RELOAD_SUCCESSFUL = GAUGE "hammerd_config_last_reload_successful" []
        "Whether the last (re)load of the configuration succeeded.";
    RELOAD_SUCCESS_TIME = GAUGE "hammerd_config_last_reload_success_timestamp_seconds" []
        "When the running configuration was loaded, in Unix time.";
    RELOADS = COUNTER "hammerd_config_reloads_total" ["result"]
        "Reloads asked for and carried out or refused, by result.";
    SOURCE_UP = GAUGE "hammerd_config_source_up" []
        "Whether every source of the configuration that is no file answered when it was last asked; 1 without one.";
    SOURCE_SUCCESS_TIME = GAUGE "hammerd_config_source_last_success_timestamp_seconds" []
        "When all of these sources answered last, in Unix time; 0 without one.";
    SOURCE_FETCHES = COUNTER "hammerd_config_source_fetches_total" ["result"]
        "Answers of these sources, by whether their text was another one.";
    SOURCE_FAILURES = COUNTER "hammerd_config_source_failures_total" ["reason"]
        "Questions to these sources without an answer that is of use, by reason.";
    BUILD_INFO = GAUGE "hammerd_build_info" ["version", "revision", "rustc"]
        "1, with what this binary was built from.";
    WORKERS = GAUGE "hammerd_workers" []
        "Worker threads.";
    SHARD_INDEX = GAUGE "hammerd_shard_index" []
        "Which stripe of every stream this process sends, from 0 on; no series while it sends none.";
    SHARD_COUNT = GAUGE "hammerd_shard_replicas" []
        "How many replicas share the streams: 1 when nobody does, 0 when that is not known.";
    SHARD_STANDING = GAUGE "hammerd_shard_standing" ["standing"]
        "1 for how this process came to its part of the streams, 0 for the other ways.";
    SHARD_CHANGES = COUNTER "hammerd_shard_changes_total" []
        "Changes of the part of the streams that took effect.";
    SHARD_LOOKUPS = COUNTER "hammerd_shard_lookups_total" ["result"]
        "Rounds in which the list of members was asked for, by result.";
    SHARD_CLOCK = GAUGE "hammerd_shard_clock_offset_seconds" []
        "How far the wall clock is ahead of the grid that shared arrivals lie on, which follows it slowly.";
    LOG_LINES_LOST = COUNTER "hammerd_log_lines_lost_total" []
        "Log lines that could not be written because the log pipe was full or closed.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::ProcessCollector;
    use prometheus::core::Collector as _;

    /// The reference for people has every metric in the catalogue's order, as the catalogue describes it, with a query.
    #[test]
    fn the_reference_describes_what_is_exported() {
        let reference = include_str!("../../docs/metrics.md");
        let kind = |kind| match kind {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            other => panic!("no metric is a {other:?}"),
        };
        let ours = ALL.iter().map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
            (metric.name.to_owned(), metric.help.to_owned(), format!("{}, labels: {labels}", kind(metric.kind)))
        });
        let families = ProcessCollector::new().expect("names").collect();
        let process = families.iter().map(|family| {
            let line = format!("{}, labels: none", kind(family.get_field_type()));
            (family.name().to_owned(), family.help().to_owned(), line)
        });
        let mut sections = reference.split("\n## ").skip(1);
        for (name, help, line) in ours.chain(process) {
            let section = sections.next().unwrap_or_else(|| panic!("no section of {name}"));
            assert!(section.starts_with(&format!("{name}\n\n{help}\n\n{line}\n\n")), "{name}:\n{section}");
            let query = section.split("```promql\n").nth(1).and_then(|rest| rest.split("\n```").next());
            assert!(query.is_some_and(|query| query.contains(&name)), "no query of {name}:\n{section}");
        }
        assert_eq!(sections.next(), None);
    }
}
