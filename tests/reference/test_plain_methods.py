"""The plain loops themselves: each against a closed form, a program of others, or a case computed by hand.

Where a network has no hidden layer, its gradients are written out in numpy: d CE / d W = x'(softmax - onehot) / B.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from tests.reference import plain_methods as plain
from tests.reference.plain_methods import Rows

INPUTS, CLASSES, BATCH = 3, 4, 5
RATE = 0.3


def descent(leaves):
    return torch.optim.SGD(leaves, RATE)


def still(leaves):
    return torch.optim.SGD(leaves, 0.0)


def network(seed, *widths, inputs=INPUTS, classes=CLASSES):
    luck, params = torch.Generator().manual_seed(seed), {}
    for i, width in enumerate((*widths, classes)):
        name = f"layer{i}" if i < len(widths) else "head"
        params[f"{name}.weight"] = torch.randn(inputs, width, generator=luck, dtype=torch.float64) / 2
        params[f"{name}.bias"] = torch.randn(width, generator=luck, dtype=torch.float64) / 2
        inputs = width
    return params


def some_rows(seed, count=BATCH, among=range(CLASSES), allowed=None):
    luck = torch.Generator().manual_seed(100 + seed)
    x = torch.randn(count, INPUTS, generator=luck, dtype=torch.float64)
    y = torch.tensor(list(among))[torch.randint(len(among), (count,), generator=luck)]
    mask = torch.zeros(CLASSES, dtype=torch.bool)
    mask[list(range(CLASSES) if allowed is None else allowed)] = True
    return Rows(x, y, mask.expand(count, -1))


def uniforms(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1000 + seed), dtype=torch.float64)


def normals(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(2000 + seed), dtype=torch.float64)


# --- a network without hidden layers, in numpy --------------------------------------------------------------------


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def with_ones(x):
    return np.hstack([x, np.ones((len(x), 1))])


def matrix(params):
    """Weight and bias as one matrix [F + 1, C]."""
    return np.vstack([params["head.weight"].numpy(), params["head.bias"].numpy()])


def slope(theta, rows):
    """d mean CE / d theta, all classes allowed."""
    x = with_ones(rows.x.numpy())
    return x.T @ (softmax(x @ theta) - np.eye(CLASSES)[rows.y.numpy()]) / len(x)


def same(params, theta):
    np.testing.assert_allclose(matrix(params), theta, rtol=1e-12, atol=1e-14)


def test_fine_tuning_is_gradient_descent():
    start, batches = network(0), [some_rows(0), some_rows(1)]
    theta = matrix(start)
    for rows in batches:
        theta = theta - RATE * slope(theta, rows)
    same(plain.fine_tuning(start, [batches[:1], batches[1:]], descent), theta)


def test_a_class_that_is_not_allowed_is_not_weighed():
    rows = some_rows(0, among=(0, 1), allowed=(0, 1))
    logits = plain.scores(network(0, 4), rows.x)
    expected = [
        -torch.log(torch.exp(z[y]) / (torch.exp(z[0]) + torch.exp(z[1]))) for z, y in zip(logits, rows.y, strict=True)
    ]
    torch.testing.assert_close(plain.row_losses(logits, rows), torch.stack(expected), rtol=1e-12, atol=0)


def test_places_with_and_without_replacement():
    number = torch.tensor([0.9, 0.1, 0.5, 0.0], dtype=torch.float64)
    assert plain.places(number, 3, 4, True) == [2, 0, 1, 0]
    assert plain.places(number, 3, 2, False) == [
        1,
        2,
    ]  # of places 0, 1, 2 those with the smallest numbers, in their order
    assert plain.places(number, 2, 4, False) == [1, 0]


# --- DER++ --------------------------------------------------------------------------------------------------------


def der_draws(seed, steps, replayed):
    return [
        {"place": uniforms(seed + 3 * i, replayed), "place_again": uniforms(seed + 3 * i + 1, replayed),
         "ticket": uniforms(seed + 3 * i + 2, BATCH)}
        for i in range(steps)
    ]  # fmt: skip


@pytest.mark.parametrize("over", ["mean", "sum", "allowed"])
def test_der_plus_plus_without_hidden_layers_by_hand(over):
    """Three steps; the reservoir of 3 rows by its rule; scores kept as they were before the step."""
    start, batches = network(1), [some_rows(i) for i in range(3)]
    draws, alpha, beta, size, replayed = der_draws(0, 3, 2), 0.7, 0.4, 3, 2
    theta, memory, count = matrix(start), [], 0
    for rows, drawn in zip(batches, draws, strict=True):
        gradient = slope(theta, rows)
        if memory:
            picked = [memory[int(u * len(memory))] for u in drawn["place"].tolist()]
            x, z = with_ones(np.stack([row[0] for row in picked])), np.stack([row[2] for row in picked])
            gradient = gradient + alpha * 2 * x.T @ (x @ theta - z) / (replayed * (1 if over == "sum" else CLASSES))
            picked = [memory[int(u * len(memory))] for u in drawn["place_again"].tolist()]
            x, y = with_ones(np.stack([row[0] for row in picked])), np.array([row[1] for row in picked])
            gradient = gradient + beta * x.T @ (softmax(x @ theta) - np.eye(CLASSES)[y]) / replayed
        z = with_ones(rows.x.numpy()) @ theta
        for ticket, *row in zip(drawn["ticket"].tolist(), rows.x.numpy(), rows.y.tolist(), z, strict=True):
            count += 1
            place = count - 1 if count <= size else int(ticket * count)
            memory[place : place + 1] = [row] if place < size else memory[place : place + 1]
        theta = theta - RATE * gradient
    ours = plain.der_plus_plus(start, [batches[:2], batches[2:]], descent, [draws[:2], draws[2:]], size=size, rows=replayed,
                               alpha=alpha, beta=beta, over=over)  # fmt: skip
    same(ours, theta)


def test_scores_of_classes_that_are_not_allowed_may_be_left_alone():
    """Two steps on rows that compete among two classes: the others' columns move where all scores are compared."""
    start, batches = network(1), [some_rows(i, among=(0, 1), allowed=(0, 1)) for i in range(3)]
    words = {"size": 9, "rows": 4, "alpha": 0.7, "beta": 0.4}
    halves = {over: plain.der_plus_plus(start, [batches], descent, [der_draws(0, 3, 4)], over=over, **words)["head.weight"]
              for over in ("mean", "allowed")}  # fmt: skip
    assert torch.equal(halves["allowed"][:, 2:], start["head.weight"][:, 2:])
    assert not torch.equal(halves["allowed"][:, :2], halves["mean"][:, :2])


