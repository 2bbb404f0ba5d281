"""Every command and every block of Python that README and the pages show is run, page by page, in its order, in one folder.

With small budgets: a repeated option counts once, as it was given last, so each command runs as it stands with those of
`SMALL` behind it. Data that need a download are stood in for by noise of the same shape (`STAND_INS`). `make` itself is
not run, as it would install; its commands are read by `make -n`, and those of them that are ours are run. What a page
says that a block prints is compared word by word; numbers depend on the budget, and words do not.
"""

from __future__ import annotations

import glob
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lifelong.display import console
from scenarios.stream import Budget

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "docs/_ext"))

import blocks as of_pages  # noqa: E402 # found by the path above
from blocks import Block, blocks_of, words_of  # noqa: E402

README = (ROOT / "README.md").read_text()
PAGES = {path.name: path for path in of_pages.pages()}
RUN = [
    name
    for name, path in PAGES.items()
    if any(b.commands or b.language == "python" for b in blocks_of(path.read_text()))
]
STAND_INS = {  # classes, training and test rows of each, side of the images
    "mnist": (10, 12, 4, 28),
    "omniglot": (280, 16, 4, 28),
    "omniglot-background": (60, 16, 4, 28),
}
QUICK = ["--seeds", "2", "--iterations", "3", "--device", "cpu", "--threads", "1"]
SMALL = {
    "run": QUICK,
    "compare": QUICK,
    "pretrain": ["--episodes", "4"],
    "meta-test": [],
    "crossover": ["--episodes", "2", "--steps", "2"],
    "transfer": [*QUICK, "--steps", "2"],
    "similarity": [*QUICK, "--rows", "5"],
    "distil": ["--iterations", "3"],
}
ALSO = {  # words of a command, and what it needs besides
    "--paradigms": ["--model", "MLP(8)", "--iterations", "4", "--few-shot", "1,2"],
    "--ingredients": ["--model", "MLP(8)", "--few-shot", "1", *("--meta", "MAML(iterations=2, tasks=2)")],
    "run split-omniglot": ["--iterations", "1", "--batch", "2"],
    "--shot": ["--episodes", "4"],
    "--online": ["--online", "3", "--runs", "1"],
    "MAML(rotations=True)": ["--init", "MAML(rotations=True, iterations=2, tasks=2, query=2)"],
    "MyMeta(": ["--init", "my_meta.py:MyMeta(iterations=2, tasks=2)", "--model", "MLP(8)"],
    "--init start.safetensors": ["--model", "MLP(8)"],
    "meta-test start.safetensors": [],
}
LEFT_OUT = {"--ingredients": {"OML"}}  # words of a command, and those of its output that the small budget takes away
SHORTER = {  # what a block of Python says, and the same with a small budget
    'build("split-digits")': 'build("split-digits", budget=Budget(iterations=2, batch=8))',
}


