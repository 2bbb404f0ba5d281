"""The command line in processes of its own, without waiting for their imports.

A nursery is a process that has imported what the command line imports, and computed nothing. It forks for each command,
which so begins 0.1 s after it was asked for, not 3, with a memory, environment, folder, signals and exit code of its own.
What depends on the imports themselves (which of them a command needs, how hashes fall) wants a true process: `python -m cli`.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


class Nursery:
    """Where processes of the command line come from: `begin` answers with one, as `subprocess.Popen` does."""

    def __init__(self) -> None:
        places = [str(ROOT), *sys.path]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={name: value for name, value in os.environ.items() if name != "COLUMNS"}  # each command has its own width
            | {"PYTHONPATH": os.pathsep.join(places)},
        )  # fmt: skip

    def begin(
        self,
        words: Sequence[object],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        output: str = os.devnull,
        errors: str = os.devnull,
        **limits: Any,
    ) -> Child:
        """The words of a command in a folder; what it writes goes to files. limits: see `limited`."""
        asked = {
            "words": [*map(str, words)],
            "folder": str(folder),
            "output": output,
            "errors": errors,
            "limits": limits,
        }
        return Child(self, self.ask("begin", **asked, environment=dict(environment or os.environ)))

    def ask(self, question: str, **details: Any) -> Any:
        """One question, one answer."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"question": question, **details}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """No more processes."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


class Child:
    """A process that was begun, used as a `subprocess.Popen`."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.nursery, self.pid, self.returncode = nursery, pid, None

    def poll(self) -> int | None:
        """Its exit code, the signal that ended it as a negative number, or None while it runs."""
        if self.returncode is None:
            self.returncode = self.nursery.ask("poll", pid=self.pid)
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        """Its exit code, when it has ended; killed where that takes longer than the timeout, in seconds."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """A signal, where it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def serve() -> None:
    """Answer questions until nobody asks any more."""
    import_all()
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["question"] == "begin":
            answer = os.fork()
            if answer == 0:
                become(asked)
        else:
            pid, status = os.waitpid(asked["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


IMPORTED = (
    "cli", "matplotlib.backends.backend_svg", "scipy.stats", "sklearn.datasets", "torch._dynamo", "torch._inductor.fx_passes",
)  # fmt: skip


def import_all() -> None:
    """What commands import, and what torch does when it records for the first time: no thread, no backward pass."""
    import lifelong
    import scenarios

    for name in IMPORTED:
        importlib.import_module(name)
    for package in (lifelong, scenarios):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def become(asked: dict[str, Any]) -> None:
    """Be the command: its folder, environment, streams and words; never returns."""
    for number, path, how in (
        (0, os.devnull, os.O_RDONLY),
        (1, asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, asked["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, how, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path[0] = asked["folder"]  # as `python -m` does
    sys.argv = [str(ROOT / "cli.py"), *asked["words"]]
    limited(**asked["limits"])
    code: Any = 0
    try:
        import cli

        cli.main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def limited(file_size: int = -1, memory: int = -1, user: int = -1, dies_at: int = -1, counts: str = "") -> None:
    """What a process may not do: write files above a size, as on a full disk; take memory; write what is not a user's.

    dies_at: it is killed when it is about to change the disk for this time, counted from 0: to open a file for writing, to
    rename, to remove, to make a folder. counts: a file that says at its end how often it did.
    """
    import resource

    if file_size >= 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if memory >= 0:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if user >= 0 and os.getuid() == 0:  # whom permissions stop
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if dies_at >= 0 or counts:
        _watch_the_disk(dies_at, counts)


def _watch_the_disk(dies_at: int, counts: str) -> None:
    seen = 0

    def look(event: str, details: tuple[Any, ...]) -> None:
        nonlocal seen
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if event == "open" and isinstance(details[0], str | os.PathLike | bytes) and os.fspath(details[0]) != counts:
            changes = bool(set(str(details[1] or "")) & set("wax+")) or bool(
                (details[2] or 0) & (os.O_WRONLY | os.O_RDWR)
            )
            changes &= not os.fspath(details[0]).startswith("/dev/") if isinstance(details[0], str) else True
        if changes:
            if seen == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1
            if counts:
                Path(counts).write_text(str(seen))

    sys.addaudithook(look)


if __name__ == "__main__":
    serve()
