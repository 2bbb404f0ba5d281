"""Colours by name, light and dark: figures are drawn in the light ones, and on the page each becomes a CSS variable."""

from __future__ import annotations

from typing import Any, NamedTuple


class Look(NamedTuple):
    """How a method is drawn, wherever it is drawn: told apart by its marker where colours are not seen or printed."""

    colour: str
    marker: str = "o"
    line: Any = "-"  # a word, or dashes and gaps, as matplotlib takes them


LIGHT = {
    "paper": "#fffffe",  # each value is a colour of its own, so that it can be found again in a finished drawing
    "ink": "#1c2024",
    "muted": "#5a636d",
    "line": "#b9c0c8",
    "grid": "#e6e9ed",
    "other": "#9aa3ad",
    "heat": "#1f5fae",
    "on-heat": "#fefefe",
    "method-1": "#1f63c4",
    "method-2": "#c8442e",
    "method-3": "#23884f",
    "method-4": "#8a4fc2",
    "method-5": "#b86e00",
    "method-6": "#0b8793",
    "method-7": "#bd3a83",
    "method-8": "#66721b",
}
DARK = {
    "paper": "#14171a",
    "ink": "#e8ebee",
    "muted": "#a3acb5",
    "line": "#4d565f",
    "grid": "#2a3036",
    "other": "#6f7983",
    "heat": "#66a8ff",
    "on-heat": "#0c1116",
    "method-1": "#6ea8ff",
    "method-2": "#ff8a73",
    "method-3": "#59c98b",
    "method-4": "#bd94f5",
    "method-5": "#efa944",
    "method-6": "#45c7d4",
    "method-7": "#f07fbc",
    "method-8": "#b7c45a",
}
COLOURED = 8  # methods that have a colour; more would be told apart by nobody
MARKERS = "os^Dv*Xp"
OTHER = Look(LIGHT["other"], ".")
REFERENCES = {"joint": Look(LIGHT["ink"], "|", "--"), "isolate": Look(LIGHT["muted"], "|", ":")}


def look(number: int) -> Look:
    """Of the method of this number, from 0; grey from the ninth on."""
    return Look(LIGHT[f"method-{number + 1}"], MARKERS[number]) if number < COLOURED else OTHER


def variables() -> str:
    """The colours as CSS: by the reader's system, or as the page's button says; light on paper."""

    def declared(colours: dict[str, str]) -> str:
        return "".join(f"--{name}:{colour};" for name, colour in colours.items())

    light, dark = f"{declared(LIGHT)}color-scheme:light", f"{declared(DARK)}color-scheme:dark"
    return (
        f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}"
        f"@media screen{{:root[data-theme=dark]{{{dark}}}}}"
    )