def test_der_plus_plus_with_nothing_to_weigh_is_fine_tuning():
    start, tasks, draws = network(2, 6), [[some_rows(0), some_rows(1)]], [der_draws(9, 2, 2)]
    alone = plain.fine_tuning(start, tasks, descent)
    for words in ({"size": 0, "alpha": 1.0, "beta": 1.0}, {"size": 4, "alpha": 0.0, "beta": 0.0}):
        found = plain.der_plus_plus(start, tasks, descent, draws, rows=2, **words)
        assert all(torch.equal(found[name], alone[name]) for name in start)


def test_a_row_that_was_shown_before_does_not_enter_the_reservoir_again():
    start, draws = network(2), der_draws(20, 3, 2)
    again = some_rows(0)._replace(first=torch.zeros(BATCH, dtype=torch.bool))
    options = {"size": 2 * BATCH, "rows": 2, "alpha": 0.5, "beta": 0.5}
    tasks = [[some_rows(0), again, some_rows(2)]]
    found = plain.der_plus_plus(start, tasks, descent, [draws], **options)
    other = [draws[0], {**draws[1], "ticket": 0 * draws[1]["ticket"]}, draws[2]]
    changed = plain.der_plus_plus(start, tasks, descent, [other], **options)
    assert all(torch.equal(found[name], changed[name]) for name in start)


# --- A-GEM --------------------------------------------------------------------------------------------------------


def a_gem_case(sign):
    """Two tasks of a step; the memory asks for the opposite of the second one's labels, or for the same."""
    first, second = some_rows(0), some_rows(1, among=(0,))
    against = Rows(second.x, second.y + (1 if sign < 0 else 0), second.allowed)
    draws = [[{}], [{"place": uniforms(5, BATCH)}]]
    return first, second, against, draws


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_gem_without_hidden_layers_by_hand(sign):
    start = network(3)
    first, second, memory, draws = a_gem_case(sign)
    found = plain.a_gem(start, [[first], [second]], descent, draws, [None, memory], rows=BATCH)
    theta = matrix(start)
    theta = theta - RATE * slope(theta, first)
    chosen = [int(u * BATCH) for u in draws[1][0]["place"].tolist()]
    g = slope(theta, second).flatten()
    reference = slope(theta, Rows(*(part[chosen] for part in memory[:3]))).flatten()
    assert np.sign(g @ reference) == sign and found.dots[0] == [0.0]
    assert found.dots[1][0] == pytest.approx(g @ reference, rel=1e-12)
    if sign < 0:
        g = g - (g @ reference) / (reference @ reference) * reference
        assert abs(g @ reference) < 1e-14
    same(found.params, theta - RATE * g.reshape(theta.shape))


