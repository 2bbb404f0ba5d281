"""Command lines one after another in one process, which costs milliseconds a line; a new process where one is lost.

It reads a line of JSON, {"folder", "words"}, and answers with one: what the command said, and how it ended; null asks for a new process. After
`PATIENCE` seconds of the processor it gets a Ctrl-C, as one who waits for it would give.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from scenarios.machine import used
from tests.processes import import_all

PATIENCE = float(
    os.environ.get("LIFELONG_FUZZ_PATIENCE", "1")
)  # processor seconds, after which what learns is interrupted
LINES = 100  # of one process
ROOM = 6 * 10**9  # bytes that a process may take beyond what it has
SHOWN = 200_000  # characters of what a command said


def serve() -> None:
    """Fork a process for some lines, and another one where it ends or is lost."""
    import_all()
    import lifelong.notation.registry as registry

    for kind in registry.KINDS:
        registry.found(kind)
    _answer({"ready": True})
    while True:
        child = os.fork()
        if child == 0:
            _be_child()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 77:  # nobody asks any more
            return
        if code != 0:
            _answer({"lost": code})


def _be_child() -> None:
    """Answer for some lines; never returns."""
    room = used() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    socket.socket.connect = _no_network  # type: ignore[method-assign] # every socket of this process, whoever makes it
    socket.getaddrinfo = _no_network
    signal.signal(signal.SIGPROF, _interrupt)
    for _ in range(LINES):
        asked = sys.stdin.readline()
        if not asked:
            os._exit(77)
        words = json.loads(asked)
        if words is None:  # a process of its own for what follows
            break
        _answer(_done(words))
    os._exit(0)


def _no_network(*_: Any, **__: Any) -> Any:
    raise OSError(101, "Network is unreachable")


def _interrupt(number: int, frame: Any) -> None:
    """Remember where the command is, and press Ctrl-C."""
    _PLACE[:] = [f"{f.f_code.co_filename}:{f.f_code.co_name}" for f, _ in traceback.walk_stack(frame)]
    os.kill(os.getpid(), signal.SIGINT)


_PLACE: list[str] = []


def _answer(about: dict[str, Any]) -> None:
    os.write(_CHANNEL, (json.dumps(about) + "\n").encode())


_CHANNEL = os.dup(1)


def _done(asked: dict[str, Any]) -> dict[str, Any]:
    """Run the words of a command in a folder, and say how it ended."""
    import cli

    os.chdir(asked["folder"])
    for number in (1, 2):
        opened = os.open(f".said{number}", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    _PLACE.clear()
    sys.argv = ["lifelong", *asked["words"]]
    sys.path[0] = asked["folder"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began, code = time.process_time(), 0
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        try:
            cli.main()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    seconds = time.process_time() - began
    try:
        sys.stdout.flush()
    except Exception:  # what is left in the buffer cannot be written: the line failed, as it would for a user
        traceback.print_exc()
    sys.stderr.flush()
    out, errors = (Path(f".said{number}").read_bytes()[:SHOWN].decode(errors="replace") for number in (1, 2))
    return {"code": code, "out": out, "errors": errors, "seconds": seconds, "place": _PLACE}


if __name__ == "__main__":
    serve()
