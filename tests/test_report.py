"""The report: its numbers are the results', its sentences are what is established, and nothing of it is cut, anywhere."""

from __future__ import annotations

import copy
import html
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from lifelong import metrics
from lifelong.core.result import Result
from lifelong.display.report import figures
from lifelong.display.report.drawing import round_limits
from lifelong.display.report.files import as_bytes, of_group
from lifelong.display.report.measured import measured
from lifelong.display.report.page import page
from lifelong.display.report.svg import inline
from lifelong.runs.execute import execute
from lifelong.runs.folder import Loaded, load
from lifelong.runs.groups import RunGroup, groups_of
from lifelong.runs.request import Request
from lifelong.studies.differences import FEWEST, Difference, Name, answer, differences
from tests.pages import BROWSER, measure, printed

PLAIN = Request("split-blobs", seeds=(0, 1, 2), iterations=30, eval_every=15, eval_rows=50, device="cpu")
LONG = "EWC(strength=1000.0, online=True) + Replay(size=200, memory=Ring()) + LwF(strength=0.5, temperature=2.0)"
HOSTILE = "<img src=x onerror=alert(1)>$\\frac{</script>\"'&\x1b[31m"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Loaded]:
    """Three methods and two references, for real."""
    path = tmp_path_factory.mktemp("runs")
    words = [
        {},
        {"strategy": "Replay(size=20)"},
        {"learner": "NearestClassMean()"},
        {"baseline": "joint"},
        {"baseline": "isolate"},
    ]
    for i, word in enumerate(words):
        execute(replace(PLAIN, **word), out=path, name=f"{i}")
    return [load(path / f"{i}") for i in range(len(words))]


@pytest.fixture(scope="module")
def group(runs) -> RunGroup:
    (group,) = groups_of(runs)
    return group


@pytest.fixture(scope="module")
def text(group) -> str:
    return page([group])


def invented(
    run: Loaded, name: str, seeds: int = 3, tasks: int = 5, way: int = 0, level: float = 0.5, **words
) -> Loaded:
    """A run like another, of another method, with accuracies drawn around a level; way: evaluations inside a task."""
    moments = [(0, 0, 0, 50)]
    for task in range(tasks):
        moments += [(task, i + 1, 0, 50) for i in range(way)] + [(task, way + 1, 1, 50)]
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    noise = torch.rand(seeds, len(moments), tasks, generator=generator, dtype=torch.float64)
    view = copy.copy(run)
    view.request = replace(run.request, strategy=name, seeds=tuple(range(seeds)))
    lost = torch.full((seeds, 2), -1)
    view.result = Result(
        (level + 0.1 * (noise - 0.5)).clamp(0, 1), torch.tensor(moments), torch.zeros(seeds, tasks), torch.rand(seeds, tasks, 4),
        lost, tuple(range(seeds)), **words,
    )  # fmt: skip
    return view


def alone(*views: Loaded, title: str = "invented") -> RunGroup:
    return RunGroup(title, {view.request.strategy: view for view in views})


# --- numbers ----------------------------------------------------------------------------------------------------------


