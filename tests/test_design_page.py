"""The page that explains the tree says what the tree is: floors, rooms, files of the core, verbs; and the thirty words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from lifelong.core.strategy import VERBS
from tests.test_house import FLOORS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/design.md").read_text()
GLOSSARY = (ROOT / "docs/glossary.md").read_text()


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the table whose first column has this heading."""
    lines = page.partition(f"| {heading} |")[2].splitlines()[2:]
    end = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:end]]


def first_sentence(room: str) -> str:
    place = ROOT / room.replace(".", "/")
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    paragraph = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".") + "."


def test_the_picture_shows_the_floors():
    picture = re.search(r"^```\n(people .*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert picture
    shown = [line[13:].split() for line in picture[1].splitlines()]
    assert shown == [[room.removeprefix("lifelong.") for room in rooms] for rooms in reversed(FLOORS)]


def test_each_room_says_the_same_on_the_page_and_in_its_package():
    rooms = {room.removeprefix("lifelong."): room for rooms in FLOORS for room in rooms}
    shown = {name.strip("`"): sentence for name, sentence in table(PAGE, "room")}
    assert set(shown) == set(rooms)
    for name, sentence in shown.items():
        assert sentence == first_sentence(rooms[name]), f"docs/design.md, {name}: {first_sentence(rooms[name])}"


def test_a_batch_meets_every_file_of_the_core():
    way = PAGE.partition("## A batch's way")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+)\.py`", way)
    there = {path.stem for path in ROOT.glob("lifelong/core/*.py")} - {"__init__"}
    assert set(named) == there and len(named) == len(there), set(named) ^ there


def test_the_verbs_are_all_there_in_order():
    assert tuple(row[0].strip("`") for row in table(PAGE, "verb")) == VERBS


def test_places_that_the_docs_name_exist():
    """FAMILY and name.py stand for what a reader chooses."""
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for place in re.findall(r"`((?:lifelong|scenarios|tests|docs|benchmarks)/[\w/.-]*)", page.read_text()):
            where = ROOT / place.replace("FAMILY/", "").replace("name.py", "")
            assert where.exists(), f"{page.name}: {place}"


def test_the_glossary_is_short():
    words = table(GLOSSARY, "word")
    assert 20 <= len(words) <= 30 and all(len(row) == 2 for row in words)
    assert len({row[0] for row in words}) == len(words)


def test_both_pages_are_linked():
    readme = (ROOT / "README.md").read_text()
    for page in ("docs/design.md", "docs/glossary.md"):
        assert f"({page})" in readme, page
