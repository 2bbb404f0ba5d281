"""Tables run again: what is kept, what is missing, and that the committed page says what the record holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from lifelong.commands.reproduce import reproduce as command
from lifelong.core import loop
from lifelong.core.initialisation import Random
from lifelong.display.sine_curves import sine_figure, write_sine_curves
from lifelong.meta.initialisation_learner import InitialisationLearner
from lifelong.meta.pretraining import pretrain
from lifelong.notation.expression import parse
from lifelong.runs import request
from lifelong.strategies.regularisation.ewc import EWC
from lifelong.studies.published import few_shot, first_losses, online, rows, sine_curves, sines, split_mnist
from lifelong.studies.published import reproduce as tables
from lifelong.studies.published.rows import Row, append, cell_of, cells_of, done, own_cells, stale_cells
from scenarios.catalogue import CATALOGUE, find
from scenarios.episodes import Sines
from scenarios.errors import ConfigurationError
from scenarios.stream import SequentialSchedule, generator
from scenarios.synthetic import blobs

DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True)
class Fake(Row):
    method: str
    asked: list = field(default_factory=list)
    setting: str = "fake"
    on_request: bool = False
    strategy: str = "EWC(strength=1.0)"
    protocol: str = "blobs, 10 iterations"  # type: ignore[assignment]

    @property
    def texts(self):
        return {"strategy": ("strategies", self.strategy)}

    def chunks(self, cells):
        return ((0, 1), (2,))

    def measure(self, seeds, data_root, device):
        self.asked.append(seeds)
        if self.method == "broken":
            raise IndexError("too far")
        return {"accuracy": [seed / 10 for seed in seeds]}


@pytest.fixture
def run(tmp_path, monkeypatch):
    rows = (Fake("a"), Fake("b"), Fake("heavy", on_request=True))
    monkeypatch.setattr(tables, "ROWS", rows)

    def again(name="", **options):
        return list(tables.reproduce(name, "", tmp_path / "record.json", tmp_path / "page.md", "cpu", **options))

    return rows, again, tmp_path / "record.json"


def test_what_is_missing_is_run_once_first_chunks_first(run):
    rows, again, record = run
    lines = again()
    order = [(cell["method"], cell["seeds"]) for cell in cells_of(record)]
    assert order == [("a", [0, 1]), ("b", [0, 1]), ("a", [2]), ("b", [2])]
    assert lines[-1] == "fake-b: 10.00 ± 5.77" and done(cells_of(record), rows[0]) == {0, 1, 2}
    again()
    assert rows[0].asked == [(0, 1), (2,)] and rows[2].asked == []
    again("fake-heavy")
    assert rows[2].asked == [(0, 1), (2,)]


def test_only_the_seeds_that_a_chunk_lacks_are_run(run):
    rows, again, record = run
    append(record, cell_of(rows[0], (1,), {"accuracy": [0.1]}))
    again("fake-a")
    assert rows[0].asked == [(0,), (2,)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", ["a", "b"]),
        ("fake-b,fake-a", ["b", "a"]),
        ("fake-b, fake", ["b", "a"]),
        ("fake-", ["a", "b"]),
        ("fake-heavy", ["heavy"]),
    ],
)
def test_rows_are_named_or_begun_with_commas_between(run, words, found):
    assert [row.method for row in tables.chosen(words)] == found


def test_a_whole_name_is_that_row_alone():
    (row,) = tables.chosen("split-mnist-class-lwf")
    assert row.method == "lwf"
    assert {row.method for row in tables.chosen("split-mnist-class-l")} == {"lwf", "lwf-authors"}


def test_cheap_rows_come_first_by_what_they_took_before(run):
    rows, again, record = run
    for row, seconds in zip(rows, (20.0, 4.0), strict=False):
        append(record, {**cell_of(row, (0, 1), {"accuracy": [0.0, 0.0], "seconds": seconds}), "versions": {}})
    lines = again(cheap_first=True)
    ran = [(cell["method"], len(cell["seeds"])) for cell in cells_of(record)[2:]]
    assert ran[:2] == [("b", 2), ("a", 2)] and sorted(ran[2:]) == [("a", 1), ("b", 1)]
    assert lines[0] == "4 cells to run: about 0.0 hours by earlier ones"


def test_a_row_that_shared_a_start_costs_what_the_start_did(run):
    rows, _, record = run
    for row, taken in zip(rows, ({"seconds": 4.0, "training seconds": 30.0}, {"seconds": 20.0}), strict=False):
        append(record, {**cell_of(row, (0, 1), {"accuracy": [0.0, 0.0], **taken}), "versions": {}})
    assert [some.row.method for some in tables.missing(cells_of(record), rows, cheap_first=True)][:2] == ["b", "a"]


def test_a_cell_that_cannot_be_measured_ends_no_other(run, monkeypatch):
    rows, again, record = run
    broken = Fake("broken")
    monkeypatch.setattr(tables, "ROWS", (broken, *rows))
    with pytest.raises(ConfigurationError, match="fake-broken seeds 0, 1"):
        again()
    assert [cell["method"] for cell in cells_of(record)] == ["a", "b", "a", "b"]
    lines = []
    with pytest.raises(ConfigurationError):
        lines.extend(tables.reproduce("fake-broken", "", record, record.with_name("page.md"), "cpu"))
    assert broken.asked == [(0, 1), (2,), (0, 1), (2,)]


def test_a_cell_says_how_it_was_made_and_how_long_it_took(run):
    _, again, record = run
    again("fake-a")
    cell = cells_of(record)[0]
    assert cell["strategy"] == repr(EWC(1.0))
    assert cell["protocol"] == "blobs, 10 iterations" and cell["versions"] == {"streams": rows.VERSIONS["streams"]}
    assert cell["seconds"] >= 0 and cell["processor seconds"] >= 0 and cell["commit"] == rows.commit()


def test_a_commit_says_whether_the_code_differs_from_it_and_names_no_folder(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=b", *words], check=True)

    module = tmp_path / "lifelong" / "studies" / "published" / "rows.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(rows, "__file__", str(module))
    commit = rows.commit.__wrapped__
    assert commit() == "unknown"
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    clean = commit()
    assert len(clean) == 10 and int(clean, 16)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "reference.json").write_text("[]")  # the record grows as it is run: no other code
    assert commit() == clean
    module.write_text("VERSIONS = {}")
    assert commit() == clean + "+"
    (tmp_path / "site" / "lifelong" / "studies" / "published").mkdir(parents=True)
    monkeypatch.setattr(rows, "__file__", str(tmp_path / "site" / "lifelong" / "studies" / "published" / "rows.py"))
    assert commit() == "unknown"  # installed into somebody else's repository


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"strategy": "EWC(strength=2.0)"}, "of another strategy: `EWC(strength=2.0)`"),
        ({"strategy": "Gone(1)"}, "of another strategy"),
        ({"protocol": "blobs, 20 iterations"}, "of another protocol: blobs, 20 iterations"),
        ({"versions": {"streams": rows.VERSIONS["streams"] - 1}}, "by an older core"),
        ({"versions": None}, "by an older core"),
    ],
)
def test_a_stale_cell_is_shown_and_not_counted_and_run_again(run, change, why):
    (row, *_), again, record = run
    append(record, {**cell_of(row, (0, 1), {"accuracy": [0.9, 0.9]}), **change})
    page = record.with_name("page.md")
    lines = again("fake-a", table_only=True)
    assert lines == ["fake-a: stale"] and not done(cells_of(record), row)
    assert "## Stale cells" in page.read_text() and why in page.read_text() and "90.00 %" in page.read_text()
    assert again("fake-a")[-1] == "fake-a: 10.00 ± 5.77"
    assert row.asked == [(0, 1), (2,)] and len(cells_of(record)) == 3
    assert "Stale" not in page.read_text()


def test_a_text_is_compared_by_what_it_builds():
    """A field at its default, said or not, is the same method."""
    row = Fake("a")
    cell = cell_of(row, (0,), {"accuracy": [0.5]})
    assert own_cells([{**cell, "strategy": "EWC(1.0)"}], row) and stale_cells([{**cell, "strategy": "EWC()"}], row)
    assert own_cells([cell], replace(row, strategy="EWC(strength=1.0, decay=1.0)"))
    assert stale_cells([cell], replace(row, strategy="EWC(strength=1.0, decay=0.9)"))


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    """Each adds 15 cells to one record."""
    code = (
        "import sys; from pathlib import Path; from lifelong.studies.published.rows import append\n"
        "for i in range(15): append(Path(sys.argv[1]), {'setting': sys.argv[2], 'method': str(i), 'seeds': [i]})"
    )
    record = tmp_path / "record.json"
    started = [subprocess.Popen([sys.executable, "-c", code, str(record), name]) for name in "ab"]
    assert [process.wait(60) for process in started] == [0, 0]
    found = {(cell["setting"], cell["method"]) for cell in cells_of(record)}
    assert found == {(name, str(i)) for name in "ab" for i in range(15)}


# --- Split-MNIST's verdicts ---------------------------------------------------------------------------------------


def split_cells(row, *percent):
    measured = {"accuracy": [value / 100 for value in percent], "first losses": "0.69 0.61"}
    return [cell_of(row, tuple(range(len(percent))), measured)]


@pytest.mark.parametrize(
    ("percent", "verdict", "wanted"),
    [
        ((93.7, 93.8, 93.9, 93.6, 93.75), "within", 5),
        ((94.9, 95.0, 95.1, 94.8, 94.95), "**outside**", 5),
        ((88.0, 99.0, 93.0, 91.0, 98.0), "undecided", 20),  # 5 seeds that lie apart: the limit is 6 points
        ((68.0, 79.0, 73.0, 71.0, 78.0), "**outside**", 20),
        ((93.7,), None, 5),
    ],
)
def test_a_limit_above_three_points_decides_nothing_and_wants_all_seeds(percent, verdict, wanted):
    row = split_mnist.SplitMnistRow("er", "domain", 93.75, 0.24)
    cells = split_cells(row, *percent)
    gap = row.gap(cells)
    assert (gap and gap.verdict) == verdict and (verdict is None or verdict in row.verdict(cells))
    assert row.wanted(cells) == wanted and len(row.chunks(cells)) == wanted // 5
    if gap:
        values = torch.tensor(percent, dtype=torch.float64)
        limit = max(3 * (float(values.var()) / len(percent) + 0.24**2) ** 0.5, 1.0)
        assert gap.limit == pytest.approx(limit) and gap.points == pytest.approx(float(values.mean()) - 93.75)


def test_a_published_error_above_half_a_point_wants_all_seeds_from_the_start():
    row = split_mnist.SplitMnistRow("none", "domain", 60.13, 1.66)
    assert row.wanted([]) == 20 and row.chunks([])[-1] == (15, 16, 17, 18, 19)


def test_lwf_without_temperature_squared_is_the_comparable_row_in_all_settings():
    by = {(row.method, row.setting): row for row in split_mnist.ROWS}
    for setting in ("task", "domain", "class"):
        paper, authors = by["lwf", setting], by["lwf-authors", setting]
        assert (paper.mean, paper.error) == (authors.mean, authors.error)
        assert authors.comparable and not paper.comparable
        assert (paper.strategy, authors.strategy) == ("LwF()", "LwF(strength=0.25)")
    paper = by["lwf", "class"]
    cells = split_cells(paper, 28.0, 29.0)
    gap = paper.gap(cells)
    assert gap and gap.verdict == "another formula" and paper.wanted(cells) == 5
    page = " ".join(split_mnist.page_lines(cells))
    assert "`lwf-authors` leaves temperature² out of the loss, as the authors' code does in all settings" in page


@pytest.fixture
def small(monkeypatch):
    """Split-MNIST as 12 iterations on blobs; nothing that an earlier test lost is remembered."""
    table = blobs(10, 12, 20)
    monkeypatch.setattr("scenarios.catalogue.load_dataset", lambda name, root: table)
    entry = replace(find("split-mnist"), budget=replace(find("split-mnist").budget, iterations=12))
    monkeypatch.setitem(CATALOGUE, "split-mnist", entry)
    rows.losses_now.cache_clear()
    request._built.cache_clear()
    yield entry
    rows.losses_now.cache_clear()
    request._built.cache_clear()


@pytest.mark.parametrize(("baseline", "iterations"), [("", 12), ("joint", 60)])
def test_a_split_mnist_cell_holds_its_request_and_what_it_stands_for(small, monkeypatch, baseline, iterations):
    row = split_mnist.SplitMnistRow("none", "class", 19.89, 0.02, baseline=baseline)
    cell = cell_of(row, (0, 1), row.measure((0, 1), "", "cpu"))
    assert json.loads(json.dumps(cell)) == cell and cell["iterations"] == iterations and cell["batch"] == 128
    assert cell["torch"] == torch.__version__.split("+")[0] and cell["strategy"] == "FineTuning()"
    assert cell["model"].startswith("MLP(400, 400") and cell["optimiser"].startswith("Adam(rate=0.001, ")
    paradigm = f", {baseline}" if baseline else ""
    words = f"split-mnist(tasks=5){paradigm}, MLP(400, 400), Adam(0.001), 12 iterations of 128 a task"
    assert cell["protocol"] == words and cell["commit"] == rows.commit() and "versions" not in cell
    saved = row.request((0, 1), "", "cpu").as_json()
    assert cell["request"] == {k: v for k, v in saved.items() if k not in ("seeds", "data_root", "device")}
    assert cell["request"]["setting"] == "class" and cell["request"]["baseline"] == baseline
    losses = [float(word) for word in cell["first losses"].split()]
    assert len(losses) == 20 and all(
        len(word.replace(".", "").strip("0")) <= 5 for word in cell["first losses"].split()
    )
    assert losses[0] == pytest.approx(2.3, abs=0.3)  # ten classes, and nothing is learned yet
    assert done([cell], row) == {0, 1} == done(rows.checked([cell], row, ""), row)
    for change in ({"model": "MLP(100)"}, {"optimiser": "Adam(0.002)"}, {"budget": replace(small.budget, batch=64)}):
        monkeypatch.setitem(CATALOGUE, "split-mnist", replace(small, **change))
        assert not done([cell], row)  # the catalogue says something else: the cell is of another protocol
    monkeypatch.setitem(CATALOGUE, "split-mnist", small)
    assert rows.why_stale({**cell, "commit": "unknown", "versions": {"streams": 0}}, row) == ""  # these decide nothing


def test_the_first_losses_are_those_of_a_shortened_run(small):
    """Another way to the same numbers: runs of 10 iterations a task, whose curve of losses holds every step."""
    row = split_mnist.SplitMnistRow("ewc", "task", 0.0, 0.0, "EWC(strength=100.0)")
    asked = replace(row.request((3, 4), "", "cpu"), iterations=10)
    learner, stream, start = asked.build()
    curve = loop.run(learner, stream, (3, 4), start, dtype=torch.float64).losses[:, :2]  # each step covers ten points
    found = [float(word) for word in row.first_losses((3, 4), "").split()]
    assert found == pytest.approx(curve[..., ::10].mean(0).flatten().tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("strategy", "verb"), [("EWC(strength=1000.0)", "grads"), ("SI(strength=5000.0)", "grads"), ("LwF()", "penalty")]
)
def test_a_method_that_changed_behind_the_same_words_makes_its_cells_stale(small, monkeypatch, strategy, verb):
    """Its strength is doubled where it is used, so that no word of the cell's request changes."""
    row = split_mnist.SplitMnistRow("x", "class", 0.0, 0.0, strategy)
    cell = cell_of(row, (0, 1), row.measure((0, 1), "", "cpu"))
    rows.losses_now.cache_clear()
    assert done(rows.checked([cell], row, ""), row) == {0, 1}
    method = type(parse(strategy, "strategies"))
    usual = vars(method)[verb]

    def doubled(self, *arguments):
        return usual(replace(self, strength=2 * self.strength), *arguments)

    monkeypatch.setattr(method, verb, doubled)
    rows.losses_now.cache_clear()
    found = rows.checked([cell], row, "")
    why = rows.why_stale(found[0], row)
    assert not done(found, row) and why.startswith("its first losses no longer come back: ")
    assert int(why.rpartition("at step ")[2]) > 10  # the second task is the first one that a penalty sees