class Tables(HTMLParser):
    """The cells of all tables as [head, row, value], and the titles of all marks."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[tuple[str, str, str]] = []
        self.titles: list[str] = []
        self.row, self.head, self.inside, self.words = "", "", "", ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("td", "title") or (tag == "th" and given.get("scope") == "row"):
            self.inside, self.words, self.head = tag, "", given.get("data-of", "")

    def handle_data(self, data):
        self.words += data if self.inside else ""

    def handle_endtag(self, tag):
        if tag != self.inside:
            return
        if tag == "th":
            self.row = self.words
        elif tag == "td":
            self.cells.append((self.head, self.row, self.words))
        else:
            self.titles.append(self.words)
        self.inside = ""


def test_every_number_of_the_tables_is_the_results(group, text):
    cells = Tables(text).cells
    for name, result in group.results.items():
        given = metrics.summary(result)
        shown = {head.replace(" ", "_"): value for head, row, value in cells if row == name}
        same = dict(re.findall(r"note>([\w ]+): in each cell as ([\w ]+)<", text))
        for metric, value in given.items():
            column = metric if metric in shown else same[metric.replace("_", " ")].replace(" ", "_")
            assert shown[column] == value.text(), (name, metric)
        assert set(shown) & set(metrics.METRICS) >= set(given) - {word.replace(" ", "_") for word in same}
        (each,) = (value for head, row, value in cells if row == name and "seed 0" in value)
        assert re.findall(r"seed (\d) ([\d.]+)", each) == [
            (f"{seed}", f"{100 * v:.2f}")
            for seed, v in zip(result.seeds, given["average_accuracy"].per_seed, strict=True)
        ]
        assert shown["seconds_of_training"] == f"{result.seconds['training']:.1f}"
    found = differences(group.results)
    assert len(found) == 10
    for d in found:
        points = [value for head, row, value in cells if row == d.better and head == "by, points"]
        assert d.points in points


def test_every_mark_says_what_the_results_say(group, text):
    titles = set(Tables(text).titles)
    for name, result in group.results.items():
        if result.paradigm != "continual":
            continue
        for t, j in itertools.product(range(5), range(5)):
            value = metrics.estimate(result.at_task_ends[:, t, j])
            assert f"task {j + 1} after task {t + 1}: {100 * value.mean:.1f} %" in titles
            if j <= t:
                assert f"{name}, task {j + 1} after task {t + 1}: {value.text()} %" in titles
        for t in range(5):
            value = metrics.estimate(result.at_task_ends[:, t, : t + 1].mean(1))
            assert f"{name}, after task {t + 1}: {value.text()} %" in titles
        for seed, value in zip(result.seeds, result.at_task_ends[:, -1].mean(1).tolist(), strict=True):
            assert f"{name}, seed {seed}: {100 * value:.2f} %" in titles


def test_a_mark_stands_where_its_number_says(group):
    """The heights of the marks in the drawing itself, read back through the axis' own ticks."""
    shown = measured(group)
    drawing = figures.along(shown)
    text = inline(drawing, 1)
    ticks = re.findall(r'text-anchor: end; fill: var\(--muted\)" x="[\d.]+" y="([\d.]+)">([\d.]+)<', text)
    (y1, v1), (y2, v2) = ((float(y), float(v)) for y, v in (ticks[0], ticks[-1]))
    height = drawing.figure.axes[0].transData.transform((0, v1))[1]
    base = 420 - height * 72 / drawing.figure.dpi
    slope = (v2 - v1) / (y2 - y1)
    marks = re.findall(
        r'<use href="[^"]+" x="[\d.]+" y="([\d.]+)" style="[^"]*"><title>[^<]*: ([\d.]+)[^<]*</title>', text
    )
    assert len(marks) == 15
    for y, value in marks:
        assert abs(v1 + (float(y) - base) * slope - float(value)) < 0.1


# --- sentences --------------------------------------------------------------------------------------------------------


def result_of(values: list[float], seeds: tuple[int, ...] = ()) -> Result:
    """A run of one task whose seeds end at these accuracies."""
    accuracy = torch.tensor(values, dtype=torch.float64)[:, None, None].expand(-1, 2, 1)
    count = len(values)
    return Result(
        accuracy, torch.tensor([[0, 0, 0, 9], [0, 5, 1, 9]]), torch.zeros(count, 1), torch.zeros(count, 1, 1),
        torch.full((count, 2), -1), seeds or tuple(range(count)),
    )  # fmt: skip


def test_differences_are_students_and_corrected_by_holm():
    from scipy.stats import ttest_rel

    drawn = torch.Generator().manual_seed(3)
    results = {name: result_of((level + 0.02 * torch.randn(5, generator=drawn)).tolist()) for name, level in (("a", 0.5), ("b", 0.52), ("c", 0.8), ("d", 0.5))}  # fmt: skip
    found = {frozenset((d.better, d.worse)): d for d in differences(results)}
    assert len(found) == 6
    ends = {name: result.at_task_ends[:, -1, 0].numpy() for name, result in results.items()}
    plain = {pair: float(ttest_rel(*(ends[name] for name in sorted(pair))).pvalue) for pair in found}
    highest = 0.0
    for k, pair in enumerate(sorted(plain, key=lambda pair: plain[pair])):
        highest = max(highest, min(1.0, (6 - k) * plain[pair]))
        assert found[pair].p == pytest.approx(highest, rel=1e-6), pair
        gap = ends[found[pair].better] - ends[found[pair].worse]
        assert found[pair].value.mean == pytest.approx(gap.mean()) and gap.mean() >= 0
    assert 0 < sum(d.established for d in found.values()) < 6


def words(sentences) -> list[str]:
    return ["".join(sentence) for sentence in sentences]


