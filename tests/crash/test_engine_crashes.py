"""Power cuts: at every call and every promise of every workload, over what was pending there.

After each one the database opens, holds a prefix of what was issued that contains everything that
was promised, answers every question about every moment as the oracle does, and goes on.
"""

from __future__ import annotations

import pytest

from tests.crash.checks import Check
from tests.crash.enumerator import enumerate_crashes
from tests.crash.workloads import WORKLOADS

STATES_MAX = 1_500  # images built of one workload; many are the same
STATES_MIN = 20_000  # different ones checked, of all workloads together

DISTINCT_MIN = {  # about 15% below what there are now
    "single_puts": 430,
    "allocated_log": 480,
    "large_records": 340,
    "mixed_syncs": 430,
    "mixed_syncs_allocated": 330,
    "left_to_the_system": 490,
    "synced_at_an_interval": 380,
    "batches": 390,
    "patches": 650,
    "deletes": 560,
    "edges": 520,
    "flushes": 440,
    "rotation": 530,
    "rotation_left_to_the_system": 570,
    "compactions": 770,
    "keep_last": 680,
    "keep_last_in_flushes": 550,
    "keep_for": 600,
    "pins_and_retention": 590,
    "pins": 480,
    "bulk": 650,
    "bulk_and_compaction": 520,
    "purges": 500,
    "forks": 650,
    "reopenings": 440,
    "kills": 450,
    "kills_between_files": 540,
    "idempotency_keys": 400,
    "random_0": 650,
    "random_1": 630,
    "random_2": 460,
    "random_3": 500,
    "random_4": 530,
    "random_5": 540,
    "random_6": 580,
    "random_7": 530,
    "random_8": 640,
    "random_9": 610,
    "random_10": 580,
    "random_11": 530,
    "mixed_flushes": 560,
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_power_cut_loses_nothing_that_was_promised(name: str) -> None:
    check = Check()
    counts = enumerate_crashes(
        WORKLOADS[name], check, states_max=STATES_MAX, seed=1, depth=2, name=name
    )
    assert counts.distinct >= DISTINCT_MIN[name], counts
    assert counts.nested_distinct >= 50 and check.read_in_full >= 20


def test_there_are_enough_states() -> None:
    assert set(DISTINCT_MIN) == set(WORKLOADS)
    assert sum(DISTINCT_MIN.values()) >= STATES_MIN


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(2, 8))
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_million_power_cuts(name: str, seed: int) -> None:
    enumerate_crashes(WORKLOADS[name], Check(), states_max=20_000, seed=seed, depth=3, name=name)
