"""Any command that learns, killed at any moment and resumed, ends as if nobody had disturbed it.

A sample; LIFELONG_KILLS=200 takes as many, and prints how many differ and how.
"""

from __future__ import annotations

import os

import pytest

from tests.kills import Place, killed

COUNT = int(os.environ.get("LIFELONG_KILLS", "8"))
FIRST = int(os.environ.get("LIFELONG_FIRST_KILL", "0"))


@pytest.fixture(scope="module")
def place(tmp_path_factory, nursery):
    return Place(tmp_path_factory.mktemp("kills"), nursery)


def test_kills(place):
    found = []
    step = 1 if len(place.commands) <= COUNT else 11  # a sample goes through all kinds
    for number in range(FIRST, FIRST + COUNT * step, step):
        wrong, happened = killed(place, number)
        if wrong:
            found.append(f"{happened}\n    {wrong}")
            print(found[-1], flush=True)
    print(f"{COUNT} kills, {len(found)} that differ")
    assert not found, "\n".join(found)