def said(results: dict[str, Result], plain: str = "", references: dict[str, str] | None = None):
    ranked = sorted(set(results) - set(references or {}), key=lambda name: -float(results[name].at_task_ends.mean()))
    return answer(differences(results), ranked, references or {}, plain, "average accuracy", 9)


def test_what_is_established_is_said_and_nothing_else():
    results = {
        "Replay": result_of([0.90, 0.92, 0.91, 0.93, 0.92]),
        "LwF": result_of([0.40, 0.43, 0.41, 0.42, 0.44]),
        "Fine": result_of([0.20, 0.21, 0.20, 0.22, 0.21]),
        "SI": result_of([0.21, 0.20, 0.21, 0.21, 0.22]),
        "joint": result_of([0.97, 0.98, 0.97, 0.98, 0.97]),
    }
    found = said(results, "Fine", {"joint": "joint"})
    text = words(found.sentences)
    assert text[0].startswith("Replay beats LwF by 49.6 ± ") and text[0].endswith("points of average accuracy")
    assert text[1].startswith("Fine is also beaten by LwF by 21.2 ± ") and "SI" not in text[1]
    assert text[2] == "No difference from Fine is established of SI"
    assert text[3].startswith("joint, all tasks at once, is 5.8 ± ") and text[3].endswith("above Replay")
    assert "5 seeds" in found.how and "all 10 comparisons; 9 of them are established" in found.how
    assert isinstance(found.sentences[0][0], Name)


def test_a_difference_by_chance_is_not_called_one():
    """The same values in another order: equal means, and nothing to say."""
    values = [0.5, 0.6, 0.7, 0.55, 0.65]
    found = said({"a": result_of(values), "b": result_of([v + 0.001 for v in reversed(values)])})
    assert words(found.sentences)[0].startswith("Nothing is established. b measured highest, above a by 0.1 ± ")
    assert "the one comparison" in found.how


def test_few_seeds_are_too_few_to_say():
    """However far apart they are."""
    two = {"a": result_of([0.9, 0.9]), "b": result_of([0.1, 0.1])}
    assert FEWEST == 3 and all(d.p is None and not d.established for d in differences(two))
    found = answer(differences(two), ["a", "b"], {}, "", "average accuracy", 2)
    assert found.sentences == () and "2 seeds are too few to say" in found.how
    apart = {"a": result_of([0.9] * 4, (0, 1, 2, 3)), "b": result_of([0.1] * 4, (2, 3, 4, 5))}
    assert "no two methods share 3 seeds" in answer(differences(apart), ["a", "b"], {}, "", "x", 4).how


def test_the_best_of_all_may_be_the_lesser_on_the_seeds_that_both_have():
    """A seed that one run lacks lifts the other's mean: no method is said to beat itself, and none the one that beats it."""
    results = {"a": result_of([0.9, 0.91, 0.92, 1.0, 1.0]), "b": result_of([0.93, 0.945, 0.952], (0, 1, 2))}
    assert words(said(results).sentences) == [
        "On the seeds that both have, a is beaten by b by 3.2 ± 0.6 points of average accuracy"
    ]
    results["b"] = result_of([0.89, 0.92, 0.93], (0, 1, 2))
    (first, second) = words(said(results).sentences)
    assert first == "Nothing is established"
    assert second.startswith("On the seeds that both have, a is below b by 0.3 ± ") and second.endswith(
        "not established"
    )


def test_level_is_not_above_and_small_is_not_nothing():
    """The last bit of a sum is no difference, and a difference that is there has digits."""
    for other in ([0.6] * 3, [0.6 + 1.2e-16] * 3):
        (only,) = words(said({"a": result_of([0.6] * 3), "b": result_of(other)}).sentences)
        assert only.startswith("Nothing is established. ") and "level with" in only and "0.0" not in only
    (only,) = words(said({"a": result_of([0.6, 0.7, 0.8]), "b": result_of([0.6002, 0.7003, 0.8003])}).sentences)
    assert only == "b beats a by 0.03 ± 0.01 points of average accuracy"
    best, level = result_of([0.9, 0.91, 0.92]), result_of([0.91, 0.92, 0.9])
    text = words(said({"a": best, "b": level, "c": result_of([0.1, 0.11, 0.12])}, "", {"c": "joint"}).sentences)
    assert "a is level with b" in text or "b is level with a" in text


