"""No file that is damaged, foreign or gone gives a traceback, a long wait, a lost result or a number that is not true.

A sample; LIFELONG_FAULTS=1000 takes as many, and prints how many failed and how.
"""

from __future__ import annotations

import os
from collections import Counter

from tests.faults import complaint, fault

COUNT = int(os.environ.get("LIFELONG_FAULTS", "60"))
FIRST = int(os.environ.get("LIFELONG_FIRST_FAULT", "0"))


def test_faults_of_files(bench):
    found: list[tuple[str, str]] = []
    for number in range(FIRST, FIRST + COUNT):
        wrong, happened = complaint(bench, fault(number), thorough=COUNT > 200 and number % 5 == 0)
        if wrong:
            found.append((wrong.partition(":")[0], f"{wrong}\n  {happened}"))
            if COUNT > 200:
                print(found[-1][1], flush=True)
    kinds = Counter(kind for kind, _ in found)
    print(f"{COUNT} faults, {len(found)} failures: {dict(kinds)}")
    assert not found, f"{len(found)} of {COUNT}: {dict(kinds)}\n" + "\n".join(text for _, text in found[:5])
