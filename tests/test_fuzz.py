"""No command line, however odd, gives a traceback, a hang, a wrong exit code or an endless message.

`LIFELONG_FUZZ=20000 pytest tests/test_fuzz.py` tries so many lines, from the seed LIFELONG_FUZZ_SEED on; `python -m tests.fuzz`
says more of them.
"""

from __future__ import annotations

import itertools
import os

import pytest

from tests.fuzz.lines import Lines
from tests.fuzz.model import FILES, LEFT
from tests.fuzz.verdict import LONGEST, Trial, Trials

COUNT = int(os.environ.get("LIFELONG_FUZZ", "200"))
SEED = int(os.environ.get("LIFELONG_FUZZ_SEED", "0"))


def test_no_line_fails(tmp_path):
    trials = Trials(tmp_path / "fuzz")
    try:
        trials.prepare(LEFT, FILES)
        trials.try_all(itertools.islice(Lines(SEED), COUNT))
    finally:
        trials.close()
    assert trials.lines == COUNT
    assert not trials.failures, {
        failure: [(t.words, t.errors[-500:]) for t in some[:3]] for failure, some in trials.failures.items()
    }
    codes = {ended.rpartition(" ")[2] for ended in trials.ended}
    assert {"0", "2"} <= codes  # some lines were sound, and some were not


def test_lines_are_functions_of_the_seed_and_reach_every_command():
    first, again, other = (list(itertools.islice(Lines(seed), 400)) for seed in (3, 3, 4))
    assert first == again and first != other
    seen = {words[0] for words in first if words}
    assert set(Lines(0).commands) and {path[0] for path in Lines(0).commands} <= seen
    flags = {word.partition("=")[0] for words in first for word in words if word.startswith("--")}
    known = {flag for command in Lines(0).commands.values() for parameter in command.params for flag in parameter.opts}
    assert len(known & flags) > 0.8 * len({flag for flag in known if flag.startswith("--")})


GOOD = "error: no such thing\n"
WRONG = {
    "a traceback": (Trial(["run"], 1, errors='Traceback (most recent call last):\n  File "a"\nKeyError: 3\n'), "traceback: KeyError: 3"),
    "an exit code": (Trial(["run"], 3, errors=GOOD), "exit code 3"),
    "a signal": (Trial(["run"], -11), "exit code -11"),
    "a hang": (Trial(["run"], None), "hang"),
    "a slow one": (Trial(["run"], 2, errors=GOOD, seconds=11.0), "slow"),
    "a long message": (Trial(["run"], 2, errors="error: " + "a" * LONGEST + "\n"), "long message"),
    "long output": (Trial(["show", "a"], 0, out="a" * (LONGEST + 1)), "long output"),
    "an escape": (Trial(["run"], 2, errors="error: \x1b[31mred\n"), "steers the terminal"),
    "two errors": (Trial(["run"], 2, errors=GOOD + GOOD), "exit code 2 without one line that says why, and says it last"),
    "words after it": (Trial(["run"], 2, errors=GOOD + "more\n"), "exit code 2 without one line that says why, and says it last"),
    "silence": (Trial(["run"], 2), "exit code 2 without one line that says why, and says it last"),
    "stopped silently": (Trial(["run"], 1), "exit code 1 without a word"),
    "an error that is none": (Trial(["run"], 0, errors=GOOD), "exit code 0 with an error"),
}  # fmt: skip


@pytest.mark.parametrize("trial, failure", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_seen(trial, failure):
    assert trial.failure == failure


@pytest.mark.parametrize(
    "trial", [Trial(["run"], 0, out="a table"), Trial(["run"], 2, errors="note: so\n" + GOOD), Trial(["run"], 130)]
)
def test_what_is_right_passes(trial):
    assert not trial.failure


PLANTED = """
import json, os, sys, time
answer = lambda **about: print(json.dumps(about), flush=True)
answer(ready=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked is None:
        continue
    word = asked["words"][0]
    if word == "sleeps":
        time.sleep(60)
    said = {"raises": "Traceback (most recent call last):\\nKeyError: 1", "talks": "error: " + 400 * "a"}.get(word, "error: so")
    answer(code=1 if word == "raises" else 2, out="", errors=said + "\\n", seconds=0.0, place=[])
"""


def test_what_a_process_does_wrong_is_counted(tmp_path, monkeypatch):
    """A traceback, a hang and an endless message of a command line that has them."""
    monkeypatch.setattr("tests.fuzz.verdict.LOST", 1.0)
    (tmp_path / "planted.py").write_text(PLANTED)
    trials = Trials(tmp_path / "fuzz", (str(tmp_path / "planted.py"),))
    try:
        trials.prepare([], {"a": b""})
        trials.try_all([["good"], ["raises"], ["sleeps"], ["talks"], ["good"]])
    finally:
        trials.close()
    assert {failure: len(some) for failure, some in trials.failures.items()} == {
        "traceback: KeyError: 1": 1, "hang": 1, "long message": 1}  # fmt: skip
    assert trials.lines == 5
