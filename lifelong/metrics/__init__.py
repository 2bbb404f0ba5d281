"""Named pure functions of a Result: each gives one number for each seed, [S], and its docstring names the paper."""

from lifelong.metrics.accuracy import (
    average_accuracy,
    average_anytime_accuracy,
    average_incremental_accuracy,
    learning_accuracy,
    learning_curve_area,
    min_accuracy,
    worst_case_accuracy,
)
from lifelong.metrics.base import METRICS, NEEDS, Metric, NotMeasured, available, metric
from lifelong.metrics.drift import Drift, drift, head_drift, trunk_drift
from lifelong.metrics.forgetting import (
    backward_transfer,
    forgetting,
    forgetting_avalanche,
    forgetting_mammoth,
    forgetting_pycil,
    intransigence,
    windowed_forgetting,
)
from lifelong.metrics.intervals import Estimate, estimate, holm, one_setting, paired, paired_p, summary, variance_shares
from lifelong.metrics.multitask import multi_task_gain, multi_task_gains
from lifelong.metrics.probed import Probed, probed
from lifelong.metrics.transfer import (
    few_shot_curve,
    few_shot_forward_transfer,
    forward_transfer,
    learning_speed,
    transfer_gain,
)

__all__ = [
    "METRICS",
    "NEEDS",
    "Drift",
    "Estimate",
    "Metric",
    "NotMeasured",
    "Probed",
    "available",
    "average_accuracy",
    "average_anytime_accuracy",
    "average_incremental_accuracy",
    "backward_transfer",
    "drift",
    "estimate",
    "few_shot_curve",
    "few_shot_forward_transfer",
    "forgetting",
    "forgetting_avalanche",
    "forgetting_mammoth",
    "forgetting_pycil",
    "forward_transfer",
    "head_drift",
    "holm",
    "intransigence",
    "learning_accuracy",
    "learning_curve_area",
    "learning_speed",
    "metric",
    "min_accuracy",
    "multi_task_gain",
    "multi_task_gains",
    "one_setting",
    "paired",
    "paired_p",
    "probed",
    "summary",
    "transfer_gain",
    "trunk_drift",
    "variance_shares",
    "windowed_forgetting",
    "worst_case_accuracy",
]


def __dir__() -> list[str]:
    """The public names alone."""
    return __all__
