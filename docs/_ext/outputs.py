"""Run the blocks of pages and write what they print below them: `python docs/_ext/outputs.py [PAGE ...]`.

Each page's blocks run in order, in an empty folder of its own, Python blocks in one process. Blocks before the last one
that shows something are run, too, as later ones need what they made. LONGER names blocks that are left as they are.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from blocks import ROOT, Block, blocks_of, pages  # noqa: E402 # found by the path above

LONGER = (
    "--paradigms",
    "--ingredients",
    "split-mnist",
    "split-omniglot",
    "make ",
)  # minutes, or data: `--all` runs them


def printed(block: Block, names: dict, everything: bool) -> str | None:
    """What a block prints; None where it was not run."""
    if block.language == "python":
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(block.text, "page", "exec", dont_inherit=True), names)
        return said.getvalue()
    if not everything and any(word in command for command in block.commands for word in LONGER):
        return None
    said = ""
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    for command in block.commands:
        words = [sys.executable, "-m", "lifelong", *shlex.split(command)[1:]]
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{command}\n{done.stderr}")
        said += done.stdout
    return said


def renewed(page: str, everything: bool) -> str:
    """A page with what its blocks print now."""
    blocks = blocks_of(page)
    last = max((i for i, block in enumerate(blocks) if block.shown or "savefig" in block.text), default=-1)
    changes: list[tuple[Block, str]] = []
    names: dict = {"__name__": "__main__"}
    for block in blocks[: last + 1]:
        said = printed(block, names, everything)
        if block.shown and said is not None:
            lines = [line.rstrip() for line in said.strip("\n").splitlines()]
            changes.append((block.shown, "\n".join(["```text", *lines, "```"])))
    for shown, text in reversed(changes):
        page = page[: shown.start] + text + page[shown.end :]
    return page


def main() -> None:
    """Renew the pages that are named, or all that show something."""
    everything = "--all" in sys.argv
    named = [Path(word).resolve() for word in sys.argv[1:] if word != "--all"] or pages()
    for path in named:
        text = path.read_text()
        if not any(block.shown for block in blocks_of(text)):
            continue
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            path.write_text(renewed(text, everything))
            for picture in set(re.findall(r"\]\((_static/[\w.-]+)\)", text)) & {
                f"_static/{name}" for name in os.listdir()
            }:
                shutil.copyfile(Path(picture).name, ROOT / "docs" / picture)
        print(path.relative_to(ROOT), flush=True)


if __name__ == "__main__":
    main()
