#!/usr/bin/env python3
"""Writes dashboards/*.json; with --check only says whether they are up to date.

One description (source/first_screen.py, source/rows.py) becomes two dashboards, which differ in how histograms are
asked (source/queries.py). Python's standard library is all it takes.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "source"))
sys.dont_write_bytecode = True

import kit  # noqa: E402 (only now is the folder known)
from first_screen import first_screen  # noqa: E402
from looks import annotations, variables  # noqa: E402
from queries import Classic, Native  # noqa: E402
from rows import ROWS  # noqa: E402


def dashboard(histograms):
    """One dashboard."""
    others = {
        "type": "dashboards",
        "title": "Other dashboards of hammerd",
        "tags": ["hammerd"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
    }
    rows = [(title, is_open, row(histograms)) for title, is_open, row in ROWS]
    return {
        "uid": histograms.uid,
        "title": histograms.title,
        "description": histograms.tells,
        "tags": ["hammerd"],
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "links": [others],
        "annotations": {"list": annotations()},
        "templating": {"list": variables()},
        "panels": kit.board(first_screen(histograms), rows),
    }


def main():
    """Writes or checks."""
    stale = []
    for histograms in (Classic, Native):
        path = HERE / "dashboards" / f"{histograms.uid}.json"
        text = json.dumps(dashboard(histograms), indent=2, ensure_ascii=False) + "\n"
        if sys.argv[1:] == ["--check"]:
            stale += [] if path.exists() and path.read_text(encoding="utf-8") == text else [path]
        else:
            path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{path} is not what its source makes: run python3 grafana/generate.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
