"""What codes are made of: centres of clusters, and principal axes."""

from __future__ import annotations

import numpy as np
import pytest

from engramdb.index.codes import axes as axes_module
from engramdb.index.codes import kmeans
from engramdb.index.codes.axes import principal_axes
from engramdb.index.codes.build import build
from engramdb.index.codes.kmeans import centres_of, nearest
from tests.unit.codes_support import (
    Floats32,
    codes_of,
    gaussian,
    mixture,
    no_pause,
    questions,
    take_of,
    unit,
)


def distances(
    rows: Floats32, centres: Floats32
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.linalg.norm(rows[:, None].astype(np.float64) - centres[None], axis=2)


def test_each_row_belongs_to_the_nearest_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, centres = 3 * gaussian(500, 7), gaussian(23, 7, seed=1)
    expected = distances(rows, centres).argmin(axis=1)
    assert nearest(rows, centres, no_pause).tolist() == expected.tolist()
    monkeypatch.setattr(kmeans, "_SCORES_AT_ONCE", 1)
    pauses: list[None] = []
    assert nearest(rows, centres, lambda: pauses.append(None)).tolist() == expected.tolist()
    assert len(pauses) == -(-500 // 16)


def test_centres_are_the_means_of_groups_that_are_far_apart() -> None:
    random = np.random.default_rng(4)
    means = 10 * gaussian(5, 6)
    groups = [mean + random.standard_normal((300, 6)) / 100 for mean in means]
    sample = np.concatenate(groups).astype(np.float32)
    # so many that each group is surely given some
    centres = centres_of(sample, 40, np.random.default_rng(0), no_pause)
    assert distances(means, centres).min(axis=1).max() < 0.03
    assert np.abs(distances(centres, means).min(axis=1)).max() < 0.1


def test_k_means_comes_closer_than_a_choice_of_rows_does() -> None:
    sample = mixture(2000, 12)
    centres = centres_of(sample, 50, np.random.default_rng(0), no_pause)
    chosen = sample[np.random.default_rng(0).choice(2000, 50, replace=False)]
    errors = [np.square(distances(sample, each).min(axis=1)).sum() for each in (centres, chosen)]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("count", [1, 9, 10])
def test_rows_that_are_all_the_same_have_one_cluster_and_empty_ones(count: int) -> None:
    sample = np.tile(np.array([[0.6, 0.8]], np.float32), (10, 1))
    centres = centres_of(sample, count, np.random.default_rng(0), no_pause)
    assert centres.shape == (count, 2) and np.allclose(centres, sample[0])


def test_axes_are_orthonormal_and_the_most_important_come_first() -> None:
    random = np.random.default_rng(1)
    sample = unit(random.standard_normal((3000, 64)) * np.geomspace(1, 0.01, 64))
    axes, count = principal_axes(sample)
    assert axes.dtype == np.float32 and np.allclose(axes.T @ axes, np.eye(64), atol=1e-5)
    along = np.square(sample @ axes).sum(axis=0)
    assert (np.diff(along) <= 1e-3 * along[0]).all()
    singular = np.linalg.svd(sample.astype(np.float64), compute_uv=False)
    assert along == pytest.approx(np.square(singular), rel=1e-3, abs=1e-3)
    centred = (sample - sample.mean(axis=0)) @ axes
    share = np.square(centred[:, :count]).sum() / np.square(centred).sum()
    fewer = np.square(centred[:, : count - 16]).sum() / np.square(centred).sum()
    assert count % 16 == 0 and share >= 0.7 > fewer


@pytest.mark.parametrize(("dimension", "count"), [(2, 2), (48, 48), (64, 32)])
def test_few_axes_are_all_kept_and_of_many_not_too_many(
    dimension: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(axes_module, "_COUNT_MAX", 32)
    axes, kept = principal_axes(np.eye(dimension, dtype=np.float32))
    assert axes.shape == (dimension, dimension) and kept == count


@pytest.mark.parametrize("sample", [np.zeros((9, 70)), np.eye(70)[:1], np.eye(70)[:2]])
def test_axes_of_rows_that_hardly_differ(sample: Floats32) -> None:
    axes, kept = principal_axes(sample.astype(np.float32))
    assert np.isfinite(axes).all() and 1 <= kept <= 70


@pytest.mark.parametrize(
    "vectors",
    [gaussian(1, 3), gaussian(2, 100), mixture(5000, 20), mixture(3000, 70), np.zeros((40, 5))],
    ids=["one row", "two rows", "all axes", "some axes", "zeros"],
)
def test_codes_say_where_each_row_is(vectors: Floats32) -> None:
    vectors = vectors.astype(np.float32)
    codes = codes_of(vectors)
    rows, width = len(vectors), codes.width
    assert sorted(codes.order.tolist()) == list(range(rows))
    assert (codes.order[codes.places] == np.arange(rows)).all()
    assert np.allclose(codes.codes, (vectors @ codes.axes[:, :width])[codes.order], atol=1e-6)
    along = vectors.astype(np.float64) @ codes.axes
    for cluster in range(len(codes.starts) - 1):
        mine = codes.order[codes.starts[cluster] : codes.starts[cluster + 1]]
        assert (codes.cluster[mine] == cluster).all() and (np.diff(mine) > 0).all()
        if len(mine):
            centre = along[mine].mean(axis=0)
            assert codes.centres[cluster] == pytest.approx(centre, abs=1e-6)
            squares = np.square(vectors[mine] - (codes.axes @ centre)).sum(axis=1)
            assert codes.spread[cluster] ** 2 == pytest.approx(squares.mean(), abs=1e-5)


def test_a_score_by_codes_is_the_cosine_where_all_axes_are_kept() -> None:
    vectors = gaussian(700, 30)
    codes, query = codes_of(vectors), questions(vectors, 1)[0]
    rows = np.arange(0, 700, 3)
    assert codes.scores_of(rows, query @ codes.axes) == pytest.approx(
        vectors[rows] @ query, abs=1e-6
    )


def test_codes_are_the_same_again_and_suit_the_queries_that_were_asked() -> None:
    vectors = mixture(3000, 70)
    nothing = vectors[:0]
    again = [build(3000, take_of(vectors), no_pause, nothing) for _ in range(2)]
    assert (again[0].order == again[1].order).all() and (again[0].axes == again[1].axes).all()
    asked = unit(np.tile(gaussian(1, 70, seed=9), (2000, 1)))
    suited = build(3000, take_of(vectors), no_pause, asked)
    assert sorted(suited.order.tolist()) == list(range(3000))
    inside = [np.linalg.norm(asked[0] @ each.axes[:, :16]) for each in (again[0], suited)]
    assert inside[1] > 0.99 > inside[0]
