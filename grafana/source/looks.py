"""What the panels have in common: thresholds, links, a line for each quantile, variables and marks."""

import kit
from kit import GREEN, ORANGE, RED, YELLOW, query, steps
from queries import RELOAD_OK, RELOADED, of_process, quantile, quantile_name

QUANTILES = (0.5, 0.9, 0.99, 0.999)

# As the rules have them (rules/): the objectives, and the lateness at which hammerd's own figures stop being trusted.
ERROR_STEPS = steps((GREEN, None), (YELLOW, 0.001), (RED, 0.01))
LATENCY_STEPS = steps((GREEN, None), (YELLOW, 0.25), (RED, 1))
LAG_STEPS = steps((GREEN, None), (YELLOW, 0.005), (RED, 0.025))
DROP_STEPS = steps((GREEN, None), (YELLOW, 0.0001), (RED, 0.01))
SENT_STEPS = steps((RED, None), (YELLOW, 0.95), (GREEN, 0.99))
EXPIRY_STEPS = steps((RED, None), (ORANGE, 3 * 86400), (YELLOW, 14 * 86400), (GREEN, 30 * 86400))
UNCHECKED_STEPS = steps((GREEN, None), (YELLOW, 1))
NEUTRAL = steps((kit.BLUE, None))
COLORED_CELL = {"type": "color-text"}


def quantiles(histograms, series, over=QUANTILES):
    """A line for each quantile."""
    return [query(quantile(histograms, q, series), quantile_name(q)) for q in over]


def warmth(histograms, series):
    """The query of a heatmap."""
    expr, form, legend = histograms.heat(series)
    return [query(expr, legend, format=form)]


def only(histograms, variable, value):
    """A link to the same dashboard with one choice alone, all others kept."""
    kept = [f"${{{name}:queryparam}}" for name in ("datasource", "job", "instance", "target") if name != variable]
    url = "&".join([f"/d/{histograms.uid}?{kept[0]}", *kept[1:], f"var-{variable}={value}", "${__url_time_range}"])
    return [{"title": f"Only {value}", "url": url, "targetBlank": False}]


def of_line(histograms):
    """The link of a line that has a target."""
    return only(histograms, "target", "${__field.labels.target}")


def annotations():
    """What changed."""
    start = of_process("process_start_time_seconds")
    at_value = {"useValueForTime": True}
    return [
        kit.annotation(
            "Configuration applied", f"{RELOADED} * 1000", "blue", "Configuration applied", "{{instance}}", **at_value
        ),
        kit.annotation(
            "Configuration refused",
            f"1 - {RELOAD_OK}",
            "red",
            "Configuration refused, the one before it runs",
            "{{instance}}",
        ),
        kit.annotation("hammerd started", f"{start} * 1000", "green", "hammerd started", "{{instance}}", **at_value),
        kit.annotation(
            "Alerts",
            'max by (alertname, target, instance) (ALERTS{alertname=~"Hammerd.+", alertstate="firing", job=~"$job|"})',
            "orange",
            "{{alertname}}",
            "{{target}} {{instance}}",
        ),
    ]


def variables():
    """What can be chosen."""
    info = 'hammerd_target_info{job=~"$job", instance=~"$instance"}'
    return [
        kit.datasource_variable(),
        kit.label_variable("job", "label_values(hammerd_build_info, job)"),
        kit.label_variable("instance", 'label_values(hammerd_build_info{job=~"$job"}, instance)'),
        kit.label_variable("target", f"label_values({info}, target)"),
        kit.choice_variable("top", "Worst", ("5", "10", "20", "50"), "10", "How many lines panels of the worst show."),
    ]
