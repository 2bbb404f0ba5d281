"""One choice of a learning rate, for all that choose one."""

from __future__ import annotations

import pytest
import torch

from lifelong.adaptation.rate_selection import select_rate


def peak(*at):
    """Scores that are highest at some rates, one for each place; and what was asked."""
    asked = []

    def score(rates):
        asked.append(list(rates))
        log = torch.tensor(rates, dtype=torch.float64).clamp(min=1e-12).log10()[:, None]
        return -(log - torch.tensor(at, dtype=torch.float64).log10()).abs()

    return score, asked


def test_the_best_of_a_grid_inside_is_found_without_growing():
    score, asked = peak(0.1)
    found = select_rate(lambda rates: score(rates)[:, 0], (0.01, 0.1, 1.0), 3)
    assert float(found.rates) == 0.1 and found.inside and found.grid == (0.01, 0.1, 1.0) and len(asked) == 1


def test_the_grid_grows_on_both_sides_until_all_winners_lie_inside():
    score, asked = peak(0.001, 30.0)
    found = select_rate(score, (0.1, 1.0), 3)
    assert found.inside and found.rates.tolist() == pytest.approx([0.001, 31.6], rel=0.01)
    flat = [rate for rates in asked for rate in rates]
    assert sorted(flat) == list(found.grid) and len(set(flat)) == len(flat)
    assert found.scores.shape == (len(found.grid), 2)


def test_a_winner_at_the_end_says_so_once_no_widening_is_left():
    score, asked = peak(1e6)
    found = select_rate(score, (0.1, 1.0), 2)
    assert not found.inside and len(asked) == 3 and float(found.rates[0]) == found.grid[-1]
    assert not select_rate(score, (0.1, 1.0)).inside


def test_what_diverged_is_worst_and_ties_go_to_the_middle():
    nan = float("nan")
    scores = torch.tensor(
        [[nan, nan, 0.5, nan], [-9.0, nan, 0.5, -torch.inf], [nan, nan, 0.5, nan], [nan, 1.0, 0.5, nan]]
    )
    found = select_rate(lambda rates: scores, (1.0, 2.0, 3.0, 4.0))
    assert found.rates.tolist() == [2.0, 4.0, 2.0, 2.0]


def test_nothing_lies_below_a_rate_of_0():
    found = select_rate(lambda rates: -torch.tensor(rates), (0.0, 0.1, 1.0), 3)
    assert float(found.rates) == 0.0 and found.grid == (0.0, 0.1, 1.0) and not found.inside