def test_other_batches_make_a_cell_stale(small, monkeypatch):
    row = split_mnist.SplitMnistRow("none", "task", 0.0, 0.0)
    cell = cell_of(row, (0, 1), row.measure((0, 1), "", "cpu"))
    shown = SequentialSchedule.shown
    monkeypatch.setattr(
        SequentialSchedule, "shown", lambda self, tasks, task, wanted, *seed: shown(self, tasks, task, wanted, 9, *seed)
    )
    rows.losses_now.cache_clear()
    assert "no longer come back" in rows.why_stale(rows.checked([cell], row, "")[0], row)


def test_first_losses_come_back_within_a_thousandth_and_no_further():
    then = "2.3064 0.00012 nan"
    assert first_losses.difference(then, "2.3046 0.00012 nan") == ""
    assert first_losses.difference(then, "2.3030 0.00012 nan") == (
        "its first losses no longer come back: 2.3064 became 2.303 at step 1"
    )
    assert "0.00012 became 0.000121 at step 2" in first_losses.difference(then, "2.3064 0.000121 nan")
    assert "nan became 3 at step 3" in first_losses.difference(then, "2.3064 0.00012 3")
    assert first_losses.difference(then, "2.3064") == "says 3 first losses, and there are 1"


def test_a_request_is_compared_by_what_it_asks_for():
    row = split_mnist.SplitMnistRow("ewc", "task", 0.0, 0.0, "EWC(strength=2.0)")
    cell = split_cells(row, 90.0, 91.0)[0]
    held = cell["request"]
    assert not {"seeds", "data_root", "device"} & set(held)

    def why(**change):
        return rows.why_stale({**cell, "request": {**held, **change}}, row)

    assert why() == why(strategy="EWC(2.0, decay=1.0)") == why(gone="") == ""
    assert why(iterations=10) == "of another request: iterations 10"
    assert why(strategy="EWC(3.0)") == "of another request: strategy 'EWC(3.0)'"
    assert why(gone="much") == "of another request: gone 'much'" and why(order_seed=0) != ""
    assert rows.why_stale({**cell, "request": {k: v for k, v in held.items() if k != "repeats"}}, row) == ""
    assert "of another request" in rows.why_stale({k: v for k, v in cell.items() if k != "request"}, row)
    assert rows.why_stale(cell, replace(row, strategy="EWC(strength=4.0)")).startswith("of another strategy")
    assert not own_cells([{k: v for k, v in cell.items() if k != "first losses"}], row)