def test_also_is_said_where_the_best_beats_fine_tuning_too():
    wide = {"a": result_of([0.99, 0.22, 0.99, 0.21, 0.99]), "b": result_of([0.6, 0.61, 0.6, 0.61, 0.6])}
    text = words(said(wide | {"fine": result_of([0.2, 0.2, 0.21, 0.2, 0.2])}, "fine").sentences)
    assert any(line.startswith("fine is beaten by b by") for line in text) and not any("also" in line for line in text)


def test_seeds_that_differ_are_counted_and_said(runs):
    apart = invented(runs[0], "apart")
    apart.request = replace(apart.request, seeds=(3, 4, 5))
    apart.result = replace(apart.result, seeds=(3, 4, 5))
    text = page([alone(invented(runs[0], "a"), apart)])
    assert "3 seeds each, not the same for all" in text and "no two methods share 3 seeds" in text
    single = page([alone(invented(runs[0], "a", tasks=1))])
    assert "<span>1 task</span>" in single and "after 1 task<" in single


def test_a_method_that_lost_all_seeds_takes_no_interval_from_the_others(runs):
    gone = invented(runs[0], "gone")
    gone.result = replace(gone.result, diverged=torch.zeros(3, 2, dtype=torch.int64))
    text = page([alone(gone, invented(runs[0], "a"), invented(runs[0], "b"))])
    assert "band: 95 % interval" in text and "%, mean ± half-width of the 95 % interval over seeds" in text


def test_what_learns_at_once_or_apart_is_not_said_to_keep_nothing(group):
    """All rows are there for joint learning, and isolated learning has a network for each task."""
    for method in measured(group).methods:
        known = method.cost.stored is not None
        assert known == (method.result.paradigm == "continual"), method.name


def test_a_long_number_stays_on_the_paper(runs):
    """Explained variance may be far below 0."""
    low = invented(runs[0], "low", numbers=tuple(range(5)))
    low.result = replace(low.result, accuracy=-300 * torch.rand(3, 6, 5, dtype=torch.float64))
    for size in ((520, 200), (360, 200)):
        drawing = figures.ranking(measured(alone(low, invented(runs[0], "b", numbers=tuple(range(5))))), *size)
        box = drawing.figure.get_tightbbox()
        assert 72 * box.x0 >= 0 and 72 * box.x1 <= size[0], (size, box)


def test_of_many_the_closest_are_named():
    near = {f"m{i}": result_of([0.9 - 0.05 * i + 0.001 * s for s in (0, 1, 0, 1, 0)]) for i in range(12)}
    near["m1"] = result_of([0.85, 0.852, 0.849, 0.851, 0.85])
    (first, *_) = words(said(near).sentences)
    assert (
        first.startswith("m0 beats m1 by 5.0") and "and 6 others by 30.0 to 55.0 points" in first and "m7" not in first
    )


def test_the_page_says_what_the_sentences_say(group, text, runs):
    ranked = [method.name for method in measured(group).rivals]
    assert set(ranked) == {"FineTuning()", "Replay(size=20)", "NearestClassMean()"}
    references = {"joint": "joint", "isolate": "isolate"}
    found = answer(differences(group.results), ranked, references, "FineTuning()", "average accuracy", 3)
    shown = [html.unescape(re.sub(r"<[^>]*>", "", line)) for line in re.findall(r"<li>(.*?)</li>", text)]
    assert shown == words(found.sentences) and len(shown) >= 2 and html.escape(found.how) in text
    (single,) = groups_of(runs[:1])
    single_page, result = page([single]), runs[0].result
    ends = result.at_task_ends.mean(0)
    drops = [float(ends[j, j] - ends[-1, j]) for j in range(4)]
    worst = max(range(4), key=lambda j: drops[j])
    assert (
        f"most on task {worst + 1}, from {100 * ends[worst, worst]:.1f} % when it was just learned to {100 * ends[-1, worst]:.1f} %"
        in single_page
    )
    assert (
        f"Forgetting: {metrics.summary(result)['forgetting'].text(1)} points" in single_page
        and "Holm" not in single_page
    )
    two = page([alone(invented(runs[0], "a", seeds=2), invented(runs[0], "b", seeds=2))])
    assert "2 seeds are too few to say" in two and "±" not in re.sub(r"<style>.*?</style>", "", two)


def test_groups_that_are_not_alike_are_never_paired(runs, group):
    other = RunGroup("other", {"a": runs[0], "b": runs[1]})
    text = page([group, other])
    sections = text.split("<section ")[1:]
    assert len(sections) == 2 and "All 10" not in sections[1] and "the one comparison" in sections[1]
    assert text.count('href="#group-') == 2 and "are not compared" in text


