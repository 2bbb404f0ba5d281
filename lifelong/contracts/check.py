"""The contract on what a user's file defines: strategies, learners, models, initialisations, scenarios."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

from lifelong.contracts.initialisations import check_initialisation
from lifelong.contracts.learners import check_learner, classes_of, first_setting, on_small_network, states, stream_for
from lifelong.contracts.models import check_model, is_model
from lifelong.contracts.streams import check_stream
from lifelong.core.learner import AnyLearner, Learner
from lifelong.core.strategy import VERBS, Strategy
from lifelong.meta.initialisation_learner import InitialisationLearner
from lifelong.notation import expression
from lifelong.notation.user_code import file_of, misspelt_verbs, user_line, words_of
from scenarios.catalogue import CATALOGUE, build
from scenarios.errors import ConfigurationError
from scenarios.stream import Budget, Stream

DECLARED = ("draws", "task_draws", "prepare_draws", "notes")


def try_out(learner: AnyLearner, tasks: int = 2) -> None:
    """A few steps of a learner that a user's file has a part in; raises a ConfigurationError in one line where it breaks."""
    small = on_small_network(learner)
    subject = small.strategy if isinstance(small, Learner) else small
    try:
        stream = stream_for(subject, first_setting(subject), tasks=tasks, classes=2 * tasks)
        states(small, dataclasses.replace(stream, budget=Budget(iterations=1, batch=4)), [0])
    except ConfigurationError:
        raise
    except Exception as error:  # a user's method may raise anything
        kinds = [*classes_of(subject), type(learner)]
        path = next(filter(None, map(file_of, kinds)), "")
        words = (user_line(error, path) if path else words_of(error))[:300]
        raise ConfigurationError(f"{words}; `lifelong check {path or 'FILE.py'}` says how to mend it") from None


def check_target(target: str) -> Iterator[tuple[str, str, str, str]]:
    """The contract on what a user's file defines: (check, subject, what was seen or "", how to mend it)."""
    path, _, name = target.partition(".py:")
    path = path if path.endswith(".py") else f"{path}.py"
    known = set(CATALOGUE)
    module = expression.load_file(path, named_by_user=True)
    found: list[tuple[str, Any]] = []
    defined = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    if name and name not in defined:
        raise ConfigurationError(f"{path}: has no {name!r}: {expression.suggest(name, defined)}")
    for key in defined:
        value = getattr(module, key)
        method = inspect.isclass(value) and (issubclass(value, Strategy | AnyLearner | InitialisationLearner))
        if (not name or key == name) and method and dataclasses.is_dataclass(value):
            found.append((key, expression.make(expression.from_file(path, key), f"{path}:{key}", [], {})))
        elif (not name or key == name) and is_model(value):
            found.append((key, expression.make(expression.from_file(path, key), f"{path}:{key}", [], {}, "models")))
        elif (
            (not name or key == name) and inspect.isclass(value) and issubclass(value, Strategy | InitialisationLearner)
        ):
            raise ConfigurationError(
                f"{path}: {key} must be a frozen dataclass: write @dataclass(frozen=True) above it"
            )
    for key in sorted(set(CATALOGUE) - known) if not name else []:
        found.append((key, build(CATALOGUE[key])))
    if not found:
        raise ConfigurationError(
            f"{path}: defines no strategy, learner, model, initialisation or registered scenario to check"
        )
    for key, subject in found:
        yield (
            "its methods are verbs",
            key,
            misspelt(type(subject)),
            "A method that no verb is called after is never called.",
        )
        contracts = {Stream: check_stream, InitialisationLearner: check_initialisation}
        model = check_model if "features" in dir(subject) and "head" in dir(subject) else check_learner
        rows = next((check for kind, check in contracts.items() if isinstance(subject, kind)), model)(subject)
        for check, seen, mend in rows:
            yield check, key, seen, mend


def misspelt(kind: type) -> str:
    """What a class calls a method that looks like a verb and is none; empty where there is nothing of the kind."""
    if not issubclass(kind, Strategy):
        return ""
    pairs = misspelt_verbs(kind, (*VERBS, *DECLARED))
    return "; ".join(f"{name!r} looks like the verb {verb!r}, and is never called" for name, verb in pairs)