def test_reproduce_takes_first_losses_once_and_runs_what_does_not_come_back(small, tmp_path, monkeypatch):
    row = split_mnist.SplitMnistRow("none", "task", 0.0, 0.0)
    taken = []

    def counted(request):
        taken.append(request.seeds)
        return first_losses.first_losses(request)

    monkeypatch.setattr(split_mnist, "first_losses", counted)
    monkeypatch.setattr(split_mnist, "ROWS", (row,))
    monkeypatch.setattr(split_mnist.SplitMnistRow, "chunks", lambda self, cells: ((0, 1),))
    monkeypatch.setattr(tables, "ROWS", (row,))
    record, page = tmp_path / "record.json", tmp_path / "page.md"

    def again(**options):
        return list(tables.reproduce("", "", record, page, "cpu", **options))

    again()
    assert taken == [(0, 1)]
    again()
    assert taken == [(0, 1)] and len(cells_of(record)) == 1  # known in this process
    cell = cells_of(record)[0]
    losses = cell["first losses"].split()
    losses[2] = f"{float(losses[2]) * 1.01:.5g}"
    record.write_text(json.dumps([{**cell, "first losses": " ".join(losses), "accuracy": [0.01, 0.01]}]))
    rows.losses_now.cache_clear()
    again(table_only=True)
    assert len(taken) == 1 and "stale" not in page.read_text().lower()
    lines = again()
    assert taken == [(0, 1)] * 2 and lines[0] == "1 cells kept: do their first losses come back?"
    assert lines[1].startswith("split-mnist-task-none seeds 0, 1: stale: its first losses no longer come back")
    assert lines[1].endswith("at step 3") and lines[2].startswith("1 cells to run")
    assert len(cells_of(record)) == 2 and not any("not repeated" in cell for cell in cells_of(record))
    assert cells_of(record)[1]["accuracy"] == cell["accuracy"] and "1.00 ±" not in page.read_text()