def test_a_gem_takes_the_nearest_direction_that_does_no_harm():
    """Eq. 10: of all g~ with g~ . g_ref >= 0 none is nearer to g, by scipy's solver."""
    from scipy.optimize import minimize

    start = network(3)
    first, second, memory, draws = a_gem_case(-1)
    before = plain.fine_tuning(start, [[first]], descent)
    after = plain.a_gem(start, [[first], [second]], descent, draws, [None, memory], rows=BATCH).params
    taken = (matrix(before) - matrix(after)).flatten() / RATE
    chosen = [int(u * BATCH) for u in draws[1][0]["place"].tolist()]
    g = slope(matrix(before), second).flatten()
    reference = slope(matrix(before), Rows(*(part[chosen] for part in memory[:3]))).flatten()
    limits = {"type": "ineq", "fun": lambda d: d @ reference, "jac": lambda d: reference}
    best = minimize(
        lambda d: ((d - g) ** 2).sum() / 2, np.zeros_like(g), jac=lambda d: d - g, constraints=limits, tol=1e-14
    )
    np.testing.assert_allclose(taken, best.x, atol=1e-7)


# --- MAS ----------------------------------------------------------------------------------------------------------


def test_mas_importance_without_hidden_layers_is_twice_input_times_output():
    params, rows = network(4), some_rows(0, count=7)
    x = with_ones(rows.x.numpy())
    expected = np.mean([np.abs(2 * np.outer(row, row @ matrix(params))) for row in x], axis=0)
    same(plain.mas_importance(params, rows), expected)


def test_mas_importance_of_a_hidden_layer_by_central_differences():
    params, rows, step = network(4, 3), some_rows(0, count=4, allowed=(1, 3), among=(1, 3)), 1e-6
    found = plain.mas_importance(params, rows)["layer0.weight"]
    for i, j in ((0, 0), (2, 1)):
        slopes = []
        for sign in (1, -1):
            moved = {**params, "layer0.weight": params["layer0.weight"].clone()}
            moved["layer0.weight"][i, j] += sign * step
            slopes.append(plain.scores(moved, rows.x)[:, [1, 3]].pow(2).sum(1))
        expected = ((slopes[0] - slopes[1]) / (2 * step)).abs().mean()
        assert float(found[i, j]) == pytest.approx(float(expected), rel=1e-6)


def test_mas_pulls_by_twice_strength_times_importance():
    start, strength, decay = network(4), 0.6, 0.5
    tasks, finished = (
        [[some_rows(0)], [some_rows(1), some_rows(2)], [some_rows(3)]],
        [some_rows(i, 6) for i in (4, 5, 6)],
    )
    theta, importance, anchor = matrix(start), np.zeros((INPUTS + 1, CLASSES)), matrix(start)
    for batches, rows in zip(tasks, finished, strict=True):
        for batch in batches:
            theta = theta - RATE * (slope(theta, batch) + 2 * strength * importance * (theta - anchor))
        anchor, x = theta, with_ones(rows.x.numpy())
        importance = decay * importance + np.mean([np.abs(2 * np.outer(row, row @ theta)) for row in x], axis=0)
    found = plain.mas(start, tasks, descent, finished, strength=strength, decay=decay)
    same(found.params, theta)
    same(found.importance, importance)


# --- PackNet ------------------------------------------------------------------------------------------------------


def packnet_case():
    start = network(5, 6)
    tasks = [
        [some_rows(10 * t + i, among=(2 * t, 2 * t + 1), allowed=(2 * t, 2 * t + 1)) for i in range(4)]
        for t in range(2)
    ]
    return start, tasks


