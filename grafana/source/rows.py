"""What more there is, a row for each question."""

from kit import GREEN, RED, YELLOW, heatmap, lines, query, stat, steps, table
from looks import (
    COLORED_CELL,
    DROP_STEPS,
    ERROR_STEPS,
    EXPIRY_STEPS,
    LATENCY_STEPS,
    UNCHECKED_STEPS,
    of_line,
    only,
    warmth,
)
from queries import (
    ASKED,
    CPU,
    DROPPED,
    DURATION,
    FAILED,
    FINISHED,
    IN_FLIGHT,
    IN_FLIGHT_LIMIT,
    LAG,
    LATENCY,
    NOT_AFTER,
    OPEN,
    PHASE,
    RELOADED,
    SCHEDULED,
    STARTED,
    grown,
    grown_to_the_end,
    lately,
    of_process,
    peak,
    quantile,
    quantile_name,
    rate,
    select,
    sent_of_asked,
    share_of_range,
    total,
    worst,
)


def targets(h):
    """Which target?"""
    ratio = {"unit": "percentunit", "decimals": 2, "custom__cellOptions": COLORED_CELL}
    columns = [
        ("Protocol", "", {}),
        ("Authority", "", {}),
        ("Info", f"max by (target, protocol, authority) ({select('hammerd_target_info')})", None),
        ("Asked", total(ASKED, "target"), {"unit": "reqps"}),
        ("Sent", total(rate(STARTED), "target"), {"unit": "reqps"}),
        ("Failed", share_of_range(FAILED, FINISHED, "target"), {**ratio, "thresholds": ERROR_STEPS}),
        ("Dropped", share_of_range(DROPPED, SCHEDULED, "target"), {**ratio, "thresholds": DROP_STEPS}),
        ("p50", quantile(h, 0.5, LATENCY, "target", grown), {"unit": "s"}),
        (
            "p99",
            quantile(h, 0.99, LATENCY, "target", grown),
            {"unit": "s", "thresholds": LATENCY_STEPS, "custom__cellOptions": COLORED_CELL},
        ),
        ("In flight", f"{total(IN_FLIGHT, 'target')}", {"unit": "none"}),
        ("Connections", total(OPEN, "target"), {"unit": "none"}),
        (
            "Certificate",
            f"min by (target) ({NOT_AFTER} - time())",
            {"unit": "s", "thresholds": EXPIRY_STEPS, "custom__cellOptions": COLORED_CELL},
        ),
        (
            "Unchecked",
            f"max by (target) ({select('hammerd_tls_insecure_skip_verify')})",
            {"unit": "bool_yes_no", "thresholds": UNCHECKED_STEPS, "custom__cellOptions": COLORED_CELL},
        ),
    ]
    return [
        table(
            "Every target",
            "Ratios and quantiles are over the time shown; Certificate is for how long it is still valid. Click a target to see "
            "it alone.",
            columns,
            (24, 10),
            "none",
            key="target",
            sort="Failed",
            links=only(h, "target", "${__value.raw}"),
        ),
        lines(
            "Latency p99 of the slowest targets",
            "Of the targets that were slowest over the time shown. Click a line to see that target alone.",
            [
                query(
                    worst(
                        quantile(h, 0.99, LATENCY, "target"),
                        quantile(h, 0.99, LATENCY, "target", grown_to_the_end),
                        "target",
                    ),
                    "{{target}}",
                )
            ],
            (12, 8),
            "s",
            table=True,
            links=of_line(h),
        ),
        lines(
            "Behind the asked rate",
            "What the targets lack that are furthest behind: asked for and not sent, as a share of what was asked for. Of less "
            "than one a second: due and not sent over the time shown.",
            [
                query(
                    worst(
                        f"clamp_min(1 - ({sent_of_asked('target')}), 0)",
                        f"1 - {share_of_range(STARTED, SCHEDULED, 'target', grown_to_the_end)}",
                        "target",
                    ),
                    "{{target}}",
                )
            ],
            (12, 8),
            "percentunit",
            table=True,
            links=of_line(h),
        ),
    ]