def test_first_losses_that_cannot_be_taken_make_a_cell_stale_but_data_that_are_not_there_end_it(small, monkeypatch):
    row = split_mnist.SplitMnistRow("none", "task", 0.0, 0.0)
    cells = split_cells(row, 90.0)

    def fails(error):
        def first(request):
            raise error

        monkeypatch.setattr(split_mnist, "first_losses", first)
        return rows.why_stale(rows.checked(cells, row, "")[0], row)

    assert fails(IndexError("too far")) == "its first losses cannot be taken: IndexError: too far"
    with pytest.raises(ConfigurationError, match="no data"):
        fails(ConfigurationError("no data"))


# --- old cells and new ones ---------------------------------------------------------------------------------------


def test_cells_of_two_records_are_compared_by_welch_and_holm(tmp_path):
    from scipy.stats import t

    task, domain, *_ = split_mnist.ROWS
    old = [
        {"setting": "task", "method": "none", "seeds": [0, 1, 2], "accuracy": [0.1, 0.1, 0.1]},  # taken again below
        {"setting": "task", "method": "none", "seeds": [0, 1, 2], "accuracy": [0.80, 0.82, 0.84]},
        {"setting": "domain", "method": "none", "seeds": [0, 1], "accuracy": [0.60, 0.62]},
        {"setting": "class", "method": "none", "seeds": [0], "accuracy": [0.2]},  # one seed: no interval
    ]
    new = [*old, *split_cells(task, 90.0, 91.0, 92.0, 93.0), *split_cells(domain, 60.0, 62.0, 61.0)]
    for record, cells in (("old.json", old), ("new.json", new)):
        (tmp_path / record).write_text(json.dumps(cells))
    program = DOCS.parent / "benchmarks" / "compare_cells.py"
    ran = subprocess.run([sys.executable, program, tmp_path / "old.json", tmp_path / "new.json"],
                         capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(DOCS.parent)})  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    a, b = 4 / 3, (5 / 3) / 4  # variances of the means
    error, freedom = (a + b) ** 0.5, (a + b) ** 2 / (a**2 / 2 + b**2 / 3)
    half, p = t.ppf(0.975, freedom) * error, 2 * t.sf(9.5 / error, freedom)
    assert lines[2] == (
        f"| split-mnist-task-none | 3 | 4 | +9.50 | [{9.5 - half:+.2f}, {9.5 + half:+.2f}] | {2 * p:.3g} |"
    )
    assert lines[3].startswith("| split-mnist-domain-none | 2 | 3 | +0.00 | ") and lines[3].endswith(" | 1 |")
    assert lines[-1] == "2 rows compared; 1 differ with p < 0.05 after Holm's correction." and len(lines) == 6