def test_diverged_seeds_and_tasks_of_both_kinds_are_said(runs):
    lost = invented(runs[0], "lost", seeds=5)
    lost.result = replace(lost.result, diverged=torch.tensor([[1, 2], *([[-1, -1]] * 4)]))
    lost.result.accuracy[0, 3:] = torch.nan
    gone = invented(runs[0], "gone", seeds=5)
    gone.result = replace(gone.result, diverged=torch.zeros(5, 2, dtype=torch.int64))
    text = page([alone(lost, gone, invented(runs[0], "well", seeds=5))])
    assert (
        "1 of 5 seeds diverged and is left out" in text
        and "5 of 5 seeds diverged" in text
        and "nan" not in text.lower()
    )
    assert "seed 0</b> diverged" in text and "All seeds of all methods diverged" in page([alone(gone)])
    mixed = page([alone(*(invented(runs[0], name, numbers=(1,)) for name in "ab"))])
    assert "no common mean" in mixed and "task 5" in mixed
    numbers = page([alone(*(invented(runs[0], name, numbers=(0, 1, 2, 3, 4)) for name in "ab"))])
    assert "points of average explained variance" in numbers or "average explained variance" in numbers


# --- hostile, many, long ----------------------------------------------------------------------------------------------


def test_names_are_text(runs):
    text = page(
        [alone(invented(runs[0], HOSTILE), invented(runs[0], "<b>"), title="</title><script>alert(2)")],
        title="</h1><script>alert(3)",
    )
    assert "<img" not in text and "alert(1)</script" not in text and "\x1b" not in text
    assert text.count("<script") == 1 and "onerror=alert" not in re.sub(r"&lt;img.*?&gt;", "", text)
    drawn = of_group(measured(alone(invented(runs[0], HOSTILE), invented(runs[0], "_private $x$"))))
    assert all(as_bytes(drawing, "pdf") for drawing in drawn.values())


def many(run: Loaded) -> RunGroup:
    """Thirty methods and more, some with the same long name but for its end."""
    views = [invented(run, f"Method{i}(strength={10**i % 997})", level=0.3 + 0.02 * i) for i in range(30)]
    return alone(*views, *(invented(run, f"{LONG[:-2]}{i})", level=0.2 + 0.1 * i) for i in range(4)))


@pytest.fixture(scope="module")
def many_text(runs) -> str:
    return page([many(runs[0])])


def test_pages_stay_small(runs, text, many_text):
    assert len(text) < 400_000 and len(many_text) < 2_000_000
    hundred = page([alone(*(invented(runs[0], name, tasks=100) for name in "ab"))])
    assert len(hundred) < 2_000_000 and "12 of 100 tasks" in hundred
    online = page([alone(*(invented(runs[0], name, way=300) for name in "ab"))])
    assert len(online) < 2_000_000 and re.search(r"drawn at every \d+th of 1,506 evaluations", online)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_nothing_is_cut_and_nothing_is_asked_for(runs, group, text, many_text, tmp_path):
    """At 400, 1,000 and 1,400 pixels and on paper; the first screen of 1,400 x 900 holds the answer."""
    (single,) = groups_of(runs[:1])
    low = [invented(runs[0], name, numbers=(0, 1, 2, 3, 4), level=level) for name, level in (("a", 0.51), ("b", 0.5))]
    low[1].result.accuracy[:, 6:] -= 12.0  # of numbers the scores may fall far below 0
    pages = {"plain": text, "many": many_text, "several": page([single, alone(*low)])}
    found, console = measure(pages, tmp_path)
    assert console == []
    for name, seen in found.items():
        assert seen["errors"] == [] and seen["requests"] == [], name
        assert seen["cut"] == [], (name, seen["cut"][:5])
        assert seen["outside"] == [] and seen["over"] == [], (name, seen["outside"][:5], seen["over"][:5])
        assert len(seen["ids"]) == len(set(seen["ids"])) and seen["drawn"] > 10, name
    for name in ("plain", "many"):
        ends = found[f"{name} first"]["ends"]
        assert len(ends["figures"]) == 2 and ends["title"] and ends["answer"]
        assert max(map(max, (ends[part] for part in ("title", "how", "figures")))) <= 900, (name, ends)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_probe_sees_what_is_cut(text, tmp_path):
    """The same page with a table that is too wide, letters past a drawing, and a request."""
    broken = text.replace("</footer>", '<div style="width:1500px">wide</div><img src="data:none"></footer>', 1)
    broken = re.sub(r'(<text [^>]*?)x="[\d.]+"', r'\1x="-90"', broken, count=1).replace(
        "<script>", "<script>console.error('no');", 1
    )
    found, console = measure({"broken": broken}, tmp_path)
    assert (
        any("wide" in words for _, words, *_ in found["broken 1400"]["cut"])
        and found["broken 1400"]["outside"]
        and console
    )


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_it_prints(text, tmp_path):
    content = printed(text, tmp_path)
    assert content.startswith(b"%PDF") and 3 <= len(re.findall(rb"/Type ?/Page\b", content)) <= 9


