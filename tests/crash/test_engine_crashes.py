"""Power cuts: at every call and every promise of every workload, over what was pending there.

After each one the database opens, holds a prefix of what was issued that contains everything that
was promised, answers every question about every moment as the oracle does, and goes on.
"""

from __future__ import annotations

import pytest

from engramdb.errors import EngramError
from engramdb.lsm.log_writer import LogWriter
from tests.crash.checks import Check
from tests.crash.enumerator import enumerate_crashes
from tests.crash.workloads import WORKLOADS
from tests.stress.crash_states import again, campaign

STATES_MAX = 1_200  # images built of one workload; many are the same
STATES_MIN = 20_000  # different ones checked, of all workloads together

DISTINCT_MIN = {  # about 15% below what there are now
    "a_sync_drops_pages": 340,
    "a_sync_leaves_pages": 370,
    "a_write_is_short": 340,
    "a_log_cannot_grow": 340,
    "a_name_cannot_be_synced": 380,
    "a_manifest_is_linked_nevertheless": 350,
    "a_file_cannot_be_renamed": 360,
    "groups": 410,
    "groups_of_mixed_syncs": 290,
    "groups_at_an_interval": 280,
    "groups_with_conflicts": 280,
    "groups_with_idempotency_keys": 190,
    "groups_that_share_vectors": 340,
    "groups_and_rotation": 460,
    "groups_whose_sync_fails": 250,
    "groups_behind_which_a_sync_fails": 280,
    "commits_during_a_flush": 380,
    "commits_during_a_merge": 480,
    "commits_between_a_flush_and_a_merge": 450,
    "commits_during_a_bulk_load": 430,
    "single_puts": 230,
    "allocated_log": 370,
    "large_records": 270,
    "mixed_syncs": 340,
    "mixed_syncs_allocated": 290,
    "left_to_the_system": 360,
    "synced_at_an_interval": 270,
    "batches": 290,
    "patches": 500,
    "deletes": 530,
    "edges": 470,
    "flushes": 390,
    "mixed_flushes": 410,
    "rotation": 450,
    "rotation_left_to_the_system": 470,
    "compactions": 570,
    "keep_last": 610,
    "keep_last_in_flushes": 460,
    "keep_for": 470,
    "pins_and_retention": 450,
    "pins": 300,
    "bulk": 500,
    "bulk_and_compaction": 630,
    "purges": 440,
    "forks": 600,
    "reopenings": 410,
    "kills": 440,
    "kills_between_files": 480,
    "idempotency_keys": 360,
    "memories": 380,
    "spaces": 550,
    "spaces_in_many_files": 660,
    "random_0": 530,
    "random_1": 460,
    "random_2": 480,
    "random_3": 470,
    "random_4": 360,
    "random_5": 380,
    "random_6": 430,
    "random_7": 410,
    "random_8": 510,
    "random_9": 450,
    "random_10": 450,
    "random_11": 390,
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_power_cut_loses_nothing_that_was_promised(name: str) -> None:
    check = Check()
    counts = enumerate_crashes(
        WORKLOADS[name], check, states_max=STATES_MAX, seed=1, depth=2, name=name
    )
    assert counts.distinct >= DISTINCT_MIN[name], counts
    assert counts.nested_distinct >= 50 and check.read_in_full >= 15


def test_there_are_enough_states() -> None:
    assert set(DISTINCT_MIN) == set(WORKLOADS)
    assert sum(DISTINCT_MIN.values()) >= STATES_MIN


def test_the_campaign_of_make_stress_finds_nothing_in_its_first_seconds() -> None:
    outcome = campaign(5.0, 11)
    assert outcome.failures == []
    assert outcome.figures["distinct states checked"] > 100


def test_a_failure_of_the_campaign_is_a_line_that_reproduces_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LogWriter, "sync", lambda log: None)
    outcome = campaign(1.0, 12)
    line = outcome.failures[0]
    assert line.startswith("python -c 'from tests.stress.crash_states import again; again(")
    call = line.partition("; ")[2].partition("'  # ")[0]
    with pytest.raises((AssertionError, EngramError)):
        eval(call, {"again": again})