def test_the_interval_over_episodes_is_that_of_the_cells():
    row = few_shot.OURS[0]
    cells = [cell_of(row, (seed,), {"accuracy": [0.9], "inductive": [0.9], "half_width": [width]})
             for seed, width in ((0, 0.0123), (1, 0.0345), (2, 0.0234))]  # fmt: skip
    cells.append({**cells[0], "versions": {}, "half_width": [0.5]})  # stale: not counted
    page = "\n".join(few_shot.page_lines(cells))
    assert "the 95 % interval over episodes lies between ± 1.23 and ± 3.45, ± 2.34 in the middle" in page
    assert "interval" not in few_shot.page_lines([])[4]


def test_the_page_has_learning_curves_at_shares_of_the_training():
    row = few_shot.OURS[0]
    curve = [[point * 125, point / 10] for point in range(1, 9)]
    cells = [cell_of(row, (seed,), {"accuracy": [0.9], "inductive": [0.9], "half_width": [0.01],
                                    "curve": [[at, score + seed / 10] for at, score in curve]})
             for seed in (0, 1)]  # fmt: skip
    page = few_shot.page_lines(cells)
    assert "| 5-way-1-shot-protonet | 15.0 | 25.0 | 45.0 | 65.0 | 85.0 |" in page
    assert not any("Learning curves" in line for line in few_shot.page_lines([]))


