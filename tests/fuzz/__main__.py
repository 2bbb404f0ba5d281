"""`python -m tests.fuzz LINES [SEED]`: try so many command lines, and say what is wrong with them."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fuzz.lines import Lines
from tests.fuzz.model import FILES, LEFT
from tests.fuzz.verdict import Trials


def main(count: int, seed: int) -> int:
    """Print figures; 1 where a line failed."""
    trials, began = Trials(Path(tempfile.mkdtemp(prefix="words-fuzz-"))), time.monotonic()

    def tell(trials: Trials, trial: Any) -> None:
        if trial.failure:
            print(
                f"{trial.failure} | {trial.seconds:.1f} s | {[word[:200] for word in trial.words]} | {trial.errors[-300:]!r}",
                flush=True,
            )
        if trials.lines % 1000 == 0:
            print(f"{trials.lines} lines, {time.monotonic() - began:.0f} s", flush=True)

    try:
        trials.prepare(LEFT, FILES)
        trials.try_all(itertools.islice(Lines(seed), count), tell)
    finally:
        trials.close()
    seconds = time.monotonic() - began
    print(f"{trials.lines} lines in {seconds:.0f} s, {1000 * seconds / trials.lines:.0f} ms each, of seed {seed}")
    print("ended:", ", ".join(f"{ended} {number}" for ended, number in sorted(trials.ended.items()) if number > 20))
    print(f"interrupted while learning: {sum(trials.interrupted.values())}")
    for place, number in trials.interrupted.most_common():
        print(f"  {number} {place}")
    print(f"failed: {sum(map(len, trials.failures.values()))}")
    for failure, failed in sorted(trials.failures.items(), key=lambda item: -len(item[1])):
        print(f"  {len(failed)} {failure}")
    return int(bool(trials.failures))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
