"""The words of the command line: one file a command, named after it, with a function of the same name.

A file is imported when its command is used. What the overview says of the others stands here.
"""

from __future__ import annotations

LEARN, STARTS, RESULTS, YOURS, DATA = "Learn", "Starts and transfer", "Results", "Names and files of yours", "Data"

COMMANDS = {  # name: its group, and the first sentence of its help
    "run": (LEARN, "Learn a scenario with many seeds at once, and measure it."),
    "resume": (LEARN, "Go on with a run that was stopped or killed."),
    "compare": (LEARN, "Run several methods on the same seeds and data, side by side."),
    "pretrain": (STARTS, "Learn a start on a scenario's background classes, for --init."),
    "meta-test": (STARTS, "Test starts on classes that they never saw."),
    "crossover": (STARTS, "Say from how many examples on fine-tuning beats a meta-learner."),
    "transfer": (STARTS, "Learn each task, adapt to each other one, compare with scratch."),
    "similarity": (STARTS, "Say which earlier task fits, and whether such scores hold."),
    "distil": (STARTS, "Teach a fresh network by a finished run, on fewer rows."),
    "show": (RESULTS, "Show finished runs: one in full, several like with like."),
    "report": (RESULTS, "Write one HTML page about finished runs."),
    "export": (RESULTS, "Write finished runs as a table for other programs."),
    "reproduce": (RESULTS, "Run published tables again: protocol, ours, theirs, verdict."),
    "list": (YOURS, "List what can be named: scenarios, strategies, models ..."),
    "explain": (YOURS, "Say what a strategy's parts change, store and cost."),
    "new": (YOURS, "Write a small working file to start from."),
    "check": (YOURS, "Run the contract on your own file, one line for each check."),
    "features": (DATA, "Compute the features of a data set once, as a data set."),
    "data": (DATA, "Data sets: what there is, and fetching it."),
}
