"""hammerd as a container's description would run it: its arguments, its variables, its files, its probes, its end.

Files that a container has under /etc and /run are in a folder here; their paths in arguments and files are changed to that. The
port is the container's own: the script runs in a private network (see run).
"""

import os
import re
import signal
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

from report import hammerd, run

# Far more than any of this takes; a busy machine stalls now and then.
PATIENCE_SECONDS = 30


class Container:
    """What hammerd is given. `files` maps a mounted folder to its files."""

    def __init__(self, folder, args, env, files=None):
        self.folder = Path(folder)
        self.args = [self.here(arg) for arg in args]
        self.env = env
        for mount, texts in (files or {}).items():
            self.project(mount, texts)

    def here(self, path):
        return f"{self.folder}{path}" if path.startswith(("/etc/", "/run/")) else path

    def project(self, mount, texts):
        """As the kubelet does: names are links into ..data, which is a link to the folder of today, changed in one step."""
        place = Path(self.here(mount))
        place.mkdir(parents=True, exist_ok=True)
        today = place / f"..{time.monotonic_ns()}"
        today.mkdir()
        for name, text in texts.items():
            (today / name).write_text(re.sub(r'"(?=/(etc|run)/)', f'"{self.folder}', text))
        link = place / "..data_tmp"
        link.symlink_to(today.name)
        link.rename(place / "..data")
        for name in texts:
            if not (place / name).is_symlink():
                (place / name).symlink_to(f"..data/{name}")

    def check(self):
        """What `hammerd check` says of it."""
        config = [self.args[at + 1] for at, arg in enumerate(self.args) if arg == "--config"]
        named = [word for path in config for word in ("--config", path)]
        return run(hammerd(), "check", *named, env=self.env, timeout=PATIENCE_SECONDS)

    def start(self):
        return Running(self)


class Running:
    """A hammerd that runs until the end of the `with`."""

    def __init__(self, container):
        self.log = open(container.folder / "log", "w+")
        self.process = subprocess.Popen(
            [hammerd(), *container.args], env=container.env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def get(self, port, path):
        """Status and body; status 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_for(self, condition):
        """Whether it came true while the process lived."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if condition():
                return True
            time.sleep(0.05)
        return False

    def answers(self, port, path):
        return self.wait_for(lambda: self.get(port, path)[0] == 200)

    def setting(self, port, section, key):
        """Of the configuration that runs."""
        return tomllib.loads(self.get(port, "/config")[1])[section][key]

    def shutdown_seconds(self, port):
        """How long it may take to end."""
        return sum(seconds(self.setting(port, "shutdown", key)) for key in ("grace", "linger"))

    def terminate(self, port):
        """SIGTERM, one more scrape, and the end: its exit code and how long it took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        while self.process.poll() is None and time.monotonic() < begun + PATIENCE_SECONDS:
            self.get(port, "/metrics")
            time.sleep(0.05)
        return self.process.poll(), time.monotonic() - begun

    def words(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()


def seconds(duration):
    """Of a duration as /config writes it: 10s, 500ms, 1m1s."""
    units = {"us": 0.000001, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    parts = re.findall(r"(\d+)([a-z]+)", duration)
    if "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"not a duration: {duration}")
    return sum(int(number) * units[unit] for number, unit in parts)


def private_network():
    """Whether this process is alone with its loopback: ports are then its own."""
    return os.environ.get("HAMMERD_PRIVATE_NETWORK") == "yes"
