"""What every page of ours has: its head, its look, its script, and numbers for its drawings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from lifelong.display.report.drawing import Drawing
from lifelong.display.report.style import SCRIPT, STYLE
from lifelong.display.report.svg import inline
from lifelong.display.report.tables import escaped

MOST_SENTENCES = 4


class Numbers:
    """Numbers the drawings of a page, so that no two share an id."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def drawn(self, drawing: Drawing, caption: str = "") -> str:
        """A figure with what stands over it."""
        words = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
        return f"<figure>{words}{inline(drawing, next(self._numbers))}</figure>"

    def both(self, large: Drawing, small: Drawing, caption: str = "", kind: str = "") -> str:
        """A figure that a telephone sees drawn anew, not shrunk."""
        words = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
        drawn = [inline(drawing, next(self._numbers)) for drawing in (large, small)]
        start = f'<figure class="{kind}">' if kind else "<figure>"
        return f"{start}{words}<div class=large>{drawn[0]}</div><div class=small>{drawn[1]}</div></figure>"


def framed(heading: str, contents: str, sections: Sequence[str]) -> str:
    """A page of this look around some sections."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escaped(heading)}</title><style>{STYLE}</style></head><body>"
        f'<header><h1>{escaped(heading)}</h1><button class="theme" title="light or dark">light / dark</button>{contents}</header>'
        f"<main>{''.join(sections)}<footer>Written by lifelong. It loads nothing from outside.</footer></main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def answered(lines: Sequence[str], how: str) -> str:
    """What is established, each line HTML: the first few, the rest folded; and how it was found."""
    shown, rest = lines[:MOST_SENTENCES], lines[MOST_SENTENCES:]
    more = f"<ul class=answer>{''.join(rest)}</ul>"
    folded = f"<details><summary>{len(rest)} more</summary>{more}</details>" if rest else ""
    return f"<ul class=answer>{''.join(shown)}</ul>{folded}<p class='note how'>{escaped(how)}</p>"
