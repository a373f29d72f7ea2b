"""Grafana's JSON: panels, variables, annotations and where they stand. Knows nothing of hammerd."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GRID_WIDTH = 24
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"


def query(expr, legend="", **more):
    """A query over the whole time range, drawn as lines."""
    return {"expr": expr, "legendFormat": legend or "__auto", "range": True, **more}


def instant(expr):
    """A query at the end of the time range, as rows of a table."""
    return {"expr": expr, "legendFormat": "__auto", "format": "table", "instant": True, "range": False}


def steps(*pairs):
    """Thresholds: the first colour holds from below, each further one from its value up."""
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in pairs]}


def override(matcher, options, **properties):
    """Properties of the fields that match; `__` in a name stands for a dot."""
    listed = [{"id": name.replace("__", "."), "value": value} for name, value in properties.items()]
    return {"matcher": {"id": matcher, "options": options}, "properties": listed}


def panel(kind, title, description, queries, size, unit, **parts):
    """What every panel has; `parts` go over it."""
    width, height = size
    targets = [
        {"datasource": DATASOURCE, "editorMode": "code", "refId": chr(ord("A") + n), **each}
        for n, each in enumerate(queries)
    ]
    defaults = {"color": {"mode": "palette-classic"}, "thresholds": steps((GREEN, None)), "unit": unit}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {
            "defaults": {**defaults, **parts.get("defaults", {})},
            "overrides": parts.get("overrides", []),
        },
        "options": parts.get("options", {}),
        "targets": targets,
        "transformations": parts.get("transformations", []),
        "pluginVersion": "11.6.0",
    }


# A series that is zero all the time is drawn (the panel isn't empty), but clutters neither legend nor tooltip.
HIDE_ZEROS = override(
    "byValue",
    {"op": "gte", "reducer": "allIsZero", "value": 0},
    custom__hideFrom={"legend": True, "tooltip": True, "viz": False},
)


def lines(title, description, queries, size, unit, **parts):
    """Lines over time. `parts`: stacked, table (a legend with figures), hide_zeros, thresholds, links, and as for panel."""
    stacked, table = parts.get("stacked", False), parts.get("table", False)
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 40 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "axisSoftMin": 0,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if "thresholds" in parts else "off"},
    }
    defaults = {"custom": custom, "min": 0, "links": parts.get("links", []), **parts.get("defaults", {})}
    if "thresholds" in parts:
        defaults["thresholds"] = parts["thresholds"]
    legend = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
    if table:
        legend.update(displayMode="table", placement="right", calcs=["lastNotNull", "max"], sortBy="Max", sortDesc=True)
    return panel(
        "timeseries",
        title,
        description,
        queries,
        size,
        unit,
        defaults=defaults,
        overrides=[*parts.get("overrides", []), *([HIDE_ZEROS] if parts.get("hide_zeros") else [])],
        options={"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}},
    )


def stat(title, description, queries, size, unit, thresholds, **defaults):
    """One figure, coloured by its thresholds, over a hint of where it comes from."""
    return panel(
        "stat",
        title,
        description,
        queries,
        size,
        unit,
        defaults={"color": {"mode": "thresholds"}, "thresholds": thresholds, **defaults},
        options={
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )


def heatmap(title, description, queries, size, unit):
    """How many values fell where, over time."""
    return panel(
        "heatmap",
        title,
        description,
        queries,
        size,
        unit,
        defaults={"custom": {"scaleDistribution": {"type": "linear"}}},
        options={
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"unit": "short"},
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
            "exemplars": {"color": "rgba(87, 148, 242, 0.9)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": False},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
        },
    )


def table(title, description, columns, size, unit, key, sort, **parts):
    """One row for each value of the label `key`. A column: (title, expression, properties of its field).

    A column without an expression shows a label that another column's series carry.
    """
    queries = [instant(expr) for _, expr, _ in columns if expr]
    letters = iter(chr(ord("A") + n) for n in range(len(queries)))
    fields = [f"Value #{next(letters)}" if expr else title.lower() for title, expr, _ in columns]
    titles = [title for title, _, _ in columns]
    linked = [override("byName", key.capitalize(), links=parts["links"])] if "links" in parts else []
    hidden = {field: True for field, (_, _, properties) in zip(fields, columns) if properties is None}
    return panel(
        "table",
        title,
        description,
        queries,
        size,
        unit,
        defaults={
            "color": {"mode": "thresholds"},
            "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": False},
        },
        overrides=linked + [override("byName", title, **properties) for title, _, properties in columns if properties],
        options={
            "cellHeight": "sm",
            "showHeader": True,
            "footer": {"show": False, "enablePagination": True, "reducer": ["sum"], "fields": "", "countRows": False},
            "sortBy": [{"displayName": sort, "desc": True}],
        },
        transformations=[
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True, **hidden},
                    "indexByName": {field: n for n, field in enumerate([key, *fields])},
                    "renameByName": {key: key.capitalize(), **dict(zip(fields, titles))},
                },
            },
        ],
    )


def place(panels, top):
    """Sets panels beside each other from the left, a new line when one is full; returns the line below them."""
    x, y, below = 0, top, top
    for each in panels:
        where = each["gridPos"]
        if x + where["w"] > GRID_WIDTH:
            x, y = 0, below
        where.update(x=x, y=y)
        x += where["w"]
        below = max(below, y + where["h"])
    return below


def board(first_screen, rows):
    """The list of panels: those that need no click, then rows of more. A row: (title, open at first, panels)."""
    placed, top = [*first_screen], place(first_screen, 0)
    for title, is_open, panels in rows:
        row = {
            "type": "row",
            "title": title,
            "collapsed": not is_open,
            "gridPos": {"x": 0, "y": top, "w": GRID_WIDTH, "h": 1},
            "panels": [] if is_open else panels,
        }
        placed += [row, *panels] if is_open else [row]
        below = place(panels, top + 1)
        # A closed row takes one line, whatever is in it.
        top = below if is_open else top + 1
    everything = [each for outer in placed for each in (outer, *outer.get("panels", []))]
    for number, each in enumerate(everything, start=1):
        each["id"] = number
    return placed


def label_variable(name, expression, **more):
    """A variable whose choices are a label's values; several or all of them may be chosen."""
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": expression,
        "query": {"query": expression, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "options": [],
        "regex": "",
        **more,
    }


def choice_variable(name, label, values, chosen, description):
    """A variable with fixed choices, one of which is chosen at first."""
    options = [{"selected": value == chosen, "text": value, "value": value} for value in values]
    return {
        "name": name,
        "label": label,
        "description": description,
        "type": "custom",
        "query": ",".join(values),
        "options": options,
        "current": options[values.index(chosen)],
        "multi": False,
        "includeAll": False,
        "hide": 0,
    }


def datasource_variable():
    """The Prometheus to ask."""
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "options": [],
        "refresh": 1,
        "regex": "",
    }


def annotation(name, expr, color, title, text, **more):
    """Marks in time. With `useValueForTime` a sample's value is the instant, in milliseconds."""
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expr,
        "step": "15s",
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "",
        **more,
    }
