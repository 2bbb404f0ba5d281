"""The site: what is made of docstrings is whole and true, every command on it can be run, and it builds without a warning."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lifelong.core.loop import check_learner
from lifelong.core.strategy import VERBS, Strategy
from lifelong.metrics import METRICS
from lifelong.notation.expression import parse
from lifelong.notation.registry import KINDS, found
from lifelong.runs.request import Request
from lifelong.strategies.multitask.gradients import GradientSurgery
from scenarios.catalogue import CATALOGUE

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "docs/_ext"))

import api  # noqa: E402 # found by the path above
import blocks  # noqa: E402
import catalogue  # noqa: E402
import formulas  # noqa: E402
import outputs  # noqa: E402
import prose  # noqa: E402

MADE = catalogue.pages()
INSERTED = catalogue.INSERTED | api.INSERTED
REFERENCE = {name: text for name, text in api.pages().items()}


def test_everything_that_can_be_named_has_a_section():
    text = "\n".join(MADE.values())
    for kind in KINDS:
        for name in found(kind):
            if name != "FineTuning":
                assert f"\n## {name}\n" in text, name
    assert set(catalogue.FAMILIES) == set(catalogue.families())


COUNTS = {"six": 6, "seven": 7, "twenty-two": 22, "forty-nine": 49}


def test_numbers_of_methods_are_those_that_are_found():
    """In the words of the README; WarmUp is half a method, and three starts learn from no episodes."""
    together = catalogue.families()["multitask"]
    surgeries = {name for name, method in together.items() if issubclass(method, GradientSurgery)}
    against = {name for name in found("strategies") if name not in (*together, "FineTuning", "WarmUp")}
    counts = {
        "methods with a witness": len(against) + len(found("learners")),
        "meta-learners": len(set(found("initialisations")) - {"Random", "Pretrained", "MultiTask"}),
        "gradient surgeries": len(surgeries),
        "weightings": len(set(together) - surgeries - {"SoftSharing"}),
    }
    readme = (ROOT / "README.md").read_text().lower().replace("**", "")
    for noun, count in counts.items():
        said = re.search(rf"([\w-]+) {noun}", readme)
        assert said and COUNTS[said[1]] == count, (noun, count)


def test_a_section_says_what_a_method_is():
    section = MADE["strategies-regularisation"].partition("\n## EWC\n")[2].partition("\n## ")[0]
    for words in (
        "**Hold each weight near its past values",
        "```{formula}\npenalty = strength / 2 x sum_k sum_i F_ki (p_i - p_ki)^2",
        "| `decay` | `1.0` |",
        "| `online` | `False` | one term around the latest weights",
        "Settings: all. Step: 1 + 1 passes",
        "Keeps: Fisher and centre",
        "in `tests/reference/witnesses/test_ewc_peers.py`",
        "Kirkpatrick et al., 2017",
        'lifelong run split-digits --strategy "EWC()"',
        "| Split-digits, class-incremental | `EWC(",
    ):
        assert words in section, words


def test_rows_are_those_of_the_table_of_methods():
    """Each line of docs/methods.md that measures a method stands in its section, as it is there."""
    page = (ROOT / "docs/methods.md").read_text()
    measured = [line for line in page.splitlines() if re.match(r"\| `\w+\(.*\)` \|", line)]
    text = "\n".join(MADE.values())
    known = [line for line in measured if "`FineTuning(" not in line]
    assert len(known) > 150
    assert [line for line in known if line.removeprefix("| ").strip() not in text] == []


def test_no_word_of_a_docstring_is_lost():
    """What is taken into the table of settings is no longer in the text, and nothing is dropped."""
    text = "Keep rows (Li et al., 2019, eq. 2).\n\nsize: M, rows kept. rows: R, 0 for as many; memory: which. Costs 2 passes."
    said, left = prose.settings_in(text, ["size", "rows", "memory"])
    assert said == {"size": "M, rows kept.", "rows": "R, 0 for as many", "memory": "which."}
    assert left == ["Keep rows (Li et al., 2019, eq. 2).", "Costs 2 passes."]
    assert prose.settings_in("a b. Both, rows: no field at a start.", ["rows"])[0] == {}
    for kind in KINDS:
        for name, thing in found(kind).items():
            whole = prose.paragraphs(thing.__doc__ or "")
            said, left = prose.settings_in(thing.__doc__ or "", [field.name for field in catalogue.fields_of(thing)])
            words = set(re.findall(r"\w+", " ".join(whole))) - set(
                re.findall(r"\w+", " ".join([*left, *said.values(), *said]))
            )
            assert words <= {"and"}, (name, words)


def commands_made() -> list[tuple[str, str, str]]:
    return [
        (kind, name, command)
        for kind in KINDS
        for name, thing in found(kind).items()
        if (command := catalogue.command_for(thing, kind))
    ]


def test_every_command_of_a_section_can_be_run():
    """Without learning: its words are understood, and the stream has what the method needs."""
    made = commands_made()
    assert len(made) > 100
    for kind, name, command in made:
        words = shlex.split(command)
        options = dict(zip(words[3::2], words[4::2], strict=True))
        if words[1] != "run":
            assert parse(next(iter(options.values())), kind), name
            continue
        learner, stream, _ = Request(words[2], **{word[2:]: value for word, value in options.items()}).build()
        check_learner(learner, stream)


def test_plain_text_is_shown_as_it_stands():
    assert prose.escaped("a*[k] <- x_test, `as *it* is`, [S, T]") == r"a\*\[k\] \<- x\_test, `as *it* is`, \[S, T\]"
    assert prose.cell("|f(x)| and `a|b`") == r"\|f(x)\| and `a\|b`"
    assert (
        prose.markdown("One.\n\nTwo\nlines:\n    code  *here*\nThree.")
        == "One.\n\nTwo lines:\n\n```text\ncode  *here*\n```\n\nThree."
    )


@pytest.mark.parametrize(
    "plain, made",
    [
        (
            "strength / 2 x sum_k F_ki (p_i - p_ki)^2",
            "strength / 2 × Σ<sub>k</sub> F<sub>ki</sub> (p<sub>i</sub> - p<sub>ki</sub>)<sup>2</sup>",
        ),
        ("g <- g - (g . r) / (r . r + epsilon) r", "g ← g - (g . r) / (r . r + ε) r"),
        (
            "N(mu_c, e^s_c), e^(v / 2), (1 + H)^{-1}",
            "N(μ<sub>c</sub>, e<sup>s<sub>c</sub></sup>), e<sup>v / 2</sup>, (1 + H)<sup>-1</sup>",
        ),
        ("max_{l<T} a[l, j] <= 1", "max<sub>l&lt;T</sub> a[l, j] ≤ 1"),
        ("for rows x of numbers, per_class and DER(alpha=0.1)", "for rows x of numbers, per_class and DER(alpha=0.1)"),
        ("rate x grad L", "rate × grad L"),
        ("min_accuracy, argmin_c f_old(x)", "min_accuracy, argmin<sub>c</sub> f<sub>old</sub>(x)"),
    ],
)
def test_formulas_are_set(plain, made):
    assert formulas.typeset(plain, "rate|strength") == made


def test_signatures_are_those_of_the_code():
    penalty = "def penalty( self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs ) -> Tensor:"
    assert penalty in " ".join(api.verbs().split())
    assert max(map(len, api.verbs().splitlines())) <= api.WIDTH + 4
    for code in (api.verbs(), api.draws(), api.learner_verbs(), api.member_verbs(), api.meta_verbs()):
        ast.parse(re.sub(r"(?s).*```py\n|```$", "", code))
    assert [name for name in re.findall(r"^def (\w+)", api.verbs(), re.MULTILINE)] == list(VERBS)
    assert "generator: torch.Generator" in api.verbs()
    for name in vars(Strategy).get("__annotations__", {}):
        assert f"`{name}`" in api.declared(), name
    assert "def query_scores(" in api.meta_verbs() and "def after_task(" in api.learner_verbs()


def test_the_public_surface_is_whole():
    for package, page in (("lifelong", "api-lifelong"), ("scenarios", "api-scenarios")):
        for name in api.public(package):
            assert f"\n## {name}\n" in REFERENCE[page], name
    assert REFERENCE["commands"].count("Usage: lifelong ") >= 17
    assert "+ " not in REFERENCE["commands"].partition("Usage")[0]


def test_tables_that_pages_ask_for_are_whole():
    assert all(f"| `{name}` |" in INSERTED["metrics"]() for name in METRICS)
    assert all(f"| `{name}` |" in INSERTED["scenarios"]() for name in CATALOGUE)
    asked = {
        word
        for path in blocks.pages()
        for word in re.findall(r"^<!-- made: ([\w -]+) -->$", path.read_text(), re.MULTILINE)
    }
    assert asked == set(INSERTED)


def test_links_between_pages_lead_somewhere():
    """On GitHub, too: README and pages; what is made is there once the site is built."""
    made = {f"{name}.md" for name in (*MADE, *REFERENCE)}
    seen = 0
    for path in blocks.pages():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", re.sub(blocks.FENCE, "", path.read_text())):
            assert not target.startswith("http"), (path.name, target)
            if target.startswith("catalogue/"):
                assert target.removeprefix("catalogue/") in made, (path.name, target)
            else:
                assert (path.parent / target).exists(), (path.name, target)
            seen += 1
    assert seen > 60


def test_what_a_page_shows_is_made_by_running_it(tmp_path, monkeypatch):
    """A stale output is replaced, later blocks see earlier ones, and what takes minutes is left as it stands."""
    monkeypatch.chdir(tmp_path)
    page = (
        "```python\nx = 2\n```\n\nThen:\n\n```python\nprint(x + 1)\n```\n\n```text\n7\n```\n\n"
        "```shell\nlifelong compare few-omniglot --paradigms all\n```\n\n```text\nas it was\n```\n"
    )
    assert outputs.renewed(page, everything=False) == page.replace("```text\n7\n", "```text\n3\n")


def test_the_site_builds_without_a_warning_and_asks_the_network_for_nothing(tmp_path):
    if importlib.util.find_spec("sphinx") is None:
        pytest.skip("the extra docs is not installed")
    words = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-b", "html", str(ROOT / "docs"), str(tmp_path / "site")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    site = tmp_path / "site"
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']([^\"']+)", text)
        loaded += re.findall(
            r"<link\b(?=[^>]*rel=[\"'](?:stylesheet|preload|icon|preconnect))[^>]*href=[\"']([^\"']+)", text
        )
        assert loaded and not [place for place in loaded if re.match(r"(?:https?:)?//", place)], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?https?:", style.read_text()), style.name
    llms = (site / "llms.txt").read_text()
    assert (
        llms.startswith("# lifelong\n\n> Continual learning")
        and "`lifelong compare`" in llms
        and "`after_task(self" in llms
    )
    places = re.findall(r"\]\(([\w/-]+\.md)\)", llms)
    assert len(places) > 40 and all((site / place).exists() for place in places)
    plain = (site / "own-strategy.md").read_text()
    assert "<!-- made" not in plain and "def penalty(" in plain
    assert "F<sub>ki</sub>" in (site / "catalogue/strategies-regularisation.html").read_text()