def failures(h):
    """What went wrong?"""
    key = "target, reason"
    return [
        lines(
            "Failures by reason",
            "Each request that finished and was not good has exactly one reason. Nothing above zero: nothing failed.",
            [query(total(rate(FAILED), "reason"), "{{reason}}")],
            (12, 8),
            "reqps",
            stacked=True,
            table=True,
            hide_zeros=True,
        ),
        lines(
            "Answers by status code",
            "Complete responses, expected or not.",
            [query(total(rate(select("hammerd_responses_total")), "code"), "{{code}}")],
            (12, 8),
            "reqps",
            stacked=True,
            table=True,
            hide_zeros=True,
        ),
        lines(
            "Failures of the worst targets",
            "Which target fails, and why. Click a line to see that target alone.",
            [query(worst(total(rate(FAILED), key), total(grown_to_the_end(FAILED), key), key), "{{target}}: {{reason}}")],
            (12, 8),
            "reqps",
            table=True,
            hide_zeros=True,
            links=of_line(h),
        ),
        lines(
            "Drops of the worst targets",
            "Arrivals never sent, by target and reason. Click a line to see that target alone.",
            [query(worst(total(rate(DROPPED), key), total(grown_to_the_end(DROPPED), key), key), "{{target}}: {{reason}}")],
            (12, 8),
            "reqps",
            table=True,
            hide_zeros=True,
            links=of_line(h),
        ),
        lines(
            "Latency p99 of good and of failed requests",
            "Failures at the timeout: the target hangs. Failures at once: it refuses.",
            [query(quantile(h, 0.99, LATENCY, "outcome"), "{{outcome}}")],
            (12, 7),
            "s",
        ),
        lines(
            "Cut off",
            "Requests cut off by the end of the drain or by a target's removal; the rest of the ledger's equation.",
            [query(total(rate(select("hammerd_requests_canceled_total"))), "canceled")],
            (12, 7),
            "reqps",
        ),
    ]


def phases(h):
    """Where does the time go?"""
    seconds, _ = h.sum_and_count(PHASE, "phase")
    both = [
        query(quantile(h, q, series), f"{name} {quantile_name(q)}")
        for name, series in (("latency", LATENCY), ("duration", DURATION))
        for q in (0.5, 0.99)
    ]
    return [
        lines(
            "Time per request",
            "Where a request spends its time in the mean: looking up, connecting, TLS, waiting for the first byte, "
            "receiving. Connections are reused, so the first three are small.",
            [query(f"{seconds}\n/ on () group_left ()\n{total(rate(FINISHED))}", "{{phase}}")],
            (12, 8),
            "s",
            stacked=True,
            table=True,
        ),
        lines(
            "Phases p99",
            "Of the requests that had the phase: what a handshake takes when there is one.",
            [query(quantile(h, 0.99, PHASE, "phase"), "{{phase}}")],
            (12, 8),
            "s",
            table=True,
        ),
        lines(
            "Latency and duration",
            "Duration counts from the actual send, latency from when the request was due. Apart: hammerd was late.",
            both,
            (12, 8),
            "s",
        ),
        heatmap(
            "Waiting for the first byte",
            "From the request sent to the first byte of the answer: the server's own time and one round trip.",
            warmth(h, select("hammerd_request_phase_seconds", 'phase="wait"')),
            (12, 8),
            "s",
        ),
    ]


