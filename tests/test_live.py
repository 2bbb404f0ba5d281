"""What is shown meanwhile: which part of how many, and how long all of it still takes, on a page of 80 columns or in plain lines."""

import io

import pytest
from rich.console import Console

from lifelong.core.loop import Progress as LoopEvent
from lifelong.core.stage import Stage
from lifelong.display import live


@pytest.fixture
def terminal(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(live, "errors", console)
    return console


def test_times_are_rounded_as_far_as_they_are_known():
    assert [live.in_time(s) for s in (0.4, 89, 91, 3540, 3600, 7830)] == [
        "0 s",
        "89 s",
        "2 min",
        "59 min",
        "1 h 0 min",
        "2 h 10 min",
    ]


def test_what_is_left_of_all_runs_is_what_those_so_far_took():
    turns = live.Turns(4)
    assert turns.place == "1 of 4" and turns.left(6, 4) == 4 + 3 * 10
    turns.took += [10.0, 20.0]
    assert turns.place == "3 of 4" and turns.left(10, 5) == 5 + (10 + 20 + 15) / 3
    turns.took.append(15.0)
    assert turns.left(1, 2) == 2


def test_stages_are_plain_lines_outside_a_terminal(capsys):
    with live.Stages("title") as tell:
        tell(Stage(1, 2, "learning"))
        tell("a word")
    assert capsys.readouterr().err == "1 of 2: learning\na word\n"
    with live.Stages("title", quiet=True) as tell:
        tell(Stage(1, 2, "learning"))
    assert capsys.readouterr().err == ""


def test_stages_say_how_long_all_of_them_still_take(terminal):
    shown = live.Stages("title")
    with shown as tell:
        tell(Stage(1, 3, "x" * 90))
        shown.began -= 60  # a minute for the first of three: two minutes for the others
        tell(Stage(2, 3, "adapting"))
    lines = terminal.file.getvalue().replace("\r", "\n").splitlines()
    assert any("2 of 3: adapting" in line and "left 2 min" in line for line in lines)
    assert max(len(line.partition("\x1b[2K")[2] or line) for line in lines) <= 80


def test_stages_that_were_kept_took_no_time(terminal):
    shown = live.Stages("title")
    with shown as tell:
        tell(Stage(5, 8, "the first that is learned"))
        shown.began -= 60
        tell(Stage(6, 8, "adapting"))
    assert "left 3 min" in terminal.file.getvalue() and "left 0 s" not in terminal.file.getvalue()


def test_what_is_left_counts_every_fleet_and_is_never_below_nothing(terminal):
    """A run that goes on within its first fleet, of tasks of unlike length, and then begins its second."""
    watcher = live.Watcher("title")
    with watcher as tell:
        tell(LoopEvent(2, 50, 3, 100, (0, 1), done=250, total=300, fleets=2))
        watcher.began -= 48
        tell(LoopEvent(0, 50, 3, 100, (2,), done=50, total=300, fleet=1, fleets=2))
    shown = terminal.file.getvalue()
    assert "58 %" in shown and "left 2 min" in shown  # 100 of 600 iterations took 48 s, 250 are to come
    assert "left -" not in shown