def test_rows_of_several_tests_share_a_start(monkeypatch):
    learned = []
    monkeypatch.setattr(few_shot, "EPISODES", 2)
    monkeypatch.setattr(few_shot, "load_dataset", lambda name, root: _of_images(name))
    monkeypatch.setattr(few_shot, "pretrain", lambda *words, **more: learned.append(words) or pretrain(*words, **more))
    few_shot._start.cache_clear()
    stage = "ProtoNet(way=5, shot=1, query=5, iterations=2)"
    cells = [few_shot.FewShotRow("x", stage, 0.0, "", "", way=way).measure((0,), "", "cpu") for way in (3, 5)]
    few_shot._start.cache_clear()
    assert (
        len(learned) == 1 and cells[0]["curve"] == cells[1]["curve"] and [at for at, _ in cells[0]["curve"]] == [1, 2]
    )


def test_a_few_shot_row_is_named_and_tested_by_its_way_and_shot():
    tested = "omniglot-background, tested on 600 episodes of {}, 15 queries of omniglot"
    old, new = few_shot.OURS[0], few_shot.FewShotRow("x", "ProtoNet()", 0.0, "", "", way=20, shot=5)
    assert (old.name, old.protocol) == ("omniglot-5-way-1-shot-protonet", tested.format("5 ways, 1 shot"))
    assert (new.name, new.protocol) == ("omniglot-20-way-5-shot-x", tested.format("20 ways, 5 shots"))
    page, kept = few_shot.page_lines([]), [row for row in few_shot.ROWS if not row.on_request]
    headings = [place for place, line in enumerate(page) if line.startswith("### ")]
    tables_of = [page[place].removeprefix("### ") for place in headings]
    assert tables_of == ["5-way 1-shot", "5-way 5-shot", "20-way 1-shot", "5-way 0-shot"]
    shown = [line.split(" | ")[0].removeprefix("| ") for line in page[headings[0] :] if line.startswith("| ")]
    assert [name for name in shown if name != "method"] == [row.method for row in kept]


