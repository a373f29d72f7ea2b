"""What every judge of deploy/ shares: where its tools are, how it counts, and what it says at the end."""

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
JUDGES = TARGET / "peers" / "judges"


def tool(name, comes_from):
    """A program of the judges' own, or the script says what is missing and ends."""
    path = JUDGES / "bin" / name
    if not path.exists():
        raise SystemExit(f"missing: {path} ({comes_from}); tests/run installs it")
    return str(path)


def hammerd():
    """The binary that the files in deploy/ are tried with."""
    path = Path(os.environ.get("HAMMERD", TARGET / "debug" / "hammerd"))
    if not path.exists():
        raise SystemExit(f"missing: {path}; cargo build --locked --features http3, or name another with HAMMERD")
    return str(path)


class Report:
    """Counts checks. One that fails is told, and the rest goes on."""

    def __init__(self, name):
        self.name = name
        self.passed = 0
        self.failures = []
        self.skipped = 0

    def check(self, good, where, what):
        if good:
            self.passed += 1
        else:
            self.failures.append(f"{where}: {what}")
            print(f"FAILED {where}: {what}", flush=True)
        return good

    def equal(self, got, wanted, where, what):
        return self.check(got == wanted, where, f"{what} is {got!r}, not {wanted!r}")

    @contextmanager
    def part(self, where):
        """What breaks off in here is a failure, and the parts after it go on."""
        try:
            yield
        except Exception:  # Whatever it is, it is told as it stands.
            self.check(False, where, f"broke off\n{traceback.format_exc()}")

    def skip(self, what, why):
        """As the tests in Rust do: a line for whoever runs tests/run to see at the end."""
        self.skipped += 1
        line = f"{self.name}: {what}: {why}"
        print(f"skipped {line}", flush=True)
        if path := os.environ.get("HAMMERD_TESTS_SKIPPED"):
            with open(path, "a") as skipped:
                skipped.write(line + "\n")

    def finish(self):
        for failure in self.failures:
            print(f"failed: {failure}")
        print(f"{self.passed} passed, {len(self.failures)} failed, {self.skipped} skipped")
        sys.exit(1 if self.failures or not self.passed else 0)


def run(*command, **options):
    """A command's end, with its output as text, whatever its exit code."""
    return subprocess.run([str(word) for word in command], text=True, capture_output=True, **options)


def scratch():
    """A folder that is gone at the end of the `with`."""
    return tempfile.TemporaryDirectory(prefix="hammerd-deploy-")


def copy(source, target):
    """A folder to work in: what tools leave behind stays out of the project."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    return Path(target)
