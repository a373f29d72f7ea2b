#!/usr/bin/env python3
"""Writes base/prometheusrule.yaml, the rules of grafana/rules as an object of the Prometheus operator.

Change those, run this, and commit what it writes. A test compares.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
RULES = HERE.parent.parent / "grafana" / "rules"
SOURCES = ["hammerd-recording.yaml", "hammerd-alerts.yaml"]
MADE = HERE / "base" / "prometheusrule.yaml"

HEAD = """\
# Made by deploy/kubernetes/generate.py from grafana/rules. There once for a whole Prometheus, whatever number of hammerds.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: hammerd
spec:
  groups:
"""


def groups(source):
    """The lines below `groups:`."""
    _, found, below = (RULES / source).read_text().partition("\ngroups:\n")
    if not found:
        raise SystemExit(f"{source}: no line `groups:`")
    return below.splitlines()


def rule():
    lines = [line for source in SOURCES for line in groups(source)]
    return HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


if __name__ == "__main__":
    MADE.write_text(rule())
