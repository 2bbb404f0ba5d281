"""Tables run again: what is kept, what is missing, and that the committed page says what the record holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FunctionType

import pytest

from lifelong.expression import parse
from lifelong.meta.initialisation import Initialisation
from lifelong.published import few_shot, online, sines
from lifelong.published import reproduce as tables
from lifelong.published.rows import Row, cells_of, done
from scenarios.refusal import Refusal
from scenarios.synthetic import blobs

DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True)
class Fake(Row):
    method: str
    chunks: tuple = ((0, 1), (2,))
    asked: list = field(default_factory=list)
    setting: str = "fake"
    on_request: bool = False

    def measure(self, seeds, data_root, device):
        self.asked.append(seeds)
        return {"accuracy": [seed / 10 for seed in seeds]}


@pytest.fixture
def run(tmp_path, monkeypatch):
    rows = (Fake("a"), Fake("b"), Fake("heavy", on_request=True))
    monkeypatch.setattr(tables, "ROWS", rows)

    def again(name=""):
        return list(tables.reproduce(name, "", tmp_path / "record.json", tmp_path / "page.md", "cpu"))

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


def test_a_damaged_record_and_an_unknown_row_are_refused(run):
    _, again, record = run
    with pytest.raises(Refusal, match="fake-a"):
        again("fake-aa")
    record.write_text('[{"setting"')
    with pytest.raises(Refusal, match="damaged"):
        again()
    assert record.read_text() == '[{"setting"'


def test_rows_have_names_of_their_own_and_words_that_can_be_read():
    names = [row.name for row in tables.ROWS]
    assert len(set(names)) == len(names)
    for row in tables.ROWS:
        assert isinstance(parse(getattr(row, "stage", "Random()"), "initialisations"), Initialisation | FunctionType), (
            row
        )
        assert parse(getattr(row, "model", "MLP()"), "models") and parse(
            getattr(row, "strategy", "FineTuning()"), "strategies"
        )


def test_rows_measure_what_their_tables_show(monkeypatch):
    """Each kind of row on a small dish of its data: a cell has what the page reads."""

    def images(name, root):
        table = blobs(60, 28 * 28, 20, seed=len(name))
        return replace(table, x=table.x.view(-1, 28, 28))

    small = {"EPISODES": 4, "CLASSES": 4, "RUNS": 2, "SHARES": (0.0, 1.0), "WAVES": 4}
    for table in (few_shot, online, sines):
        monkeypatch.setattr(table, "load_table", images, raising=False)
        for name, value in small.items():
            if hasattr(table, name):
                monkeypatch.setattr(table, name, value)
    for row in (
        few_shot.FewShotRow("protonet", "ProtoNet(way=5, shot=1, query=5, iterations=2)", 0.0, "", ""),
        online.OnlineRow("oml", "OML(iterations=2)"),
        sines.SineRow("maml", "MAML(steps=1, rate=0.02, shot=10, query=10, iterations=2)"),
    ):
        cell = {"setting": row.setting, "method": row.method, "seeds": [0], **row.measure((0,), "", "cpu")}
        assert json.loads(json.dumps(cell)) == cell and row.shown(cell)
        table = next(table for table in tables.TABLES if type(row).__module__ == table.__name__)
        assert row.verdict([cell]).split()[0] in "\n".join(table.page_lines([cell]))


def test_the_committed_page_is_that_of_the_committed_record(tmp_path):
    tables.write_page(cells_of(DOCS / "reference.json"), tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (DOCS / "reference.md").read_text()
