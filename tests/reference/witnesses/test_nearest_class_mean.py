"""NearestClassMean beside scikit-learn's NearestCentroid, fitted once to all rows that were learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from lifelong.learners.closed_form import FEATURES
from lifelong.learners.nearest_class_mean import NearestClassMean
from lifelong.optimisers.adam import Adam
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, member
from tests.reference.witnesses.closed import Learned, learned, plain_features, streams


def rows_learned(seen: Learned, features: str) -> tuple[Tensor, Tensor]:
    """Features and classes: of all rows where a trunk is learned meanwhile, else of each row at its first sight."""
    if features == "first":
        return seen.features, seen.classes
    shown = [(rows.x[rows.first], rows.y[rows.first]) for task in seen.run.tasks for rows in task]
    x, y = (torch.cat(part) for part in zip(*shown, strict=True))
    assert 0 < len(y) < len(seen.classes), "the budget ends before all rows were seen"
    return x if features == "pixels" else plain_features(seen.run.start, x), y


def centroid_scores(means: np.ndarray, query: np.ndarray) -> np.ndarray:
    """-|f - mu_c|^2 without -|f|^2, row by row and class by class, [Q, C]."""
    return np.array([[-((f - mean) ** 2).sum() + (f**2).sum() for mean in means] for f in query])


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("stream", streams(), ids=lambda stream: stream.setting)
def test_it_is_scikit_learns_nearest_centroid(stream, features):
    """Means, answers and scores; a mean that is off by a thousandth, or a row that is left out, shows in each score."""
    seen = learned(NearestClassMean(features, optimiser=Adam(0.01)), stream)
    z, y = rows_learned(seen, features)
    theirs = NearestCentroid().fit(z.numpy(), y.numpy())
    classes = theirs.classes_
    memory = member(seen.run.session.fleet.prepare(seen.run.state, ()).memory)
    means, scores = memory["sum"].numpy(), seen.scores.numpy()
    assert set(range(stream.classes)) - set(classes) == set(np.flatnonzero(memory["count"].numpy() == 0))
    assert memory["count"].numpy()[classes].tolist() == np.bincount(y.numpy())[classes].tolist()
    np.testing.assert_allclose(means[classes], theirs.centroids_, rtol=TOLERANCE, atol=TOLERANCE)
    query = seen.query.numpy()
    assert scores.argmax(1).tolist() == theirs.predict(query).tolist() and len(set(scores.argmax(1))) > 1
    gap = np.abs(scores[:, classes] - centroid_scores(theirs.centroids_, query))
    assert gap.max() < TOLERANCE
    for place, c in enumerate(classes):
        wrong = theirs.centroids_.copy()
        wrong[place] *= 1.001
        assert np.abs(scores[:, c] - centroid_scores(wrong, query)[:, place]).max() > PLANTED, c
        fewer = z[torch.arange(len(y)) != int((y == c).nonzero()[0])]  # of c without its first row
        labels = np.delete(y.numpy(), int((y == c).nonzero()[0]))
        if c in labels:
            wrong = NearestCentroid().fit(fewer.numpy(), labels).centroids_
            assert np.abs(scores[:, c] - centroid_scores(wrong, query)[:, place]).max() > PLANTED, c


def test_the_farthest_centroid_answers_otherwise():
    """A flipped comparison, and a score that leaves out |mu_c|^2, are seen in the answers."""
    seen = learned(NearestClassMean(), next(iter(streams())))
    z, y = rows_learned(seen, "pixels")
    theirs = NearestCentroid().fit(z.numpy(), y.numpy())
    answers, query = theirs.predict(seen.query.numpy()), seen.query.numpy()
    assert (seen.scores.argmax(1).numpy() == answers).all()
    assert (theirs.classes_[centroid_scores(theirs.centroids_, query).argmin(1)] != answers).all()
    assert (theirs.classes_[(query @ theirs.centroids_.T).argmax(1)] != answers).any()