# --- files and the command --------------------------------------------------------------------------------------------


def test_figures_are_written_for_papers(cli, runs, group, tmp_path):
    words = ("--figures", "figures", "--title", "A <title>")
    code, _, errors = cli("report", *(run.path for run in runs), *words)
    assert code == 0 and "figures: 11 in figures" in errors, errors
    files = sorted((tmp_path / "figures").iterdir())
    assert {"along", "ranking", "tasks", "seeds", "loss", "accuracy-against-seconds"} < {file.stem for file in files}
    assert len(files) == 11 and all(file.suffix == ".pdf" and file.read_bytes().startswith(b"%PDF") for file in files)
    assert "<h1>A &lt;title&gt;</h1>" in (tmp_path / "report.html").read_text()
    drawing = figures.with_legend(figures.along(measured(group)), measured(group))
    names = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert names == [method.name for method in measured(group).ranked]
    assert as_bytes(drawing, "png").startswith(b"\x89PNG") and as_bytes(drawing, "svg").startswith(b"<?xml")


def test_equal_results_give_equal_files(group, text):
    first, second = (as_bytes(of_group(measured(group))["tasks"], kind) for kind in ("svg", "svg"))
    assert first == second and page([group]) == text


@pytest.mark.parametrize(
    "words, match",
    [
        (("nowhere",), "not a run"),
        (("RUN", "--format", "gif"), "--format 'gif'"),
        (("RUN", "--output", "/proc/page.html"), "cannot be written"),
        (("RUN", "--output", "missing/page.html"), "cannot be written"),
        (("RUN", "--figures", "/proc/figures"), "cannot be made"),
    ],
)
def test_what_cannot_be_reported_is_one_line(cli, runs, words, match):
    code, _, errors = cli("report", *(str(runs[0].path) if word == "RUN" else word for word in words))
    refused = [line for line in errors.splitlines() if not line.startswith("report: ")]
    assert code == 2 and len(refused) == 1 and match in refused[0], errors


@pytest.mark.parametrize(
    "values", [[100.0], [0.0, 0.0], [99.9, 100.0], [12.3], [-250.0, 80.0], [float("nan")], [0.31, 0.32]]
)
def test_axes_are_round_and_hold_their_values(values):
    bottom, top = round_limits(values)
    assert bottom < top and all(bottom <= value <= top for value in values if value == value)


def test_a_difference_is_a_record():
    value = metrics.estimate(torch.tensor([0.1, 0.2, 0.3]))
    assert Difference("a", "b", value).points == "20.0 ± 24.8" and not Difference("a", "b", value).established


def test_data_that_are_not_there_are_not_asked_for(runs, tmp_path, monkeypatch):
    """What is kept is then unknown: a page is no reason for a download."""
    away = copy.copy(runs[0])
    away.__dict__.pop("resolved", None)  # what was cached of the other run
    away._resolved = {**runs[0].resolved, "data": {**runs[0].resolved["data"], "name": "mnist"}}
    away.request = replace(runs[0].request, scenario="split-mnist", data_root=str(tmp_path / "empty"))
    monkeypatch.setattr(Request, "build", lambda self: pytest.fail("the data were asked for"))
    assert measured(RunGroup("away", {"away": away})).first.cost == (None, None)
    assert not (Path(tmp_path) / "empty").exists()


def test_one_task_is_one_task_over_the_tables_of_paradigms():
    from lifelong.studies.comparison import caption

    about = {"seeds": [0, 1], "trained tasks": 1, "examples": 1280, "tasks to choose by": 1, "held-out tasks": 2}
    assert "; 1 task trained on, 1,280" in caption(about) and "on 1 task that nobody" in caption(about)
    assert "; 2 tasks trained on" in caption(about | {"trained tasks": 2})