def test_packnet_prunes_the_smallest_by_hand():
    """Steps of rate 0: of |3|, |-1|, |0.5|, |-4|, |2|, |0.1| half are given up; the second task starts with them at 0."""
    weight = torch.tensor([[3.0, -1.0, 0.5], [-4.0, 2.0, 0.1]], dtype=torch.float64)
    start = {**network(5, 3, inputs=2, classes=4), "layer0.weight": weight}
    _, tasks = packnet_case()
    tasks = [[Rows(rows.x[:, :2], rows.y, rows.allowed) for rows in batches] for batches in tasks]
    first = plain.packnet(start, tasks[:1], still, prune=0.5, before=[2])
    assert first.owner["layer0.weight"].tolist() == [[1, 0, 0], [1, 1, 0]]
    assert first.params["layer0.weight"].tolist() == [[3.0, 0.0, 0.0], [-4.0, 2.0, 0.0]]
    # round(2.4) = 2 of 6, then round(0.8) = 1 of 2
    second = plain.packnet(start, tasks, still, prune=0.4, before=[4, 0])
    # all zeros tie at the cut
    assert second.owner["layer0.weight"].flatten().sort().values.tolist() == [0, 0, 1, 1, 1, 1]
    np.testing.assert_array_equal(second.params["head.weight"], start["head.weight"])


def test_packnet_never_changes_an_earlier_answer():
    start, tasks = packnet_case()
    first = plain.packnet(start, tasks[:1], descent, prune=0.5, before=[2])
    both = plain.packnet(start, tasks, descent, prune=0.5, before=[2, 2])
    x = some_rows(50).x
    mine = plain.packnet_scores(first, 0, x)[:, :2]
    assert torch.equal(plain.packnet_scores(both, 0, x)[:, :2], mine)
    assert not torch.equal(plain.packnet_scores(both, 1, x)[:, :2], mine)  # the second task's weights count there
    owner = both.owner["layer0.weight"]
    assert [int((owner == t).sum()) for t in range(3)] == [4, 9, 5]  # 18; half of 18 stay; of 9 round(4.5) = 4 go
    assert torch.equal(both.params["layer0.weight"] == 0, owner == 0)
    bias = [params["layer0.bias"] for params in (start, first.params, both.params)]
    assert torch.equal(bias[1], bias[2]) and not torch.equal(bias[0], bias[1])
    assert not torch.equal(both.params["head.weight"][:, 2:], start["head.weight"][:, 2:])


def test_packnet_that_prunes_nothing_learns_its_first_task_plainly():
    start, tasks = packnet_case()
    found = plain.packnet(start, tasks[:1], descent, prune=0.0, before=[2])
    alone = plain.fine_tuning(start, tasks[:1], descent)
    assert all(torch.equal(found.params[name], alone[name]) for name in start)


# --- BiC ----------------------------------------------------------------------------------------------------------

OLD_NEW = [[0, 1], [2], [3]]


def test_bic_stage_one_without_hidden_layers_by_hand():
    """Three tasks of a step, corrections of rate 0: lambda is 0, then 2/3, then 3/4; T = 2, and no T squared."""
    start = network(6)
    tasks, exemplars = [[some_rows(0)], [some_rows(1)], [some_rows(2)]], [[None], [some_rows(3, 2)], [some_rows(4, 3)]]
    theta, teacher = matrix(start), None
    for t, old in enumerate(([], [0, 1], [0, 1, 2])):
        share = (0.0, 2 / 3, 3 / 4)[t]
        rows = tasks[t][0] if t == 0 else plain.joined(tasks[t][0], exemplars[t][0])
        gradient = (1 - share) * slope(theta, rows)
        if teacher is not None:
            x = with_ones(rows.x.numpy())
            gap = softmax((x @ theta)[:, old] / 2) - softmax((x @ teacher)[:, old] / 2)
            gradient[:, old] += share * x.T @ gap / len(x) / 2
        theta = theta - RATE * gradient
        teacher = theta
    found = plain.bic(
        start, tasks, descent, classes=OLD_NEW, exemplars=exemplars, validation=[[], [], []], correction_optimiser=still
    )
    same(found.params, theta)
    assert found.corrections == [(1.0, 0.0)] * 3


@pytest.mark.parametrize("pull", [0.0, 0.1])
def test_bic_stage_two_ends_where_scipy_does(pull):
    from scipy.optimize import minimize

    start, held = network(6, 4), some_rows(7, count=60)
    tasks, exemplars = [[some_rows(0)], [some_rows(1)]], [[None], [some_rows(3, 2)]]
    found = plain.bic(start, tasks, descent, classes=[[0, 1], [2, 3]], exemplars=exemplars, validation=[[], [held] * 400],
                      correction_optimiser=lambda leaves: torch.optim.SGD(leaves, 1.0, momentum=0.9), pull=pull)  # fmt: skip
    logits = plain.scores(found.params, held.x).numpy()

    def objective(pair):
        moved = logits.copy()
        moved[:, 2:] = pair[0] * moved[:, 2:] + pair[1]
        chances = softmax(moved)[np.arange(60), held.y.numpy()]
        return -np.log(chances).mean() + pull * pair[1] ** 2 / 2

    best = minimize(objective, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-15})
    assert found.corrections[0] == (1.0, 0.0)
    np.testing.assert_allclose(found.corrections[1], best.x, atol=1e-6)
    answers = plain.bic_scores(found, held.x).numpy()
    np.testing.assert_allclose(answers[:, :2], logits[:, :2], rtol=1e-12)
    np.testing.assert_allclose(
        answers[:, 2:], found.corrections[1][0] * logits[:, 2:] + found.corrections[1][1], rtol=1e-12
    )