def test_a_damaged_record_and_an_unknown_row_are_refused(run):
    _, again, record = run
    with pytest.raises(ConfigurationError, match="fake-a"):
        again("fake-aa")
    record.write_text('[{"setting"')
    with pytest.raises(ConfigurationError, match="damaged"):
        again()
    assert record.read_text() == '[{"setting"'


def test_rows_have_names_of_their_own_and_words_that_can_be_read():
    names = [row.name for row in tables.ROWS]
    assert len(set(names)) == len(names)
    for row in tables.ROWS:
        assert isinstance(
            parse(getattr(row, "stage", "Random()"), "initialisations"), InitialisationLearner | Random
        ), row
        assert parse(getattr(row, "model", "") or "MLP()", "models")
        assert parse(getattr(row, "strategy", "FineTuning()"), "strategies")
        assert parse(getattr(row, "learner", "") or "NearestClassMean()", "learners")


def _of_images(name):
    table = blobs(60, 28 * 28, 20, seed=len(name))
    return replace(table, x=table.x.view(-1, 28, 28))


def test_rows_measure_what_their_tables_show(monkeypatch):
    """Each kind of row on a small dish of its data: a cell has what the page reads."""
    small = {"EPISODES": 4, "CLASSES": 4, "RUNS": 2, "SHARES": (0.0, 1.0), "WAVES": 4}
    for table in (few_shot, online, sines, sine_curves):
        monkeypatch.setattr(table, "load_dataset", lambda name, root: _of_images(name), raising=False)
        for name, value in small.items():
            if hasattr(table, name):
                monkeypatch.setattr(table, name, value)
    for row in (
        few_shot.FewShotRow("protonet", "ProtoNet(way=5, shot=1, query=5, iterations=2)", 0.0, "", ""),
        online.OnlineRow("oml", "OML(iterations=2)"),
        sines.SineRow("maml", "MAML(steps=1, rate=0.02, shot=10, query=10, iterations=2)"),
        sine_curves.SineCurveRow("neural-process", "NeuralProcess(hidden=4, iterations=2)", ""),
        sine_curves.SineCurveRow("pretrained", "Pretrained(batch=5, iterations=2)", "", True),
    ):
        measured = row.measure((0,), "", "cpu")
        cell = cell_of(row, (0,), measured)
        assert json.loads(json.dumps(cell)) == cell and row.shown(cell)
        table = next(table for table in tables.TABLES if type(row).__module__ == table.__name__)
        shown = table.page_lines([cell_of(next(r for r in table.ROWS if r.method == row.method), (0,), measured)])
        assert row.verdict([cell]).split()[0] in "\n".join(shown)


