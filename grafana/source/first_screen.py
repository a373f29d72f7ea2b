"""What is seen without a click."""

import kit
from kit import GREEN, RED, heatmap, lines, query, stat, steps
from looks import DROP_STEPS, ERROR_STEPS, LAG_STEPS, LATENCY_STEPS, NEUTRAL, SENT_STEPS, of_line, quantiles, warmth
from queries import (
    ASKED,
    CPU,
    DROPPED,
    FAILED,
    FINISHED,
    LAG,
    LATENCY,
    RELOAD_OK,
    SCHEDULED,
    STARTED,
    grown_to_the_end,
    largest,
    quantile,
    rate,
    select,
    sent_of_asked,
    share,
    share_of_range,
    total,
    worst,
)


def by_instance(counter):
    """A rate, of the instances where it was largest."""
    return worst(total(rate(counter), "instance"), total(grown_to_the_end(counter), "instance"), "instance")


def first_screen(h):
    """Is the traffic steady, is the target good, is hammerd itself fine?"""
    small, wide, third = (3, 3), (12, 6), (4, 5)
    refused = {"0": {"text": "refused", "color": RED, "index": 0}, "1": {"text": "applied", "color": GREEN, "index": 1}}
    return [
        stat(
            "Targets",
            "How many of the chosen targets hammerd strikes.",
            [query(f"count(count by (target) ({select('hammerd_target_info')}))")],
            small,
            "none",
            NEUTRAL,
        ),
        stat(
            "Asked rate",
            "What the schedules of the chosen targets ask for now, all together.",
            [query(total(ASKED))],
            small,
            "reqps",
            NEUTRAL,
        ),
        stat(
            "Sent of asked",
            "Requests started, as a share of what was asked for. Below 1: arrivals are dropped, or hammerd stood still. Of "
            "less than one a second: of what came due over the time shown.",
            [query(sent_of_asked())],
            small,
            "percentunit",
            SENT_STEPS,
            decimals=1,
        ),
        stat(
            "Error ratio",
            "Requests that finished and were not good, as a share of all that finished.",
            [query(share(FAILED, FINISHED))],
            small,
            "percentunit",
            ERROR_STEPS,
            decimals=2,
        ),
        stat(
            "Latency p99",
            "From when a request was due to its last byte or its failure; 99 of 100 took no longer.",
            [query(quantile(h, 0.99, LATENCY))],
            small,
            "s",
            LATENCY_STEPS,
        ),
        stat(
            "Lag p99",
            "How late hammerd itself sent. Large against the latency: give hammerd more processor before you blame a target.",
            [query(quantile(h, 0.99, LAG))],
            small,
            "s",
            LAG_STEPS,
        ),
        stat(
            "Dropped",
            "Arrivals that were never sent, as a share of those that came due.",
            [query(share(DROPPED, SCHEDULED))],
            small,
            "percentunit",
            DROP_STEPS,
            decimals=2,
        ),
        stat(
            "Configuration",
            "Whether the last configuration that was asked for runs, in every instance.",
            [query(f"min({RELOAD_OK})")],
            small,
            "none",
            steps((RED, None), (GREEN, 1)),
            mappings=[{"type": "value", "options": refused}],
        ),
        lines(
            "Traffic",
            "Steady when the four lines lie on each other. Scheduled below asked: hammerd stood still. Started below "
            "scheduled: dropped. Finished below started: more and more in flight.",
            [
                query(total(ASKED), "asked"),
                query(total(rate(SCHEDULED)), "scheduled"),
                query(total(rate(STARTED)), "started"),
                query(total(rate(FINISHED)), "finished"),
            ],
            wide,
            "reqps",
            overrides=[
                kit.override(
                    "byName",
                    "asked",
                    custom__lineStyle={"fill": "dash", "dash": [8, 8]},
                    custom__lineInterpolation="stepAfter",
                    custom__fillOpacity=0,
                )
            ],
        ),
        lines(
            "Error ratio of the worst targets",
            "Failed of finished, of the targets that failed most over the time shown. Click a line to see that one alone.",
            [
                query(
                    worst(
                        share(FAILED, FINISHED, "target"),
                        share_of_range(FAILED, FINISHED, "target", grown_to_the_end),
                        "target",
                    ),
                    "{{target}}",
                )
            ],
            wide,
            "percentunit",
            links=of_line(h),
            thresholds=steps(("transparent", None), (RED, 0.01)),
        ),
        lines(
            "Latency",
            "From when a request was due to its last byte or its failure: what a user would have felt.",
            quantiles(h, LATENCY),
            wide,
            "s",
        ),
        heatmap(
            "Latency heatmap",
            "Where the latencies of the chosen targets lie.",
            warmth(h, LATENCY),
            wide,
            "s",
        ),
        lines(
            "hammerd: lag",
            "How late hammerd itself sent: the scheduler's and the processor's part in the latencies.",
            quantiles(h, LAG, (0.5, 0.99, 0.999)),
            (6, 5),
            "s",
            thresholds=steps(("transparent", None), (RED, 0.025)),
        ),
        lines(
            "hammerd: drops by reason",
            "Arrivals never sent. in_flight: the target's limit was reached (it hangs, or the limit is low); late: hammerd "
            "was starved; global_limit: limits.max_total_in_flight.",
            [query(total(rate(DROPPED), "reason"), "{{reason}}")],
            (6, 5),
            "reqps",
            stacked=True,
            hide_zeros=True,
        ),
        lines(
            "hammerd: CPU",
            "Processors in use, of the instances that used most.",
            [query(by_instance(CPU), "{{instance}}")],
            third,
            "none",
        ),
        lines(
            "hammerd: memory",
            "Resident memory, of the largest instances. It does not grow with time, only with targets, connections and "
            "what is in flight.",
            [query(largest("process_resident_memory_bytes"), "{{instance}}")],
            third,
            "bytes",
        ),
        lines(
            "hammerd: descriptors",
            "File descriptors in use, of the instances that use most: connections, and a few.",
            [query(largest("process_open_fds"), "{{instance}}")],
            third,
            "none",
        ),
    ]
