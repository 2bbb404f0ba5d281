"""Varied hyper-parameters: what they are made of, and the settings that they stand for."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass

import pytest

from lifelong.notation.varied import MOST_SETTINGS, Varied, VariedError, differing, made, settings_of, vary, with_values


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    name: str = "a"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError("rate must be at least 0")


@dataclass(frozen=True)
class Other:
    rate: float = 0.1
    name: str = "a"


@dataclass(frozen=True)
class Outer:
    parts: tuple[Inner, ...] = (Inner(), Inner(0.2))
    size: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "twice", 2 * self.size)


@dataclass(frozen=True, init=False)
class Widths:
    widths: tuple[int, ...]

    def __init__(self, *widths: int) -> None:
        if any(width < 1 for width in widths):
            raise ValueError("widths are at least 1")
        object.__setattr__(self, "widths", widths)


def test_varied_is_a_frozen_value_that_prints_as_it_is_written():
    varied = vary(1, 10, 100)
    assert varied == Varied((1, 10, 100)) and repr(varied) == "vary(1, 10, 100)" and hash(varied)
    with pytest.raises(FrozenInstanceError):
        varied.values = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    "values, hint",
    [((), "two values"), ((1,), "two values"), ((1, "a"), "'a'"), ((1, True), "True"), ((1, float("nan")), "finite"),
     ((1, float("inf")), "finite"), ((1, 2, 1.0), "twice"), ((1, (2, 3)), "not a finite number")],
)  # fmt: skip
def test_what_cannot_be_varied_is_refused_in_one_line(values, hint):
    with pytest.raises(VariedError, match=hint) as error:
        vary(*values)
    assert "\n" not in str(error.value)


def test_settings_are_the_product_in_order_of_appearance_through_records_and_tuples():
    record = Outer((made(Inner, vary(1, 2)), Inner(0.5)), 3)
    record = with_values(record, {("size",): vary(5, 6, 7)})
    settings = settings_of(record)
    assert [(s.parts[0].rate, s.size) for s in settings] == [(1, 5), (1, 6), (1, 7), (2, 5), (2, 6), (2, 7)]
    assert all(s.twice == 2 * s.size and s.parts[1] == Inner(0.5) for s in settings)
    assert settings_of(Inner()) == [Inner()]


def test_settings_are_checked_and_templates_are_not():
    template = with_values(Inner(), {("rate",): vary(-1, 2)})
    assert template.rate == vary(-1, 2)
    with pytest.raises(ValueError, match="at least 0"):
        settings_of(template)
    with pytest.raises(ValueError, match="at least 0"):
        made(Inner, rate=vary(-1, 2))
    assert repr(made(Inner, vary(1, 2), name="b")) == "Inner(rate=vary(1, 2), name='b')"


def test_a_rest_of_positional_values_may_be_varied():
    record = made(Widths, 5, vary(6, 7))
    assert record.widths == (5, vary(6, 7))
    assert settings_of(record) == [Widths(5, 6), Widths(5, 7)]
    with pytest.raises(ValueError, match="at least 1"):
        made(Widths, vary(0, 7))


def test_a_maker_whose_product_has_no_such_field_is_refused():
    with pytest.raises(VariedError, match="no field 'factor'"):
        made(lambda factor: Inner(2 * factor), vary(1, 2))


def test_too_many_settings_are_counted_and_not_made():
    values = vary(*range(200))
    record = with_values(Outer(), {("parts", 0, "rate"): values, ("parts", 1, "rate"): values, ("size",): values})
    with pytest.raises(VariedError, match=f"8,000,000 settings, and at most {MOST_SETTINGS:,}"):
        settings_of(record)
    with pytest.raises(VariedError, match="40,000 settings"):
        made(Outer, record.parts, values)


def test_with_values_replaces_at_paths_and_leaves_the_original_alone():
    record = Outer()
    changed = with_values(record, {("parts", 1, "rate"): 9.0, ("size",): 4})
    assert (changed.parts[1].rate, changed.size, record.parts[1].rate, record.size) == (9.0, 4, 0.2, 10)
    assert changed.parts[0] is record.parts[0] and "twice" not in vars(changed)
    assert with_values(record, {}) == record
    for path in (("parts", 2, "rate"), ("sizes",), ("size", "x")):
        with pytest.raises(VariedError, match="no field"):
            with_values(record, {path: 1})


def test_differing_gives_the_numbers_in_which_records_differ():
    records = [Outer((Inner(0.1), Inner(0.2)), 3), Outer((Inner(0.1), Inner(5)), 4), Outer((Inner(0.1), Inner(0.2)), 3)]
    assert differing(records) == [(("parts", 1, "rate"), [0.2, 5, 0.2]), (("size",), [3, 4, 3])]
    assert differing([Inner(), Inner()]) == [] and differing([Inner()]) == []
    varied = with_values(records[0], dict.fromkeys((path for path, _ in differing(records)), vary(1, 2)))
    assert len(settings_of(varied)) == 4


@pytest.mark.parametrize(
    "records, hint",
    [((Inner(), Other()), "classes"), ((Outer(), Outer((Inner(),))), "classes"), ((Inner(), Inner(name="b")), "name"),
     ((Widths(1), Widths(1, 2)), "classes"), ((Outer((Inner(),)), Outer((Other(),))), "classes")],  # type: ignore[arg-type]
)  # fmt: skip
def test_records_that_differ_in_more_than_numbers_are_refused(records, hint):
    with pytest.raises(VariedError, match=hint):
        differing(records)


def test_no_metric_averages_over_settings():
    from lifelong.contracts.learners import tiny
    from lifelong.core.learner import Learner
    from lifelong.core.loop import run
    from lifelong.metrics import NotMeasured, average_accuracy, paired, summary
    from lifelong.models.perceptron import MLP
    from lifelong.optimisers.sgd import SGD

    both = run(Learner(MLP(3), optimiser=SGD(vary(0.1, 0.2))), tiny(), [0, 1])
    parts = both.by_setting()
    assert set(summary(parts["rate=0.1"])) == set(summary(parts["rate=0.2"]))
    with pytest.raises(NotMeasured, match="by_setting"):
        summary(both)
    with pytest.raises(NotMeasured, match="by_setting"):
        paired(average_accuracy, both, parts["rate=0.1"])


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "split-blobs", "--paradigms", "all", "--strategy", "EWC(strength=vary(1.0, 10.0))"],
        ["transfer", "split-blobs", "--optimiser", "Adam(vary(0.001, 0.01))"],
        ["explain", "EWC(strength=vary(1.0, 10.0))", "--scenario", "split-blobs"],
    ],
    ids=lambda words: words[0],
)
def test_what_learns_one_setting_refuses_several(cli, words):
    code, out, errors = cli(*words, *([] if words[0] == "explain" else ["--seeds", "2", "--iterations", "2"]))
    assert (code, out) == (2, "") and "only `run` and `compare` learn several" in errors.splitlines()[-1], errors
    assert "Traceback" not in errors


def test_a_dry_run_counts_every_setting(cli):
    words = ["run", "split-blobs", "--seeds", "3", "--iterations", "5", "--fleet", "2", "--dry-run"]
    code, out, errors = cli(*words, "--strategy", "EWC(strength=vary(1.0, 10.0)) + Replay(size=vary(5, 10))")
    assert code == 0 and "3 seeds" in out, errors
