"""The contract on what a user's file defines, or a text names: strategies, learners, models, initialisations, scenarios."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lifelong.contracts.case import Finding
from lifelong.contracts.diagnosis import diagnose
from lifelong.contracts.initialisations import check_initialisation
from lifelong.contracts.learners import check_learner, classes_of, first_setting, on_small_network, states, stream_for
from lifelong.contracts.models import check_model, is_model
from lifelong.contracts.streams import check_stream
from lifelong.core.learner import AnyLearner, Learner
from lifelong.core.strategy import VERBS, Strategy
from lifelong.meta.initialisation_learner import InitialisationLearner
from lifelong.notation import expression
from lifelong.notation.registry import KINDS
from lifelong.notation.user_code import CODE, file_of, misspelt_verbs, user_line, words_of
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


def check_subject(subject: Any) -> Iterator[tuple[str, str, str]]:
    """The contract on one thing: (check, what was seen or "", how to mend it), one after another."""
    mend = "A method that no verb is called after is never called."
    yield "its methods are verbs", misspelt(type(subject)), mend
    contracts = {Stream: check_stream, InitialisationLearner: check_initialisation}
    model = check_model if "features" in dir(subject) and "head" in dir(subject) else check_learner
    yield from next((check for kind, check in contracts.items() if isinstance(subject, kind)), model)(subject)


def findings(subject: Any) -> list[Finding]:
    """What a diagnosis finds in an initialisation, beside its contract; nothing of anything else."""
    return list(diagnose(subject)) if isinstance(subject, InitialisationLearner) else []


def subjects_of(target: str) -> list[tuple[str, Any]]:
    """What is to be checked, by name: FILE.py, FILE.py:NAME, FILE.py:NAME(...), or a text such as EWC() + Replay(200)."""
    path, colon, name = target.partition(".py:")
    if (colon and name.isidentifier()) or target.endswith(".py") or Path(f"{target}.py").is_file():
        return _defined(path if path.endswith(".py") else f"{path}.py", name)
    return [(target, _named(target))]


CHECKED = ("initialisations", "strategies", "learners", "models")  # the kinds that have a contract, besides scenarios


def _named(text: str) -> Any:
    """What a text names of the kinds that have a contract. Raises ExpressionError where it names nothing of them."""
    file = CODE.match(text.strip())
    if file:
        maker = expression.from_file(file[1], file[2], named_by_user=True)
        return expression.parse(text, next((kind for kind in CHECKED if KINDS[kind].fits(maker)), "models"))
    name = text.partition("(")[0].strip()
    kind = next((kind for kind in CHECKED if name in expression.vocabulary(kind)), "")
    if kind:
        return expression.parse(text, kind)
    if name in CATALOGUE:
        word, options = expression.read_call(text)
        return build(word, **options)
    known = [*CATALOGUE, *(name for kind in CHECKED for name in expression.vocabulary(kind))]
    near = expression.suggest(name, known).partition("there are")[0] or "write FILE.py, or a name with its numbers"
    raise expression.ExpressionError(f"nothing that has a contract is called {name[:100]!r}: {near}")


def _defined(path: str, name: str) -> list[tuple[str, Any]]:
    """What a user's file defines, all of it or what bears a name."""
    known = set(CATALOGUE)
    module = expression.load_file(path, named_by_user=True)
    found: list[tuple[str, Any]] = []
    defined = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    if name and name not in defined:
        raise ConfigurationError(f"{path}: has no {name!r}: {expression.suggest(name, defined)}")
    for key in defined if not name else [name]:
        value = getattr(module, key)
        kinds = Strategy | AnyLearner | InitialisationLearner
        if inspect.isclass(value) and issubclass(value, kinds) and dataclasses.is_dataclass(value):
            found.append((key, expression.make(expression.from_file(path, key), f"{path}:{key}", [], {})))
        elif is_model(value):
            found.append((key, expression.make(expression.from_file(path, key), f"{path}:{key}", [], {}, "models")))
        elif inspect.isclass(value) and issubclass(value, Strategy | InitialisationLearner):
            raise ConfigurationError(
                f"{path}: {key} must be a frozen dataclass: write @dataclass(frozen=True) above it"
            )
    for key in sorted(set(CATALOGUE) - known) if not name else []:
        found.append((key, build(CATALOGUE[key])))
    if not found:
        raise ConfigurationError(
            f"{path}: defines no strategy, learner, model, initialisation or registered scenario to check"
        )
    return found


def misspelt(kind: type) -> str:
    """What a class calls a method that looks like a verb and is none; empty where there is nothing of the kind."""
    if not issubclass(kind, Strategy):
        return ""
    pairs = misspelt_verbs(kind, (*VERBS, *DECLARED))
    return "; ".join(f"{name!r} looks like the verb {verb!r}, and is never called" for name, verb in pairs)