def test_families_on_sines_are_drawn_beside_the_page(tmp_path):
    """Every value that the axis can show is a mark that says whose it is; what diverged is not; nothing known, nothing drawn."""
    row, other = sine_curves.GRADIENT_ROWS[0], sine_curves.OTHER_ROWS[0]
    errors = {name: [0.5, 1.0, 1.5] for name in sine_curves.places()} | {"1 point": [1e9] * 3}
    record, page = tmp_path / "record.json", tmp_path / "page.md"
    write_sine_curves(record, page)
    assert not (tmp_path / sine_curves.FIGURE).exists() and sine_curves.FIGURE not in "".join(
        sine_curves.page_lines([])
    )
    append(record, cell_of(row, (0, 1, 2), errors))
    append(record, cell_of(other, (0, 1, 2), {name: [0.1, 0.1, 0.1] for name in errors}))
    write_sine_curves(record, page)
    assert (tmp_path / sine_curves.FIGURE).read_bytes().startswith(b"<?xml")
    cells = cells_of(record)
    assert f"2 families of meta-learning over points and over shifts]({sine_curves.FIGURE})" in "".join(
        sine_curves.page_lines(cells)
    )
    told = [text for texts in sine_figure(cells).values.values() for text in texts]
    assert f"{row.method}, 10 points: 1.000" in told and f"{other.method}, x 0.5: 0.100" in told


def test_the_figure_is_drawn_where_a_later_cell_fails(tmp_path, monkeypatch):
    """The page, which shows it, is written after every cell."""
    record, row = tmp_path / "record.json", sine_curves.OTHER_ROWS[0]

    def fails(*words):
        append(record, cell_of(row, (0, 1, 2), {name: [0.1, 0.1, 0.1] for name in sine_curves.places()}))
        yield "a cell"
        raise ConfigurationError("not measured")

    monkeypatch.setattr(tables, "reproduce", fails)
    with pytest.raises(ConfigurationError, match="not measured"):
        command(device="cpu", data_root="", record=record, page=tmp_path / "page.md")
    assert (tmp_path / sine_curves.FIGURE).exists()


def test_the_error_of_the_answer_0_is_that_of_many_waves():
    for waves in (Sines(), Sines().shifted("amplitude", 0.5), Sines().shifted("x", 0.25), Sines(phase=(0.0, 1.0))):
        y = waves.draw(20000, 1, 0, 20, generator("zero")).query_y.double()
        assert sine_curves.zero_error(waves) == pytest.approx(float(y.square().mean()), rel=0.02)


def test_the_committed_page_is_that_of_the_committed_record(tmp_path):
    tables.write_page(cells_of(DOCS / "reference.json"), tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (DOCS / "reference.md").read_text()


def test_the_help_tells_seeds_apart_from_their_number(cli):
    words = " ".join(cli("run", "--help").stdout.replace("│", " ").split())
    assert "3 is seeds 0, 1, 2; 3,4,9 are those; 3:4 is seed 3 alone" in words


def test_the_command_runs_what_is_named_and_an_error_keeps_its_exit_code(cli, tmp_path):
    record = ("--record", tmp_path / "record.json", "--page", tmp_path / "page.md")
    done = cli("reproduce", "split-mnist-class-l,sines", "--table-only", "--cheap-first", *record)
    assert done.returncode == 0 and [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "split-mnist-class-lwf", "split-mnist-class-lwf-authors", "sines-maml", "sines-pretrained",
    ]  # fmt: skip
    done = cli("reproduce", "split-mnist-klass", *record)
    assert done.returncode == 2 and "unknown row 'split-mnist-klass'" in done.stderr
