"""Every command and every block of Python that the README shows is run, in its order, in one folder.

With small budgets: a repeated option counts once, as it was given last, so each command runs as it stands with those of
`SMALL` behind it. Data that need a download are stood in for by noise of the same shape (`STAND_INS`). `make` itself is
not run, as it would install; its commands are read by `make -n`, and those of them that are ours are run.
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

from scenarios.stream import Budget

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
STAND_INS = {  # classes, training and test rows of each, side of the images
    "mnist": (10, 12, 4, 28),
    "omniglot": (280, 16, 4, 28),
    "omniglot-background": (60, 16, 4, 28),
}
QUICK = ["--seeds", "2", "--iterations", "3", "--device", "cpu", "--threads", "1"]
SMALL = {
    "run": QUICK,
    "compare": QUICK,
    "pretrain": ["--init", "MAML(rotations=True, iterations=2, tasks=2, query=2)", "--episodes", "4"],
    "meta-test": [],
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
}


def blocks(language: str, text: str = README) -> list[str]:
    """The fenced blocks of a language, "" where none is named."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in fenced if name == language]


def commands() -> list[str]:
    """What the README tells a reader to type, comments left out: in blocks, and the comparisons named in the text."""
    shown = [line for block in blocks("") for line in block.splitlines()]
    shown += [" ".join(words.split()) for words in re.findall(r"`(lifelong compare [^`]*?)`", README, re.DOTALL)]
    lines = [re.split(r"\s#\s", line)[0].strip() for line in shown]
    return [line for line in lines if line.startswith(("lifelong ", "make ")) and "..." not in line]


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


def test_every_command_works_as_it_stands(readers_folder, monkeypatch, capsys):
    import cli

    shown = [command for command in commands() if command.startswith("lifelong ")]
    assert len(shown) >= 20
    for command in shown:
        monkeypatch.setattr(sys, "argv", ["lifelong", *small(command)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert ended.value.code == 0, (command, said.err)
        assert said.out or said.err, command
    assert (readers_folder / "report.html").exists() and (readers_folder / "runs/digits/summary.json").exists()


def test_every_python_block_works_as_it_stands(readers_folder, capsys):
    shown = blocks("python")
    assert len(shown) == 2
    short = {  # what the README says, and the same with a small budget
        'build("split-digits")': 'build("split-digits", budget=Budget(iterations=2, batch=8))',
        "range(5)": "range(2)",
        'Request("split-digits", ': 'Request("split-digits", iterations=60, ',
    }
    assert all(README.count(words) == 1 for words in short)
    for block in shown:
        for words, fewer in short.items():
            block = block.replace(words, fewer)
        exec(compile(block, "README.md", "exec", dont_inherit=True), {"Budget": Budget})
    last = capsys.readouterr().out.splitlines()[-1]
    accuracy = [float(word) for word in last.strip("[]").split()]
    assert len(accuracy) == 3 and min(accuracy) > 0.8, last  # mostly rows that it learned, answered in their own labels


def test_python_stands_before_the_tables():
    """Who looks for a library sees one before anything else."""
    assert README.index("```python") < README.index("## What you see")


def test_every_python_block_of_the_docs_works(readers_folder, capsys):
    shown = [block for page in sorted(ROOT.glob("docs/*.md")) for block in blocks("python", page.read_text())]
    assert shown
    for block in shown:
        exec(compile(block, "docs", "exec", dont_inherit=True), {"__name__": "__main__"})
    assert "Result(class-incremental, 5 tasks, seeds 0 ... 2, average accuracy" in capsys.readouterr().out


def test_every_python_block_is_right_for_a_type_checker(tmp_path):
    """As a user's own file; and a block with a plain mistake is not."""
    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    shown = [block for page in pages for block in blocks("python", page.read_text())]
    assert len(shown) >= 3
    for i, block in enumerate(shown):
        (tmp_path / f"block{i}.py").write_text(block)
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

    targets = [shlex.split(command)[1] for command in commands() if command.startswith("make ")]
    assert set(targets) >= {"demo", "test"}
    for target in [*targets, "reference", "bench"]:
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
