"""Power cuts beside others: threads that commit together, readers that follow, processes that were
killed and the ones after them. And every short sequence of operations, of which some are here."""

from __future__ import annotations

import random

import pytest

from engramdb.lsm.environment import trace as t
from tests.crash.checks import Check
from tests.crash.enumerator import CrashFailure, enumerate_crashes, run_traced
from tests.crash.followers import follow, followed
from tests.crash.killed import calls_of, killed
from tests.crash.oracle import Promise
from tests.crash.small_sequences import OPERATIONS, every_sequence, sampled, workload_of
from tests.crash.workloads import WORKLOADS

GROUPS = [name for name in WORKLOADS if name.startswith("groups")]
MEANWHILE = [name for name in WORKLOADS if name.startswith("commits_")]
FOLLOWED = [
    "mixed_syncs",
    "rotation",
    "compactions",
    "purges",
    "bulk",
    "kills",
    "groups",
    *MEANWHILE,
]
SEQUENCES = 50
SEQUENCES_DISTINCT_MIN = 1_200
KILLS = 40
KILLS_DISTINCT_MIN = 1_200


@pytest.mark.parametrize("name", [*GROUPS, *MEANWHILE])
def test_threads_leave_the_same_trace_each_time(name: str) -> None:
    first, second = run_traced(WORKLOADS[name], 1), run_traced(WORKLOADS[name], 1)
    assert first.events == second.events


def test_commits_of_a_group_share_a_sync() -> None:
    events = run_traced(WORKLOADS["groups"], 1).events
    issued = [i for i, event in enumerate(events) if isinstance(event, t.Issued)]
    told = [i for i, event in enumerate(events) if _promises(event)]
    leader, *followers = issued[:4]
    assert all(leader < place < told[1] for place in followers), "they queue behind the leader"
    assert told[1] > max(followers), "the leader was told after all had queued"
    between = events[told[1] : told[4]]
    assert sum(isinstance(event, t.Sync) for event in between) <= 2, "one, and one for more room"


def _promises(event: t.Event) -> bool:
    return isinstance(event, t.Acknowledged) and isinstance(event.what, Promise)


@pytest.mark.parametrize("name", [*FOLLOWED, *MEANWHILE])
def test_what_followers_saw_of_synced_commits_survives(name: str) -> None:
    workload = followed(WORKLOADS[name])
    counts = enumerate_crashes(workload, Check(), states_max=300, seed=4, name=name)
    assert counts.distinct >= 100


@pytest.mark.parametrize("name", WORKLOADS)
def test_followers_never_see_what_was_not_published(name: str) -> None:
    trace = run_traced(WORKLOADS[name], 5)
    total = 0
    for seed in range(3):
        marked, looks = follow(trace, seed)
        total += looks
        events = iter(marked.events)
        assert all(event in events for event in trace.events), "nothing is lost by marking"
    assert total >= 5


def test_some_short_sequences() -> None:
    check, seen, distinct = Check(), set[int](), 0
    pairs = random.Random(6).sample(every_sequence(2), SEQUENCES // 2)
    for sequence in [*pairs, *sampled(SEQUENCES // 2, 3, seed=6)]:
        name = "+".join(sequence)
        workload = workload_of(sequence)
        distinct += enumerate_crashes(
            workload, check, states_max=120, seed=6, depth=2, name=name, seen=seen
        ).distinct
    assert distinct >= SEQUENCES_DISTINCT_MIN


def test_short_sequences_are_all_of_them() -> None:
    count = len(OPERATIONS)
    assert len(set(every_sequence(3))) == count + count**2 + count**3 > 5_000


def test_processes_that_were_killed() -> None:
    rng = random.Random(7)
    check, seen, distinct = Check(), set[int](), 0
    for name in rng.choices(list(WORKLOADS), k=KILLS):
        nth = rng.randrange(1, calls_of(WORKLOADS[name], 7) + 1)
        workload = killed(WORKLOADS[name], nth)
        try:
            distinct += enumerate_crashes(
                workload, check, states_max=120, seed=7, name=name, seen=seen
            ).distinct
        except CrashFailure as failure:
            raise AssertionError(f"killed(WORKLOADS[{name!r}], {nth}): {failure}") from failure
    assert distinct >= KILLS_DISTINCT_MIN
