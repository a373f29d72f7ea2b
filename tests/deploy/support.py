"""What the scripts beside this file share: commands, waiting, servers, scrapes, and a machine of their own."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = (ROOT / os.environ.get("CARGO_TARGET_DIR", "target")).resolve()
# Servers live in sbin, which is not on everybody's path; what came from PyPI lives beside what cargo builds.
os.environ["PATH"] += f":/usr/local/sbin:/usr/sbin:/sbin:{TARGET}/peers/judges/bin:{TARGET}/tools/bin"
# Long enough for a machine that stalls; nothing is expected to take it.
PATIENCE = 60


class Failed(Exception):
    """A check that does not hold."""


def main(script):
    """Runs `script`, a function; a check that fails, or a command, ends the process with 1."""
    try:
        script()
    except (Failed, subprocess.CalledProcessError) as error:
        sys.exit(f"FAILED: {error}")


def step(text):
    """Says what comes now."""
    print(f"-- {text}", flush=True)


def check(holds, what):
    """What has to be true."""
    if not holds:
        raise Failed(what)


def same(found, wanted, what):
    """What has to be equal."""
    check(found == wanted, f"{what}: {found!r}, wanted {wanted!r}")


def need(**packages):
    """Ends the script when a program is missing: `need(buildah="Debian buildah")`."""
    missing = [f"{name} ({where})" for name, where in packages.items() if not shutil.which(name.replace("_", "-"))]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; tests/run installs it")


def need_root():
    """Namespaces, mounts and containers take root here; without it the script is skipped by name, as tests are."""
    if os.geteuid() == 0:
        return
    name, why = f"deploy/{Path(sys.argv[0]).name}", "needs root"
    line = f"SKIPPED {name}: {why}"
    print(line)
    if record := os.environ.get("HAMMERD_TESTS_SKIPPED"):
        with open(record, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    sys.exit(0)


def run(*command, **options):
    """Runs a command, which has to succeed, and returns what it printed. Its errors are for all to see."""
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, check=True, text=True, stdout=subprocess.PIPE, **options).stdout.strip()


def run_json(*command):
    """What a command printed, as JSON."""
    return json.loads(run(*command))


def refused(*command, **options):
    """Runs a command that has to fail and returns its exit code and all it said."""
    ended = subprocess.run(
        [str(part) for part in command], check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )
    check(ended.returncode != 0, f"{' '.join(map(str, command))} was expected to fail: {ended.stdout}")
    return ended.returncode, ended.stdout


def wait_until(what, probe, patience=PATIENCE):
    """Asks `probe` until it returns something true, and returns that."""
    end = time.monotonic() + patience
    while True:
        found = probe()
        if found:
            return found
        check(time.monotonic() < end, f"{what}: not within {patience} s")
        time.sleep(0.05)


def get(url, timeout=10):
    """The body of an answer, or None when there is none."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.read().decode()
    except OSError:
        return None


class Server:
    """A process that serves until the block ends; what it said is printed when the block fails."""

    def __init__(self, *command, log, **options):
        self.command = [str(part) for part in command]
        self.log = Path(log)
        self.options = options

    def __enter__(self):
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **self.options
            )
        return self

    def __exit__(self, kind, *_):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if kind:
            print(f"--- {self.command[0]}\n{self.log.read_text(errors='replace')[-4000:]}", file=sys.stderr)

    def wait_for(self, url):
        """Waits until it answers."""

        def answer():
            check(self.process.poll() is None, f"{self.command[0]} ended early")
            return get(url)

        return wait_until(f"answer of {url}", answer)


NGINX = """
daemon off; pid {directory}/nginx.pid; error_log stderr; user root; worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log {directory}/access.log; client_body_temp_path {directory}; proxy_temp_path {directory};
    fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:8080; root {directory};
        location = /fast {{ return 200 "ok"; }}
        location = /slow {{ limit_rate 1000; }}
    }}
}}
"""


class Nginx(Server):
    """A target that nobody here wrote, with a log of its own: /fast, and /slow, which takes two seconds."""

    def __init__(self, directory):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.access_log = directory / "access.log"
        (directory / "slow").write_text("x" * 3000)
        (directory / "nginx.conf").write_text(NGINX.format(directory=directory))
        super().__init__("nginx", "-c", directory / "nginx.conf", log=directory / "nginx.log")

    def __enter__(self):
        super().__enter__()
        self.wait_for("http://127.0.0.1:8080/slow")
        # What follows is hammerd's.
        wait_until("its own log", lambda: self.access_log.read_text())
        self.access_log.write_text("")
        return self

    def served(self, path):
        """How many requests for a path it has answered in full."""
        return self.access_log.read_text().count(f'"GET {path} HTTP/1.1" 200 ')


def samples(text):
    """A scrape in the text format: for each name and label set the value."""
    values = {}
    for line in (text or "").splitlines():
        found = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
        if found:
            labels = re.findall(r'([a-z_]+)="([^"]*)"', found[2] or "")
            values[found[1], frozenset(labels)] = float(found[3])
    return values


def value(scrape, name, **labels):
    """The sum over all samples of a scrape's `name` that have `labels`."""
    wanted = set(labels.items())
    return sum(number for (found, have), number in scrape.items() if found == name and wanted <= have)


def settled(targets, served):
    """Nothing was cut off, failed or is unaccounted for, and the server has as many requests as hammerd."""
    for name, target in targets.items():
        same(target["canceled"], 0, f"canceled requests of {name}")
        same(sum(target["failures"].values()), 0, f"failures of {name}")
        same(target["scheduled"], target["started"] + sum(target["dropped"].values()), f"arrivals of {name}")
        same(target["responses"], {"200": target["started"]}, f"answers to {name}")
        same(served(name), target["started"], f"requests that the server has of {name}")


def summary_of(lines):
    """The summary that hammerd prints at its end, among other output in JSON lines."""
    summaries = [line for line in lines.splitlines() if line.startswith("{") and '"targets"' in line]
    check(summaries, f"no summary in {lines[-2000:]!r}")
    return json.loads(summaries[-1])


def in_own_namespaces(*kinds):
    """Runs the script again where its mounts (and its network, for "net") are nobody else's, with a cgroup v2 tree."""
    if os.environ.get("HAMMERD_TESTS_NAMESPACES") == " ".join(kinds):
        run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
        if "net" in kinds:
            run("ip", "link", "set", "lo", "up")
        return
    environment = {**os.environ, "HAMMERD_TESTS_NAMESPACES": " ".join(kinds)}
    options = [f"--{kind}" for kind in ("mount", *kinds)]
    os.execvpe("unshare", ["unshare", *options, sys.executable, "-B", *sys.argv], environment)


def overlay(lower, directory):
    """A root that is `lower`, where whatever is written falls away with our mounts. Needs namespaces of our own."""
    directory.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "tmpfs", directory)
    upper, work, root = (directory / name for name in ("upper", "work", "root"))
    for part in (upper, work, root):
        part.mkdir()
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", root)
    return root
