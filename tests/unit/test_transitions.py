"""What was loaded after what: as a plain loop would count it, bounded, and forgotten."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.prefetch.transitions import (
    DECAY,
    DOUBT,
    MEMORIES_MAX,
    SUCCESSORS,
    Transitions,
)


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def keys(numbers: list[int]) -> list[bytes]:
    return [key(number) for number in numbers]


def counted(walk: list[tuple[int, int]], source: int) -> dict[int, float]:
    """The probabilities after one memory, with no more than four others after it."""
    weights: dict[int, float] = {}
    left = 0.0
    for before, after in walk:
        if before == source != after:
            weights = {each: weight * DECAY for each, weight in weights.items()}
            weights[after] = weights.get(after, 0.0) + 1
            left = left * DECAY + 1
    return {each: weight / (left + DOUBT) for each, weight in weights.items()}


steps = st.lists(st.tuples(st.integers(0, SUCCESSORS), st.integers(0, SUCCESSORS)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(walk=steps, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_it_counts_as_a_loop_does_however_the_calls_are_divided(
    walk: list[tuple[int, int]], cuts: list[int]
) -> None:
    model = Transitions()
    places = [0, *sorted(cuts), len(walk)]
    for start, stop in pairwise(places):
        part = walk[start:stop]
        model.learn(keys([a for a, _ in part]), keys([b for _, b in part]))
    for source in range(SUCCESSORS + 1):
        found = {int.from_bytes(each, "big"): share for each, share in model.after(key(source))}
        assert found == pytest.approx(counted(walk, source), rel=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_the_four_most_frequent_stay_and_a_new_habit_replaces_an_old_one() -> None:
    model = Transitions()
    targets = [1] * 5 + [2] * 4 + [3] * 3 + [4] * 2 + [5]
    model.learn(keys([0] * len(targets)), keys(targets))
    assert len(model.after(key(0))) == SUCCESSORS
    model.learn(keys([0] * 20), keys([9] * 20))
    (best, share), *_ = model.after(key(0))
    assert best == key(9) and share > 0.8


def test_it_is_bounded_and_keeps_what_was_seen_last() -> None:
    model = Transitions(64)
    for start in range(0, 2000, 7):
        model.learn(keys(list(range(start, start + 7))), keys(list(range(start + 1, start + 8))))
        assert len(model) <= 64
    assert model.after(key(0)) == []
    assert [each for each, _ in model.after(key(1990))] == [key(1991)]
    many = list(range(10_000, 11_000))
    model.learn(keys(many[:-1]), keys(many[1:]))
    assert len(model) <= 64 and model.after(key(10_998)) != []


def test_ahead_follows_the_likeliest_ways() -> None:
    model = Transitions()
    model.learn(keys([0, 1, 2] * 9), keys([1, 2, 3] * 9))
    model.learn(keys([0]), keys([7]))
    found = model.ahead(key(0), 8, 0.2)
    assert found == keys([1, 2, 3]) and key(7) in model.ahead(key(0), 8, 0.01)
    assert model.ahead(key(0), 2, 0.2) == keys([1, 2])
    assert model.ahead(key(99), 8, 0.2) == []
    model.learn(keys([3, 3, 3]), keys([0, 0, 0]))  # a circle ends
    assert model.ahead(key(0), 8, 0.01)[:3] == keys([1, 2, 3])


def test_what_leads_to_itself_is_no_step() -> None:
    model = Transitions()
    model.learn(keys([1, 1]), keys([1, 1]))
    model.learn([], [])
    assert model.after(key(1)) == [] and len(model) == 1


def test_forgetting_leaves_the_others() -> None:
    model = Transitions()
    model.learn(keys([0, 1, 0, 2]), keys([1, 2, 2, 0]))
    model.forget(keys([1, 50]))
    assert model.after(key(1)) == [] and key(1) not in model.keys().tobytes()
    assert [each for each, _ in model.after(key(0))] == [key(2)]
    assert [each for each, _ in model.after(key(2))] == [key(0)]
    assert key(1) not in b"".join(np.asarray(each).tobytes() for each in model.values().values())
    model.where(np.zeros(len(model), np.bool_))
    assert len(model) == 0 and model.after(key(0)) == []


def test_what_is_stored_comes_back() -> None:
    model = Transitions()
    model.learn(keys([0, 1, 0, 2] * 5), keys([1, 2, 2, 0] * 5))
    again = Transitions.of_values(model.values())
    assert again is not None
    for source in range(3):
        assert again.after(key(source)) == model.after(key(source))
    again.learn(keys([0, 7]), keys([7, 0]))
    model.learn(keys([0, 7]), keys([7, 0]))
    assert again.after(key(0)) == model.after(key(0))
    empty = Transitions.of_values(Transitions().values())
    assert empty is not None and len(empty) == 0


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("keys", lambda x: x[:-1]),
        ("keys", lambda x: np.zeros_like(x)),
        ("successors", lambda x: x + 1000),
        ("successors", lambda x: x - 5),
        ("successors", lambda x: x.astype(np.int64)),
        ("weights", lambda x: x * np.nan),
        ("weights", lambda x: x - 100),
        ("left", lambda x: x[:, None]),
        ("left", lambda x: x + np.inf),
        ("seen", lambda x: x - 10),
        ("seen", lambda x: b"bytes"),
    ],
)
def test_what_cannot_have_been_stored_is_refused(name: str, made: Any) -> None:
    model = Transitions()
    model.learn(keys([0, 1, 2]), keys([1, 2, 3]))
    values = model.values()
    assert Transitions.of_values(values) is not None
    values[name] = made(values[name])
    assert Transitions.of_values(values) is None
    del values[name]
    assert Transitions.of_values(values) is None


def test_a_stored_table_of_any_size_is_refused() -> None:
    count = MEMORIES_MAX + 1
    values: dict[str, Any] = {
        "keys": np.arange(2 * count, dtype=np.uint64).view(np.uint8).reshape(count, 16),
        "successors": np.full((count, SUCCESSORS), -1, np.int32),
        "weights": np.zeros((count, SUCCESSORS), np.float32),
        "left": np.zeros(count, np.float32),
        "seen": np.zeros(count, np.int64),
    }
    assert Transitions.of_values(values) is None
    assert Transitions.of_values({name: each[1:] for name, each in values.items()}) is not None
