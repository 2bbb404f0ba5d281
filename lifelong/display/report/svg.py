"""A drawing as SVG inside a page: colours as CSS variables, ids of its own, what each value says on its mark."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

from lifelong.display.report.colours import LIGHT
from lifelong.display.report.drawing import FONT, Drawing, style

SPACE = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"#([\w.-]+)")
_COLOUR = re.compile("|".join(map(re.escape, LIGHT.values())))
_NAMES = {colour: name for name, colour in LIGHT.items()}
_PLAIN = (f"font-size: {FONT}px", "text-anchor: start", "stroke-linecap: square", "stroke-width: 0.8")
_METHOD = re.compile(r" method-(\d+)$")


def inline(drawing: Drawing, number: int) -> str:
    """The drawing as an element of a page; number: its own on the page."""
    file = io.StringIO()
    with style():
        drawing.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<(\?xml|!DOCTYPE)[^>]*>", "", file.getvalue())
    root = ElementTree.fromstring(text)
    told = _tell(root, drawing)
    assert told == set(drawing.values), set(drawing.values) - told  # each value is on its mark
    used = _references(root)
    names = {name: f"f{number}-{i}" for i, name in enumerate(sorted(used))}
    _clean(root, names)
    width, height = (round(72 * side) for side in drawing.figure.get_size_inches())
    root.attrib = {
        "viewBox": f"0 0 {width} {height}",
        "role": "img",
        "aria-label": drawing.title,
        "style": f"max-width:{round(1.12 * width)}px",
    }
    _without_space(root)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _tell(root: ElementTree.Element, drawing: Drawing) -> set[str]:
    """Put what each value says onto its mark, and whose it is onto the group; the names that were found."""
    found = set()
    for group in root.iter(f"{SPACE}g"):
        name = group.get("id", "")
        owner = _METHOD.search(name)
        if owner:
            group.set("data-m", owner[1])
        if name not in drawing.values:
            continue
        shown = [e for e in group.iter() if e.tag == f"{SPACE}use"] or [
            e for e in group.iter() if e.tag == f"{SPACE}path"
        ]
        texts = drawing.values[name]
        assert len(shown) == len(texts), (name, len(shown), len(texts))
        for mark, words in zip(shown, texts, strict=True):
            ElementTree.SubElement(mark, f"{SPACE}title").text = words
        found.add(name)
    return found


def _references(root: ElementTree.Element) -> set[str]:
    """The ids that something points to."""
    values = [value for element in root.iter() for name, value in element.items() if name != "id"]
    pointing = [value for value in values if value.startswith("#") or "url(#" in value]
    return {match for value in pointing for match in _REFERENCE.findall(value)}


def _clean(element: ElementTree.Element, names: dict[str, str]) -> None:
    """Leave out what the page says already, and make ids and colours the page's own."""
    for child in list(element):
        if child.tag in (f"{SPACE}metadata", f"{SPACE}style") or (child.tag == f"{SPACE}defs" and not len(child)):
            element.remove(child)
            continue
        _clean(child, names)
        _set_attributes(child, names)
        child.text, child.tail = (child.text if (child.text or "").strip() else None), None
        if child.tag == f"{SPACE}defs" and not len(child):
            element.remove(child)
        if child.tag == f"{SPACE}g" and not child.attrib:  # a group of nothing in particular
            place = list(element).index(child)
            element.remove(child)
            for i, grandchild in enumerate(child):
                element.insert(place + i, grandchild)
        elif child.tag == f"{SPACE}path" and child.get("style") == "fill: none":  # paper, which the page brings
            element.remove(child)


def _set_attributes(element: ElementTree.Element, names: dict[str, str]) -> None:
    given: dict[str, Any] = dict(element.attrib)
    element.attrib.clear()
    for name, value in given.items():
        if name == "id":
            value = names.get(value, "")
        elif name == LINK or "url(#" in value:
            name, value = ("href" if name == LINK else name), _REFERENCE.sub(lambda m: f"#{names[m[1]]}", value)
        elif name == "style":
            value = _styled(value)
        elif name in ("d", "x", "y", "transform", "width", "height"):
            value = _shorter(value)
        if name == "transform" and value.startswith("rotate(0 "):
            continue
        if name in ("width", "height") and element.tag == f"{SPACE}svg":
            continue
        if value:
            element.set(name, value)


def _styled(text: str) -> str:
    """A style without what the page says, its colours as variables."""
    parts = [part.strip() for part in text.split(";")]
    kept = [part for part in parts if part and part not in _PLAIN and not part.startswith("font-family")]
    return _COLOUR.sub(lambda match: f"var(--{_NAMES[match[0]]})", "; ".join(kept))


def _shorter(text: str) -> str:
    """Tenths of a pixel are seen by nobody."""
    text = re.sub(r"rotate\(-0(?=[ )])", "rotate(0", text)
    text = _NUMBER.sub(lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), text)
    return " ".join(text.split())


def _without_space(root: ElementTree.Element) -> None:
    """HTML knows svg without its name space."""
    for element in root.iter():
        element.tag = element.tag.removeprefix(SPACE)
