"""`lifelong report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lifelong.commands.options import OUTPUT, Runs, option

if TYPE_CHECKING:
    from lifelong.display.report.drawing import Drawing

    Written = tuple[str, Callable[[], dict[str, dict[str, Drawing]]]]  # a page, and what makes its figures, by folder

STUDIES = ("paradigms.json", "ingredients.json")


def report(
    runs: Runs,
    output: Annotated[Path, option(OUTPUT, "the page to write", "PATH")] = Path("report.html"),
    title: Annotated[str, option(OUTPUT, "what stands over the page", usual="scenario and setting")] = "",
    figures: Annotated[
        Path | None, option(OUTPUT, "also write every figure into this folder, for papers", "PATH")
    ] = None,
    kind: Annotated[str, option(OUTPUT, "of --figures: pdf, svg or png", "KIND", "--format")] = "pdf",
    shown: Annotated[bool, option(OUTPUT, "show the page in the browser", "", "--open")] = False,
) -> None:
    """Write one HTML page about finished runs.

    It says what is established, how each method fared, and what it took. It loads nothing from outside. The folder of a comparison of paradigms or of ingredients has a page of its own.

    Example: lifelong report runs/* --output report.html --figures figures/ --format pdf
    """
    from lifelong.display.console import say, waiting

    with waiting("drawing"):
        from lifelong.core.files import write
        from lifelong.display.report.files import check_kind, write_drawings

        check_kind(kind)
        page, drawings = _of_study(runs[0], title) if _is_study(runs) else _of_runs(runs, title)
        write(output, page.encode())
        say(f"report: {output}")
        if figures:
            written = [
                path for place, each in drawings().items() for path in write_drawings(each, figures / place, kind)
            ]
            say(f"figures: {len(written)} in {figures}")
    if shown:
        import webbrowser

        webbrowser.open(output.resolve().as_uri())


def _is_study(runs: list[Path]) -> bool:
    """Whether this is the folder of a comparison of paradigms or of ingredients; beside runs it is passed over."""
    return len(runs) == 1 and any((runs[0] / name).exists() for name in STUDIES)


def _of_study(folder: Path, title: str) -> Written:
    """A study's page, and its figures."""
    from lifelong.display.report.ingredients import ingredient_drawings, ingredients_page
    from lifelong.display.report.paradigms import paradigm_drawings, paradigms_page

    if (folder / STUDIES[0]).exists():
        return paradigms_page(folder, title), lambda: {"": paradigm_drawings(folder)}
    return ingredients_page(folder, title), lambda: {"": ingredient_drawings(folder)}


def _of_runs(runs: list[Path], title: str) -> Written:
    """The page of finished runs, and their figures."""
    from lifelong.commands.learning import found_runs
    from lifelong.display.report.files import of_groups
    from lifelong.display.report.page import page
    from lifelong.runs.groups import groups_of

    groups = groups_of(found_runs(runs))
    return page(groups, title), lambda: of_groups(groups)
