"""Command lines that nobody would write, and what must hold of every one of them.

`lines.py` makes them, `worker.py` runs them, `verdict.py` judges; `python -m tests.fuzz 20000` does all three.
"""
