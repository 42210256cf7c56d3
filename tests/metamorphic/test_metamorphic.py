"""The same operations under 20 random option sets give identical transcripts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from engramdb.lsm import retention, rewrite
from engramdb.lsm.retention import Mask
from tests.metamorphic.campaign import Tally, compare_list, settings_for
from tests.metamorphic.operations import WEIGHTS, make_list
from tests.metamorphic.run import transcript_of
from tests.metamorphic.settings import make_setting

LENGTH = 100


@pytest.mark.parametrize("seed", range(1, 11))
def test_settings_change_no_answer(seed: int) -> None:
    tally = Tally()
    compare_list(seed, LENGTH, tally)
    assert not tally.failures, tally.failures[0]
    assert tally.settings == 20


def test_the_lists_ask_for_everything_and_mostly_get_an_answer() -> None:
    asked: Counter[str] = Counter()
    refused = lossy = 0
    for seed in range(1, 11):
        operations = make_list(seed, LENGTH)
        lossy += operations.lossy
        asked.update(operation.name for operation in operations.operations)
        transcript = transcript_of(operations, make_setting(0))
        refused += sum("Error:" in answer.required[:30] for answer in transcript)
    assert asked.keys() == WEIGHTS.keys() and lossy == 4
    assert refused < 0.3 * asked.total()


def test_the_settings_differ_in_everything() -> None:
    settings = [make_setting(seed) for seed in settings_for(1)]
    for name in ("place", "memtable_bytes", "fan_in", "bulk_bytes_min", "durability", "background"):
        assert len({getattr(setting, name) for setting in settings}) > 1, name


def _marks_are_lost(self: rewrite.Carrier, above_seq: int, until_seq: int) -> None:
    """A merge forgets what was superseded meanwhile."""


def _tags_are_forgotten(*arguments: Any) -> Mask:
    rows, policy, pins, durable_seq, window_seq = arguments
    return _droppable(rows, policy, pins[:0], durable_seq, window_seq)


def _is_late(rows: Any, *arguments: Any) -> Mask:
    """The policy drops one version too many."""
    return _droppable(rows, *arguments) | (rows.superseded <= np.uint64(arguments[2]))


_droppable = retention.droppable


@pytest.mark.parametrize(
    ("target", "name", "bug"),
    [
        (rewrite.Carrier, "carry", _marks_are_lost),
        (rewrite, "droppable", _tags_are_forgotten),
        (rewrite, "droppable", _is_late),
    ],
)
def test_a_planted_bug_is_found(
    target: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, name, bug)
    tally = Tally()
    for seed in (15, 5, 6, 10, 11, 16, 20, 21):  # with policies that drop versions
        compare_list(seed, LENGTH, tally)
        if tally.failures:
            break
    assert tally.failures[0].startswith(f"python -m tests.metamorphic {seed} {LENGTH} ")