def connections(h):
    """Are connections kept?"""
    used = f"{total(IN_FLIGHT, 'target')} / {total(IN_FLIGHT_LIMIT, 'target')}"
    used_most = f"max by (target) ({peak(IN_FLIGHT)} / {peak(IN_FLIGHT_LIMIT)})"
    open_most = f"sum by (target) ({peak(OPEN)})"
    return [
        lines(
            "Opened and closed",
            "New connections, and why old ones were closed. Many opened: the target closes them, or keep-alive is off.",
            [
                query(total(rate(select("hammerd_connections_opened_total"))), "opened"),
                query(total(rate(select("hammerd_connections_closed_total")), "reason"), "closed: {{reason}}"),
            ],
            (12, 8),
            "cps",
            table=True,
            hide_zeros=True,
        ),
        lines(
            "Open connections",
            "Of the targets with the most.",
            [query(worst(total(OPEN, "target"), open_most, "target"), "{{target}}")],
            (12, 8),
            "none",
            table=True,
            links=of_line(h),
        ),
        lines(
            "In flight, of the limit",
            "Requests started and not yet over, as a share of max_in_flight. At 1 the next arrival is dropped.",
            [query(worst(used, used_most, "target"), "{{target}}")],
            (12, 8),
            "percentunit",
            table=True,
            links=of_line(h),
            thresholds=steps(("transparent", None), (RED, 1)),
        ),
        lines(
            "Bytes",
            "On the wire of the connections, heads included.",
            [
                query(total(rate(select("hammerd_received_bytes_total"))), "received"),
                query(total(rate(select("hammerd_sent_bytes_total"))), "sent"),
            ],
            (12, 8),
            "Bps",
        ),
    ]


def names_and_certificates(h):
    """Does the target keep its names and its certificate?"""
    addresses = select("hammerd_dns_addresses")
    of_most = worst(f"max by (target) ({addresses})", f"max by (target) ({peak(addresses)})", "target")
    insecure = select("hammerd_tls_insecure_skip_verify")
    return [
        lines(
            "Addresses",
            "What the last good lookup gave; 0 for an address that is written out. Of the targets with the most.",
            [query(of_most, "{{target}}")],
            (8, 8),
            "none",
            links=of_line(h),
        ),
        lines(
            "Certificates expire in",
            "Of those that expire first. Targets without TLS have none.",
            [query(f"bottomk($top, min by (target) ({NOT_AFTER} - time()))", "{{target}}")],
            (12, 8),
            "s",
            table=True,
            links=of_line(h),
            defaults={"min": None, "noValue": "no target over TLS"},
        ),
        stat(
            "Certificates not checked",
            "Targets with tls.insecure_skip_verify: they may be anybody.",
            [query(f"sum(max by (target) ({insecure}))")],
            (4, 8),
            "none",
            UNCHECKED_STEPS,
            noValue="no target over TLS",
        ),
    ]