def test_bic_teaches_by_the_corrected_network():
    """A third task's step, by hand, where the second task's correction is no identity."""
    start = network(6)
    tasks = [[some_rows(0)], [some_rows(1)], [some_rows(2)]]
    common = {"classes": OLD_NEW, "correction_optimiser": lambda leaves: torch.optim.SGD(leaves, 0.5)}
    held = [[], [some_rows(8, 20)] * 3, []]
    two = plain.bic(start, tasks[:2], descent, exemplars=[[None]] * 2, validation=held[:2], **common)
    three = plain.bic(start, tasks, descent, exemplars=[[None]] * 3, validation=held, **common)
    alpha, beta = two.corrections[1]
    assert abs(alpha - 1) > 1e-3 and abs(beta) > 1e-3
    theta, x, y = matrix(two.params), with_ones(tasks[2][0].x.numpy()), tasks[2][0].y.numpy()
    logits = x @ theta
    logits[:, 2] = alpha * logits[:, 2] + beta
    gap = (1 - 3 / 4) * (softmax(logits) - np.eye(CLASSES)[y]) / BATCH  # the teacher and the student agree: L_d is flat
    gap[:, 2] *= alpha
    same(three.params, theta - RATE * x.T @ gap)


# --- closed forms -------------------------------------------------------------------------------------------------


def test_streaming_lda_by_hand():
    """Numbers 2, 4 of class 0 and 7 of class 1: S = 0, then 4 (1/2)^2 ... as the recursion says."""
    found = plain.streaming_lda(torch.tensor([[2.0], [4.0], [7.0]], dtype=torch.float64), torch.tensor([0, 0, 1]), 2)
    assert found.mean.flatten().tolist() == [3.0, 7.0] and found.count.tolist() == [2.0, 1.0]
    # t = 0: 0. t = 1: (1 x 0 + 2^2 x 1/2) / 2 = 1. t = 2: (2 x 1 + 7^2 x 2/3) / 3
    assert float(found.covariance) == pytest.approx((2 + 49 * 2 / 3) / 3, rel=1e-14)


def test_streaming_lda_by_class_is_the_pooled_covariance_and_sklearns():
    z, y = normals(0, 30, 4) @ normals(1, 4, 4), torch.arange(30) % 3
    found = plain.streaming_lda(z, y, 3, by="class")
    means = torch.stack([z[y == c].mean(0) for c in range(3)])
    gaps = z - means[y]
    torch.testing.assert_close(found.mean, means, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.covariance, gaps.T @ gaps / 30, rtol=1e-11, atol=1e-13)
    z = z / (found.covariance.trace() / 4).sqrt()  # sklearn shrinks towards trace / F: now the unit matrix
    found, query = plain.streaming_lda(z, y, 3, by="class"), normals(2, 8, 4)
    theirs = (
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2)
        .fit(z.numpy(), y.numpy())
        .decision_function(query.numpy())
    )
    ours = plain.lda_scores(found, query, shrinkage=0.2).numpy()
    np.testing.assert_allclose(ours - ours[:, :1], theirs - theirs[:, :1], rtol=1e-9, atol=1e-11)


def test_random_features_are_sklearns_ridge():
    z, y, query, projection = normals(0, 20, 3), torch.arange(20) % 4, normals(1, 5, 3), normals(2, 3, 12)
    ours = plain.random_features_ridge(z, y, query, 4, projection, ridge=0.7)
    h, q = ((values @ projection).clamp(min=0).numpy() for values in (z, query))
    theirs = Ridge(alpha=0.7, fit_intercept=False, solver="cholesky").fit(h, np.eye(4)[y.numpy()]).predict(q)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9, atol=1e-11)


# --- generative replay --------------------------------------------------------------------------------------------

LATENT = 2


