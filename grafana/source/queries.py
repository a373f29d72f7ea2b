"""PromQL for hammerd's metrics, where classic and native histograms are asked differently.

Every selector names job and instance, and those of targets the target: the dashboard's variables hold everywhere.
"""

OWN = 'job=~"$job", instance=~"$instance"'
TARGETS = OWN + ', target=~"$target"'

# For lines over time; and over all that is shown, for tables and for the choice of the worst.
WINDOW = "[$__rate_interval]"
WHOLE_RANGE = "[$__range]"


def select(name, *matchers, scope=TARGETS):
    """The series of a metric."""
    return name + "{" + ", ".join((scope, *matchers)) + "}"


def of_process(name, *matchers):
    """The series of a metric that has no targets."""
    return select(name, *matchers, scope=OWN)


def rate(series):
    """Per second."""
    return f"rate({series}{WINDOW})"


def grown(series):
    """How much over all that is shown."""
    return f"increase({series}{WHOLE_RANGE})"


def grown_to_the_end(series):
    """The same at every point of a line, so that a choice made by it stays the same over the line."""
    return f"increase({series}{WHOLE_RANGE} @ end())"


def lately(series):
    """How much within the window of a point."""
    return f"increase({series}{WINDOW})"


def peak(series):
    """The largest value over all that is shown, the same at every point of a line."""
    return f"max_over_time({series}{WHOLE_RANGE} @ end())"


def total(series, by=""):
    """The sum, for each value of these labels."""
    return f"sum by ({by}) ({series})" if by else f"sum({series})"


def worst(lines, judged_by, key):
    """The lines of the `$top` that are largest by another measure."""
    return f"{lines}\nand on ({key})\ntopk($top, {judged_by})"


class Classic:
    """Histograms as series of buckets."""

    uid = "hammerd"
    title = "hammerd"
    tells = "Steady traffic, and what came of it. For a Prometheus that stores classic histograms, as all do by default."

    @staticmethod
    def buckets(series, over, by=""):
        """What histogram_quantile takes."""
        name, matchers = series.split("{", 1)
        return total(over(f"{name}_bucket{{{matchers}"), f"{by}, le" if by else "le")

    @staticmethod
    def heat(series):
        """What a heatmap takes, with its format and legend."""
        return Classic.buckets(series, lately), "heatmap", "{{le}}"

    @staticmethod
    def sum_and_count(series, by=""):
        """The two rates that make a mean."""
        name, matchers = series.split("{", 1)
        return tuple(total(rate(f"{name}_{part}{{{matchers}"), by) for part in ("sum", "count"))


class Native:
    """Histograms as single series."""

    uid = "hammerd-native"
    title = "hammerd (native histograms)"
    tells = (
        "Steady traffic, and what came of it, at the full resolution of native histograms: for a Prometheus that is told "
        "to scrape those."
    )

    @staticmethod
    def buckets(series, over, by=""):
        """What histogram_quantile takes."""
        return total(over(series), by)

    @staticmethod
    def heat(series):
        """What a heatmap takes, with its format and legend."""
        # Before Grafana 10.3 native histograms were spoilt by the format "heatmap"; they need none.
        return total(lately(series)), "time_series", ""

    @staticmethod
    def sum_and_count(series, by=""):
        """The two rates that make a mean."""
        summed = total(rate(series), by)
        return f"histogram_sum({summed})", f"histogram_count({summed})"


def quantile(histograms, q, series, by="", over=rate):
    """A quantile, for each value of these labels."""
    return f"histogram_quantile({q}, {histograms.buckets(series, over, by)})"


def share(part, whole, by=""):
    """One rate as a share of another."""
    return f"{total(rate(part), by)}\n/\n{total(rate(whole), by)}"


def share_of_range(part, whole, by="", over=grown):
    """The same over all that is shown."""
    return f"{total(over(part), by)} / {total(over(whole), by)}"


def sent_of_asked(by=""):
    """What was sent, as a share of what was asked for.

    Where less than one a second is asked for, a window has too few arrivals to tell, most often none: there it is the share
    of what came due over all that is shown.
    """
    fast = f"{total(rate(STARTED), by)} / ({total(ASKED, by)} >= 1)"
    return f"{fast}\nor\n{share_of_range(STARTED, SCHEDULED, by, grown_to_the_end)}"


def quantile_name(q):
    """0.999 as p99.9."""
    return f"p{q * 100:g}"


def largest(name):
    """A gauge of the process, of the instances where it was largest."""
    series = of_process(name)
    return worst(f"max by (instance) ({series})", f"max by (instance) ({peak(series)})", "instance")


SCHEDULED = select("hammerd_requests_scheduled_total")
STARTED = select("hammerd_requests_started_total")
FINISHED = select("hammerd_requests_total")
FAILED = select("hammerd_request_failures_total")
DROPPED = select("hammerd_requests_dropped_total")
ASKED = select("hammerd_target_requests_per_second")
LATENCY = select("hammerd_request_latency_seconds")
DURATION = select("hammerd_request_duration_seconds")
PHASE = select("hammerd_request_phase_seconds")
IN_FLIGHT = select("hammerd_in_flight_requests")
IN_FLIGHT_LIMIT = select("hammerd_in_flight_requests_limit")
OPEN = select("hammerd_connections_open")
NOT_AFTER = select("hammerd_tls_peer_certificate_not_after_timestamp_seconds")
LAG = of_process("hammerd_schedule_lag_seconds")
CPU = of_process("process_cpu_seconds_total")
RELOADED = of_process("hammerd_config_last_reload_success_timestamp_seconds")
RELOAD_OK = of_process("hammerd_config_last_reload_successful")
