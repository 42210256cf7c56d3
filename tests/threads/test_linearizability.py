"""The checker itself: it agrees with trying all orders, and rejects what is known to be wrong."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from tests.threads.linearizability import Operation, explain


def register(state: object, asked: tuple[str, int], answered: object) -> tuple[bool, object]:
    kind, value = asked
    if kind == "read":
        return answered == state, state
    if kind == "write":
        return answered is None, value
    swapped = state == value // 10  # compare and swap: expected * 10 + new
    return answered == swapped, value % 10 if swapped else state


def by_brute_force(history: list[Operation]) -> bool:
    for order in permutations(history):
        if any(
            later.returned < earlier.invoked
            for i, earlier in enumerate(order)
            for later in order[i + 1 :]
        ):
            continue
        state: object = 0
        for each in order:
            right, state = register(state, each.asked, each.answered)
            if not right:
                break
        else:
            return True
    return False


def some_history(rng: random.Random) -> list[Operation]:
    history = []
    for _ in range(rng.randint(1, 6)):
        invoked = rng.randrange(12)
        kind = rng.choice(["read", "read", "write", "swap"])
        value = rng.randrange(3) if kind == "write" else rng.randrange(3) * 10 + rng.randrange(3)
        answered = {"read": rng.randrange(3), "write": None, "swap": rng.random() < 0.5}[kind]
        returned = invoked + rng.randrange(6)
        history.append(Operation(invoked, returned, (kind, value), answered))
    return history


def test_it_agrees_with_trying_all_orders() -> None:
    found = [0, 0]
    for seed in range(4000):
        history = some_history(random.Random(seed))
        wanted = by_brute_force(history)
        order = explain(history, register, 0)
        assert (order is not None) == wanted, f"seed {seed}: {history}"
        found[wanted] += 1
        if order is not None:
            state: object = 0
            for each in order:
                right, state = register(state, each.asked, each.answered)
                assert right
            assert sorted(map(repr, order)) == sorted(map(repr, history))
    assert min(found) > 400


WRONG = {
    "a stale read": [
        Operation(0, 1, ("write", 1), None),
        Operation(2, 3, ("write", 2), None),
        Operation(4, 5, ("read", 0), 1),
    ],
    "a read of what comes later": [
        Operation(0, 1, ("read", 0), 1),
        Operation(2, 3, ("write", 1), None),
    ],
    "new, then old": [
        Operation(0, 9, ("write", 1), None),
        Operation(1, 2, ("read", 0), 1),
        Operation(3, 4, ("read", 0), 0),
    ],
    "two swaps of one value": [
        Operation(0, 5, ("swap", 1), True),
        Operation(1, 6, ("swap", 2), True),
    ],
    "a swap refused for no reason": [Operation(0, 1, ("swap", 1), False)],
    "a lost update": [
        Operation(0, 3, ("swap", 1), True),
        Operation(1, 4, ("swap", 12), True),
        Operation(5, 6, ("read", 0), 1),
    ],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_is_rejected(name: str) -> None:
    assert explain(WRONG[name], register, 0) is None


def test_a_long_history_is_no_matter() -> None:
    """Half a thousand reads and writes that overlap four at a time; then one answer is spoiled."""
    history = []
    for i in range(500):
        asked = ("write", i) if i % 2 == 0 else ("read", 0)
        history.append(Operation(10 * i, 10 * i + 35, asked, None if i % 2 == 0 else i - 1))
    assert explain(history, register, 0) is not None
    history[301] = Operation(3010, 3045, ("read", 0), 200)
    assert explain(history, register, 0) is None
