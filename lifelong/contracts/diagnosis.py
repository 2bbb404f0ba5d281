"""What `lifelong check` says of a meta-learner beside its contract: where its gradient comes from, and what leaks.

A diagnosis is a function of a `Case` and gives a `Finding`. The contract says whether a promise holds; a finding says how
much, and is given also where nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lifelong.contracts import gradients, leaks
from lifelong.contracts.case import Case, Finding, case_of
from lifelong.contracts.learners import classes_of
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationLearner
from lifelong.notation.user_code import file_of, user_line, words_of
from scenarios.errors import ConfigurationError

DIAGNOSES: tuple[Callable[[Case], Finding], ...] = (
    gradients.gradient_against_differences,
    gradients.second_order_share,
    gradients.parameters_without_gradient,
    leaks.queries_that_help_each_other,
    leaks.queries_in_another_order,
    leaks.support_in_another_order,
    leaks.labels_told_by_order,
    gradients.memory_of_inner_step,
)


def diagnose(subject: InitialisationLearner, tasks: TaskDistribution | None = None) -> Iterator[Finding]:
    """Every diagnosis of a method, one after another; one that breaks says how."""
    try:
        case = case_of(subject, tasks)
    except Exception as error:  # a user's method may raise anything; its contract says the same
        yield Finding("it learns at all", _broken(error, subject), "Mend what the contract says first.")
        return
    for look in DIAGNOSES:
        try:
            yield look(case)
        except Exception as error:
            yield Finding(
                look.__name__.replace("_", " "), _broken(error, subject), "It breaks on the contract's tasks."
            )


def _broken(error: Exception, subject: InitialisationLearner) -> str:
    if isinstance(error, ConfigurationError):
        return str(error)
    path = next(filter(None, map(file_of, classes_of(subject))), "")
    return (user_line(error, path) if path else words_of(error))[:300]
