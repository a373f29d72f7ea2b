//! The dashboards as Grafana reads them: panels with queries, and variables in those.

use std::path::PathBuf;

use serde_json::Value;

/// The folder of dashboards, rules and provisioning.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("grafana")
}

/// One file of `grafana/dashboards`.
pub(crate) struct Dashboard {
    /// Its name.
    pub(crate) file: &'static str,
    /// Its content.
    pub(crate) json: Value,
}

/// One panel, not a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel<'a>(pub(crate) &'a Value);

/// Where a panel stands, in units of the grid of 24 columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) x: u64,
    pub(crate) y: u64,
    pub(crate) w: u64,
    pub(crate) h: u64,
}

/// What somebody chose of the variables; regular expressions, as Grafana makes of a choice.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) job: String,
    pub(crate) instance: String,
    pub(crate) target: String,
}

// === impl Dashboard ===

impl Dashboard {
    /// Both.
    pub(crate) fn all() -> [Self; 2] {
        ["hammerd.json", "hammerd-native.json"].map(|file| {
            let text = std::fs::read_to_string(folder().join("dashboards").join(file)).expect("a dashboard");
            Self { file, json: serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}")) }
        })
    }

    /// All panels and rows, those in closed rows included.
    pub(crate) fn everything(&self) -> Vec<&Value> {
        let outer = list(&self.json["panels"]);
        outer.iter().flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"]))).collect()
    }

    /// All panels, those in closed rows included.
    pub(crate) fn panels(&self) -> Vec<Panel<'_>> {
        self.everything().into_iter().filter(|panel| panel["type"] != "row").map(Panel).collect()
    }

    /// Its variables.
    pub(crate) fn variables(&self) -> &[Value] {
        list(&self.json["templating"]["list"])
    }

    /// The variable of that name.
    #[track_caller]
    pub(crate) fn variable(&self, name: &str) -> &Value {
        let found = self.variables().iter().find(|variable| variable["name"] == name);
        found.unwrap_or_else(|| panic!("{}: no variable {name}", self.file))
    }

    /// Its annotations.
    pub(crate) fn annotations(&self) -> &[Value] {
        list(&self.json["annotations"]["list"])
    }
}

// === impl Panel ===

impl<'a> Panel<'a> {
    /// Its title.
    pub(crate) fn title(self) -> &'a str {
        text(&self.0["title"])
    }

    /// Its queries as they are written.
    pub(crate) fn targets(self) -> &'a [Value] {
        list(&self.0["targets"])
    }

    /// The expressions of its queries.
    pub(crate) fn expressions(self) -> impl Iterator<Item = &'a str> {
        self.targets().iter().map(|target| text(&target["expr"]))
    }

    /// Where it stands.
    pub(crate) fn place(self) -> Place {
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|key| self.0["gridPos"][key].as_u64().expect("a place in the grid"));
        Place { x, y, w, h }
    }
}

// === impl Place ===

impl Place {
    /// Whether both cover a unit of the grid.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }
}

// === impl Choice ===

impl Choice {
    /// All of everything.
    pub(crate) fn all() -> Self {
        let [job, instance, target] = [(); 3].map(|()| ".+".to_owned());
        Self { job, instance, target }
    }

    /// An expression with all variables put in: those of the dashboard, and Grafana's own for a scrape interval of a
    /// second.
    #[track_caller]
    pub(crate) fn fill(&self, expression: &str) -> String {
        let values = [
            ("$__rate_interval", "15s"),
            ("$__range", "1m"),
            ("$instance", &self.instance),
            ("$target", &self.target),
            ("$job", &self.job),
            ("$top", "10"),
        ];
        let filled = values.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
        assert!(!filled.contains('$'), "a variable that nobody knows: {filled}");
        filled
    }
}

/// The elements of a list; none when it is missing.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text; empty when it is missing.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The selectors in an expression: the metric's name, and what stands between the braces.
pub(crate) fn selectors(expression: &str) -> Vec<(&str, &str)> {
    let braces = expression.match_indices('{').map(|(at, _)| at);
    braces
        .map(|at| {
            let before = &expression[..at];
            let start = before.rfind(|c: char| !is_of_name(c)).map_or(0, |end| end + 1);
            let inside = &expression[at + 1..];
            (&before[start..], &inside[..inside.find('}').unwrap_or(inside.len())])
        })
        .collect()
}

/// The names of metrics of hammerd, its process and its recording rules in an expression, in or out of a selector.
pub(crate) fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !is_of_name(c));
    words.filter(|word| word.starts_with("hammerd_") || word.starts_with("process_") || word.contains(":hammerd_"))
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}