def itself(h):
    """Is hammerd fine?"""
    rss, vsize = of_process("process_resident_memory_bytes"), of_process("process_virtual_memory_bytes")
    build = "version, revision, rustc"
    columns = [
        ("Version", "", {}),
        ("Revision", "", {}),
        ("Rustc", "", {}),
        ("Info", f"max by (instance, {build}) ({of_process('hammerd_build_info')})", None),
        ("Up", f"max by (instance) ({of_process('up')})", {"unit": "bool_yes_no"}),
        ("Running for", f"time() - max by (instance) ({of_process('process_start_time_seconds')})", {"unit": "s"}),
        ("Configuration's age", f"time() - max by (instance) ({RELOADED})", {"unit": "s"}),
        ("Stripe", f"max by (instance) ({of_process('hammerd_shard_index')})", {"unit": "none"}),
        ("Of", f"max by (instance) ({of_process('hammerd_shard_replicas')})", {"unit": "none"}),
        ("Workers", f"max by (instance) ({of_process('hammerd_workers')})", {"unit": "none"}),
        ("Threads", f"max by (instance) ({of_process('process_threads')})", {"unit": "none"}),
        ("Descriptors", f"max by (instance) ({of_process('process_open_fds')})", {"unit": "none"}),
        ("Of at most", f"max by (instance) ({of_process('process_max_fds')})", {"unit": "none"}),
        ("Scrape takes", f"max by (instance) ({of_process('scrape_duration_seconds')})", {"unit": "s"}),
        ("Samples", f"max by (instance) ({of_process('scrape_samples_scraped')})", {"unit": "short"}),
    ]
    lag = quantile(h, 0.99, LAG, "instance")
    started = of_process("hammerd_requests_started_total")
    reloads = lately(of_process("hammerd_config_reloads_total"))
    retired = lately(of_process("hammerd_retired_requests_total"))
    clock = of_process("hammerd_shard_clock_offset_seconds")
    heard = of_process("hammerd_config_source_last_success_timestamp_seconds")
    return [
        table(
            "Instances",
            "What runs where, for how long, with what; and what a scrape of it costs Prometheus.",
            columns,
            (24, 6),
            "none",
            key="instance",
            sort="Running for",
            links=only(h, "instance", "${__value.raw}"),
        ),
        heatmap("Lag heatmap", "How late requests were sent, all instances together.", warmth(h, LAG), (12, 8), "s"),
        lines(
            "Lag p99 of the latest instances",
            "Which instance is starved.",
            [query(worst(lag, quantile(h, 0.99, LAG, "instance", grown_to_the_end), "instance"), "{{instance}}")],
            (12, 8),
            "s",
            table=True,
        ),
        lines(
            "CPU per request",
            "Processor time of the whole process for each request sent, scrapes included; high at low rates.",
            [query(f"{total(rate(CPU))}\n/\n{total(rate(started))}", "per request")],
            (8, 7),
            "s",
        ),
        lines(
            "Memory",
            "All instances together. Virtual memory is reserved, not used.",
            [query(total(rss), "resident"), query(total(vsize), "virtual")],
            (8, 7),
            "bytes",
        ),
        lines(
            "Reloads",
            "How many within the window, by result. A refused one changes nothing.",
            [query(total(reloads, "result"), "{{result}}")],
            (8, 7),
            "none",
        ),
        lines(
            "Removed targets",
            "Requests of targets that went from the configuration, by stage, within the window: with them the sums over "
            "the process stay exact.",
            [query(total(retired, "stage"), "{{stage}}")],
            (12, 7),
            "none",
            table=True,
        ),
        lines(
            "Log lines lost",
            "Because the log pipe was full or closed; traffic does not wait for a log.",
            [query(total(rate(of_process("hammerd_log_lines_lost_total"))), "lost")],
            (12, 7),
            "cps",
        ),
        lines(
            "Configuration sources",
            "Of configurations that are fetched: questions by what came of them, within the window. unchanged is the usual "
            "answer; while none of use comes, what the source said last goes on.",
            [
                query(total(lately(of_process("hammerd_config_source_fetches_total")), "result"), "{{result}}"),
                query(total(lately(of_process("hammerd_config_source_failures_total")), "reason"), "failed: {{reason}}"),
            ],
            (12, 7),
            "none",
            hide_zeros=True,
        ),
        lines(
            "Source not heard for",
            "How long a change of a fetched configuration may have gone unnoticed; 0 where nothing is fetched.",
            [query(f"max by (instance) ((time() - {heard}) * ({heard} > bool 0))", "{{instance}}")],
            (12, 7),
            "s",
        ),
        lines(
            "Replicas by standing",
            "How processes came to their part of the streams, and how many share them. Below that: a stripe is not sent. "
            "unlisted and unknown send nothing.",
            [
                query(total(of_process("hammerd_shard_standing"), "standing"), "{{standing}}"),
                query(f"max({of_process('hammerd_shard_replicas')})", "share the streams"),
            ],
            (8, 7),
            "none",
            hide_zeros=True,
        ),
        lines(
            "Membership",
            "Changes of stripe, and rounds in which the list of members was asked for, within the window. While it can't "
            "be read the last one holds.",
            [
                query(total(lately(of_process("hammerd_shard_changes_total"))), "changes"),
                query(total(lately(of_process("hammerd_shard_lookups_total")), "result"), "lookups: {{result}}"),
            ],
            (8, 7),
            "none",
        ),
        lines(
            "Clock against grid",
            "How far the wall clock is from where shared arrivals are, of the instances where it was furthest. They follow "
            "it slowly.",
            [query(worst(f"max by (instance) (abs({clock}))", f"max by (instance) ({peak(clock)})", "instance"), "{{instance}}")],
            (8, 7),
            "s",
        ),
    ]


ROWS = (
    ("Targets", True, targets),
    ("Failures, answers and drops", False, failures),
    ("Where the time goes", False, phases),
    ("Connections and bytes", False, connections),
    ("Names and certificates", False, names_and_certificates),
    ("hammerd itself", False, itself),
)
