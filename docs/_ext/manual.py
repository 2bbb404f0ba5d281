"""The site's own part of Sphinx: pages from the registry, formulas without a script, and `llms.txt` beside the pages."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent))

import api
import catalogue
import prose
from formulas import typeset

FOLDER = "catalogue"
MARKER = re.compile(r"^<!-- made: ([\w -]+) -->$", re.MULTILINE)
INSERTED = catalogue.INSERTED | api.INSERTED


def write_pages(app: Sphinx) -> None:
    """Write the pages that are made into docs/catalogue, those alone that changed, and take away what is no longer made."""
    folder = Path(app.srcdir, FOLDER)
    folder.mkdir(exist_ok=True)
    made = {f"{name}.md": text for name, text in (catalogue.pages() | api.pages()).items()}
    for file in folder.glob("*.md"):
        if file.name not in made:
            file.unlink()
    for name, text in made.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            (folder / name).write_text(text)


def inserted(text: str) -> str:
    """A page's text with what its markers ask for. Raises KeyError for a marker that nobody knows."""
    return MARKER.sub(lambda found: INSERTED[found[1]](), text)


def insert(app: Sphinx, page: str, source: list[str]) -> None:
    """The same, as Sphinx asks for it."""
    source[0] = inserted(source[0])


class Formula(SphinxDirective):
    """A formula in a block of its own."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """A paragraph; its text is set later, with all others of its page."""
        paragraph = nodes.paragraph(text=" ".join(self.content))
        return [nodes.container("", paragraph, classes=["formula"])]


def set_formulas(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Set the formulas of pages that are made of docstrings: in paragraphs and tables, not in code and headings."""
    if (
        not (page.startswith(f"{FOLDER}/") and not page.startswith((f"{FOLDER}/api", f"{FOLDER}/commands")))
        and page != "metrics"
    ):
        return
    if app.builder.format != "html":
        return
    factors = "|".join(sorted({row.astext() for row in tree.findall(nodes.literal) if row.astext().isidentifier()}))
    for text in list(tree.findall(nodes.Text)):
        if isinstance(text.parent, nodes.literal | nodes.literal_block | nodes.title | nodes.reference):
            continue
        plain = text.astext()
        made = typeset(plain, factors)
        if made != plain:
            text.parent.replace(text, nodes.raw("", made, format="html"))


def write_plain(app: Sphinx, error: Exception | None) -> None:
    """Each page as Markdown beside its HTML, and `llms.txt`: what the project is, its commands and verbs, and where to read on."""
    if error or app.builder.format != "html":
        return
    texts = {}
    first = app.env.toctree_includes.get("index", [])
    for page in sorted(
        app.env.found_docs, key=lambda page: (page not in first, first.index(page) if page in first else 0, page)
    ):
        text = inserted(Path(app.env.doc2path(page)).read_text())
        out = Path(app.outdir, f"{page}.md")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        texts[page] = text
    Path(app.outdir, "llms.txt").write_text(llms(texts))


def llms(texts: dict[str, str]) -> str:
    """The page for language models, in the form of llmstxt.org: a heading, a summary, lists of links."""
    from lifelong.commands import COMMANDS
    from lifelong.core.strategy import VERBS, Strategy

    readme = (Path(__file__).parents[2] / "README.md").read_text()
    summary = " ".join(readme.partition("\n\n")[2].partition("\n\n")[0].replace("**", "").split())
    lines = ["# lifelong", "", f"> {summary}", "", "## Commands", ""]
    lines += [f"- `lifelong {name}`: {words}" for name, (_, words) in COMMANDS.items()]
    lines += ["", "## A strategy's verbs", ""]
    for verb in VERBS:
        function = getattr(Strategy, verb)
        lines.append(f"- `{verb}{api.signature(function)}`: {prose.first_line(function)}")
    lines += ["", "## Pages", ""]
    for page, text in texts.items():
        title, _, rest = text.lstrip().removeprefix("# ").partition("\n")
        about = next((p for p in rest.split("\n\n") if p.strip() and p.lstrip()[0] not in "|`#<-*"), "")
        first = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose.sentences(" ".join(about.split()))[0])
        lines.append(f"- [{title.strip('`')}]({page}.md)" + (f": {first}" if first else ""))
    return "\n".join(lines) + "\n"


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect all of it."""
    app.add_directive("formula", Formula)
    app.connect("builder-inited", write_pages)
    app.connect("source-read", insert)
    app.connect("doctree-resolved", set_formulas)
    app.connect("build-finished", write_plain)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