def generator_of(seed, width=4):
    luck, params = torch.Generator().manual_seed(seed), {}
    for name, shape in (("encoder0", (INPUTS, width)), ("mean", (width, LATENT)), ("logvariance", (width, LATENT)),
                        ("decoder0", (LATENT, width)), ("image", (width, INPUTS))):  # fmt: skip
        params[f"{name}.weight"] = torch.randn(shape, generator=luck, dtype=torch.float64) / 2
        params[f"{name}.bias"] = torch.randn(shape[1], generator=luck, dtype=torch.float64) / 2
    return params


def images(seed, **words):
    rows = some_rows(seed, **words)
    return rows._replace(x=rows.x.sigmoid())


def replay_draws(seed, replayed):
    return {"noise": normals(seed, BATCH, LATENT), "latent": normals(seed + 1, replayed, LATENT),
            "noise_again": normals(seed + 2, replayed, LATENT)}  # fmt: skip


def test_the_auto_encoders_loss_is_that_of_torchs_distributions():
    from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

    params, x, noise = generator_of(0), images(0).x, normals(3, BATCH, LATENT)
    hidden = (x @ params["encoder0.weight"] + params["encoder0.bias"]).relu()
    mean = hidden @ params["mean.weight"] + params["mean.bias"]
    deviation = ((hidden @ params["logvariance.weight"] + params["logvariance.bias"]) / 2).exp()
    divergence = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum(1)
    hidden = ((mean + deviation * noise) @ params["decoder0.weight"] + params["decoder0.bias"]).relu()
    logits = hidden @ params["image.weight"] + params["image.bias"]
    likelihood = Independent(Bernoulli(logits=logits, validate_args=False), 1).log_prob(x)
    expected = (divergence - likelihood) / INPUTS
    torch.testing.assert_close(plain.autoencoder_losses(params, x, noise), expected, rtol=1e-11, atol=0)


def test_generative_replay_learns_its_first_task_plainly():
    start = plain.Scholar(network(7, 5), generator_of(1))
    tasks, draws = [[images(0), images(1)]], [[replay_draws(10, 4), replay_draws(20, 4)]]
    found = plain.generative_replay(
        start, tasks, descent, descent, draws, answers=[torch.ones(CLASSES, dtype=torch.bool)]
    )
    alone = plain.fine_tuning(start.solver, tasks, descent)
    assert all(torch.equal(found.solver[name], alone[name]) for name in alone)
    autoencoder = plain.leaves(start.generator)
    steps = descent(list(autoencoder.values()))
    for rows, drawn in zip(tasks[0], draws[0], strict=True):
        plain.descend(steps, plain.autoencoder_losses(autoencoder, rows.x, drawn["noise"]).mean())
    assert all(torch.equal(found.generator[name], autoencoder[name]) for name in autoencoder)


@pytest.mark.parametrize(("weighting", "share"), [("tasks", 1 / 3), ("equal", 1 / 2)])
def test_generative_replay_without_hidden_layers_by_hand(weighting, share):
    """A third task's step of a solver: labels by the old solver among the old classes, 1 - r on the made rows."""
    start = plain.Scholar(network(8), generator_of(2))
    tasks, draws = [[images(0)], [images(1)], [images(2)]], [[replay_draws(10 * t, 6)] for t in range(3)]
    answers = [torch.tensor([True, True, c, False]) for c in (False, False, True)]
    options = {"answers": answers, "weighting": weighting}
    two = plain.generative_replay(start, tasks[:2], descent, descent, draws[:2], **options)
    three = plain.generative_replay(start, tasks, descent, descent, draws, **options)
    theta = matrix(two.solver)
    x = plain.generated(two.generator, draws[2][0]["latent"])
    y = torch.from_numpy((with_ones(x.numpy()) @ theta)[:, :3].argmax(1))
    made = Rows(x, y, torch.ones(6, CLASSES, dtype=torch.bool))
    same(three.solver, theta - RATE * (share * slope(theta, tasks[2][0]) + (1 - share) * slope(theta, made)))
    autoencoder = plain.leaves(two.generator)
    drawn = draws[2][0]
    value = share * plain.autoencoder_losses(autoencoder, tasks[2][0].x, drawn["noise"]).mean()
    value = value + (1 - share) * plain.autoencoder_losses(autoencoder, x, drawn["noise_again"]).mean()
    plain.descend(descent(list(autoencoder.values())), value)
    for name in autoencoder:
        torch.testing.assert_close(three.generator[name], autoencoder[name].detach(), rtol=1e-12, atol=1e-14)