def small(command: str) -> list[str]:
    """The words of a command after `lifelong`, with a small budget behind them."""
    words = shlex.split(command)[1:]
    more = [word for name, options in ALSO.items() if name in command for word in options]
    listed = [
        path for word in words for path in (sorted(glob.glob(word)) if "*" in word and "(" not in word else [word])
    ]
    return [*listed, *SMALL.get(words[0], []), *more]


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """An empty folder, with stand-ins for data that would be downloaded."""
    from scenarios import datasets

    def noise(classes: int, train: int, test: int, side: int):
        def read(root):
            y = torch.arange(classes)
            random = torch.Generator().manual_seed(classes)
            parts = [
                (torch.randint(256, (classes * n, side, side), generator=random).to(torch.uint8), y.repeat(n))
                for n in (train, test)
            ]
            return datasets.dataset_from_arrays("noise", *parts[0], *parts[1])

        return read

    for name, sizes in STAND_INS.items():
        monkeypatch.setitem(datasets.DATASETS, name, replace(datasets.DATASETS[name], read=noise(*sizes), content=""))
    monkeypatch.setenv("LIFELONG_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_metrics():
    """A metric that a page registers is gone after it."""
    from lifelong.metrics import METRICS, NEEDS

    before = dict(METRICS), dict(NEEDS)
    yield
    for kept, names in zip((METRICS, NEEDS), before, strict=True):
        kept.clear()
        kept.update(names)


def called(command: str, monkeypatch, capsys) -> str:
    """What a command prints, with a small budget; it must end well."""
    import cli

    monkeypatch.setattr(sys, "argv", ["lifelong", *small(command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 0, (command, said.err)
    assert said.out or said.err, command
    return said.out


def executed(block: Block, page: str, names: dict, capsys) -> str:
    """What a block of Python prints; names: what the page's blocks before it defined."""
    text = block.text
    for words, fewer in SHORTER.items():
        text = text.replace(words, fewer)
    exec(compile(text, page, "exec", dont_inherit=True), names)
    return capsys.readouterr().out


@pytest.mark.parametrize("page", RUN)
def test_every_block_works_and_prints_what_the_page_says(page, readers_folder, own_metrics, monkeypatch, capsys):
    for stream in (console.output, console.errors):  # which may have been made before, for another width
        monkeypatch.setattr(stream, "_width", 100)
    names: dict = {"__name__": "__main__", "Budget": Budget}
    for block in blocks_of(PAGES[page].read_text()):
        if block.language == "python":
            said = executed(block, page, names, capsys)
        else:
            ours = [command for command in block.commands if command.startswith("lifelong ")]
            said = "".join([called(command, monkeypatch, capsys) for command in ours])
        if block.shown:
            fewer = {word for name, words in LEFT_OUT.items() if name in block.text for word in words}
            missing = words_of(block.shown.text) - words_of(said) - fewer
            assert words_of(block.shown.text) and not missing, (page, block.text, missing, said)
    for report in re.findall(r"--(?:report|output) (\S+\.html)", PAGES[page].read_text()):
        assert (readers_folder / report).exists()


def test_what_runs_is_more_than_the_readme():
    assert len(RUN) >= 12 and "README.md" in RUN
    count = sum(len(b.commands) for name in RUN for b in blocks_of(PAGES[name].read_text()))
    assert count >= 60


def test_a_wrong_output_would_be_seen():
    page = "```python\nprint('average accuracy')\n```\n\n```text\naverage accuracy, forgetting\n```\n"
    (block,) = blocks_of(page)
    assert block.shown and words_of(block.shown.text) - words_of("average accuracy") == {"forgetting"}
    apart = page.replace("```\n\n```text", "```\n\nAnd then:\n\n```text")
    assert [block.shown for block in blocks_of(apart)] == [None, None]


def test_predictions_are_right_in_the_datas_own_labels(readers_folder, capsys):
    """The last rows of the page from Python, by their numbers: mostly rows that it learned."""
    names: dict = {"__name__": "__main__"}
    shown = [b for b in blocks_of(PAGES["python.md"].read_text()) if "Request(" in b.text or "load_dataset" in b.text]
    assert len(shown) == 2
    for block in shown:
        said = executed(block, "python.md", names, capsys)
    accuracy = [float(word) for word in re.findall(r"0\.\d+", said)]
    assert len(accuracy) == 3 and min(accuracy) > 0.8, said


def test_commands_that_are_named_in_sentences_are_there():
    """Words and options; a command in a sentence is not run."""
    import typer

    from lifelong.commands import COMMANDS
    from lifelong.commands.group import loaded

    options = {}
    for name in COMMANDS:
        command = loaded(name)
        inner = [command, *(getattr(command, "commands", None) or {}).values()]
        options[name] = {word for each in inner for p in each.params for word in p.opts} | {"--help"}
    seen = 0
    for name, path in PAGES.items():
        text = re.sub(of_pages.FENCE, "", path.read_text())
        for words in re.findall(r"`lifelong ([^`]+)`", text):
            command, *rest = words.split()
            if command.startswith("--") or not command.islower() or command == "COMMAND":
                continue
            assert command in COMMANDS, (name, words)
            for option in re.findall(r"(?<=\s)--[\w-]+", " ".join(rest)):
                assert option in options[command], (name, words)
            seen += 1
    assert seen >= 10 and typer


def test_python_stands_before_the_tables():
    """Who looks for a library sees one before anything else; and the page is short."""
    assert README.index("```python") < README.index("method   ")
    assert len(README.splitlines()) <= 95


def test_every_python_block_is_right_for_a_type_checker(tmp_path):
    """Each page's blocks as a user's own file; and a block with a plain mistake is not."""
    shown = {
        name: "\n".join(b.text for b in blocks_of(path.read_text()) if b.language == "python")
        for name, path in PAGES.items()
    }
    shown = {name: text for name, text in shown.items() if text}
    assert len(shown) >= 7
    for name, text in shown.items():
        (tmp_path / f"{Path(name).stem.replace('-', '_').lower()}_page.py").write_text(text)
    (tmp_path / "wrong.py").write_text(
        'from lifelong import Lerner, Learner, build, run\nrun(Learner(strategy="EWC()"), build("split-blobs"))\n'
    )
    rules = ("ArgumentType", "CallIssue", "ReturnType", "AttributeAccessIssue", "IndexIssue")
    settings = {"typeCheckingMode": "basic", "extraPaths": [str(ROOT)], **{f"report{rule}": "error" for rule in rules}}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    words = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    seen = [(Path(found["file"]).name, found["message"]) for found in json.loads(done.stdout)["generalDiagnostics"]]
    assert [words for words in seen if words[0] != "wrong.py"] == []
    mistakes = [message for file, message in seen if file == "wrong.py"]
    assert len(mistakes) == 2 and "Lerner" in mistakes[0] and "Strategy" in mistakes[1], mistakes


def test_every_make_target_is_there_and_its_commands_can_be_run(readers_folder, monkeypatch, capsys):
    import cli

    commands = [command for name in RUN for b in blocks_of(PAGES[name].read_text()) for command in b.commands]
    targets = {shlex.split(command)[1] for command in commands if command.startswith("make ")}
    targets |= {word for path in PAGES.values() for word in re.findall(r"`make (\w+)`", path.read_text())}
    assert targets >= {"demo", "test", "docs", "reference", "bench", "methods"}
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    done = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    demo = [line.partition("lifelong ")[2] for line in done.stdout.splitlines() if "bin/lifelong " in line]
    assert len(demo) == 2, done.stderr
    for line in demo:
        monkeypatch.setattr(sys, "argv", ["lifelong", *small(f"lifelong {line}"), "--eval-every", "2"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert ended.value.code == 0 and "difference" in said.out, said.err
    monkeypatch.setattr(sys, "argv", ["lifelong", "show", "runs/demo"])  # as a reader would look at it
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 0 and "task-incremental" in said.out and "class-incremental" in said.out
