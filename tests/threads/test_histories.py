"""Histories of many threads are linearizable; with bugs on purpose they are found not to be."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from engramdb import Database, MemoryNode
from engramdb.lsm import committer
from engramdb.lsm.arena import Arena
from engramdb.lsm.committer import Committer
from engramdb.lsm.log_writer import LogWriter
from engramdb.lsm.records import NEVER, Batch, Commit
from engramdb.lsm.version import State
from engramdb.transaction import Transaction
from tests.threads.histories import Shape, judge, record, trial

HISTORIES = 30
HISTORIES_OF_A_BUG_MAX = 60
OFTEN = 1e-6
Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("durability", ["sync", "interval", "os"])
@pytest.mark.parametrize("switch_interval_s", [OFTEN, 0.005])
def test_each_durability_level_is_linearizable(durability: str, switch_interval_s: float) -> None:
    shape = Shape(durability=durability, switch_interval_s=switch_interval_s, operations=40)
    for seed in range(2):
        history = record(seed, shape)
        assert len(history.operations) > 100 and history.looked_back
        assert judge(history) == [], f"record({seed}, {shape})"


def test_histories_of_many_shapes_are_linearizable() -> None:
    rng = random.Random(2)
    for _ in range(HISTORIES):
        _, problems = trial(rng.randrange(1 << 30))
        assert problems == []


# Bugs


def published_before_it_is_applied(monkeypatch: Patch) -> None:
    real = Committer._sequence

    def sequence(self: Committer, *arguments: Any) -> tuple[Commit, bytes]:
        core = self._core
        state = core.state
        core.state = State(state.version, core.last_seq + 1, core.last_time + 1, state.floor)
        time.sleep(0.0005)
        return real(self, *arguments)

    monkeypatch.setattr(Committer, "_sequence", sequence)


def expectations_not_checked_under_the_lock(monkeypatch: Patch) -> None:
    real, check = Committer.commit, committer._check_expectations

    def commit(self: Committer, batch: Batch, **options: Any) -> Commit:
        check(batch, self._core.snapshot())
        return real(self, batch, **options)

    monkeypatch.setattr(Committer, "commit", commit)
    monkeypatch.setattr(committer, "_check_expectations", lambda batch, snapshot: None)


def guards_not_checked(monkeypatch: Patch) -> None:
    real = Committer.commit

    def commit(self: Committer, batch: Batch, **options: Any) -> Commit:
        batch.guards.clear()
        time.sleep(0.0005)  # or two that delete the same memory seldom meet
        return real(self, batch, **options)

    monkeypatch.setattr(Committer, "commit", commit)


def acknowledged_before_it_is_published(monkeypatch: Patch) -> None:
    """As if a reader could go on with an old state."""
    real = Database.get
    kept: dict[tuple[int, str], MemoryNode | None] = {}

    def get(self: Database, memory_id: str) -> MemoryNode | None:
        name = id(self), memory_id
        if random.random() < 0.7:
            kept[name] = real(self, memory_id)
        return kept.setdefault(name, real(self, memory_id))

    monkeypatch.setattr(Database, "get", get)


def a_search_sees_what_is_not_published(monkeypatch: Patch) -> None:
    run, append = Arena.run, LogWriter.append
    monkeypatch.setattr(Arena, "run", lambda self, seq: run(self, NEVER - 1))
    monkeypatch.setattr(
        LogWriter, "append", lambda self, data: (time.sleep(0.0005), append(self, data))
    )


def what_a_transaction_read_is_not_checked(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Transaction, "_loaded", lambda self, key: None)


def a_number_given_twice(monkeypatch: Patch) -> None:
    real = Committer._sequence

    def sequence(self: Committer, *arguments: Any) -> tuple[Commit, bytes]:
        commit, data = real(self, *arguments)
        if commit.seq % 7 == 0:
            self._core.last_seq -= 1
        return commit, data

    monkeypatch.setattr(Committer, "_sequence", sequence)


BUGS = [
    published_before_it_is_applied,
    expectations_not_checked_under_the_lock,
    guards_not_checked,
    acknowledged_before_it_is_published,
    a_search_sees_what_is_not_published,
    what_a_transaction_read_is_not_checked,
    a_number_given_twice,
]


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_noticed(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    bug(monkeypatch)
    for seed in range(HISTORIES_OF_A_BUG_MAX):
        shape = Shape(switch_interval_s=OFTEN, memtable_bytes=1 << 26)
        if judge(record(seed, shape)):
            return
    raise AssertionError("the bug was not noticed")
