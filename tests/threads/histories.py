"""Threads that use a few memories of one database at once, and the judgement of what they saw.

Three judgements, each on its own:
    per key       saves, saves with expected_seq, deletes, loads and what a search found, memory by
                  memory, are linearizable: a register with compare-and-set
    all keys      transactions and searches, which see several memories at once, are strictly
                  serializable
    by number     commits get their numbers in an order that agrees with the clock, and as_of() of a
                  number shows what the writes up to that number have left, whenever it is asked
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from engramdb import ConflictError, Database, MemoryNode
from tests.threads.linearizability import Operation, explain

IDS = [f"{n:08x}-0000-4000-8000-000000000000" for n in (7, 0x70000000, 0xF0000000)]
VALUES = 4096  # different vectors; a value is in use once in a history
QUERY = [1.0, 0.0]

Version = tuple[int, int]
"""A value and the number of the commit that wrote it."""
State = tuple[Version | None, ...]
"""Of each key, or of a single one."""


@dataclass(frozen=True)
class Shape:
    """What a history is made of."""

    threads: int = 4
    operations: int = 25  # of each thread
    switch_interval_s: float = 0.005
    durability: str = "os"
    memtable_bytes: int = 1024
    in_memory: bool = False


@dataclass
class History:
    """What happened. `asked` and `answered` by kind, see `apply_key` and `apply_all`."""

    operations: list[Operation] = field(default_factory=list)
    looked_back: list[tuple[int, int, Version | None]] = field(default_factory=list)


def vector_of(value: int) -> list[float]:
    """A direction for each value: the score of a search tells which one it was."""
    angle = math.pi * value / VALUES
    return [math.cos(angle), math.sin(angle)]


def value_of(score: float) -> int:
    """The value of the vector that has this cosine with the query."""
    return round(math.acos(max(-1.0, min(1.0, score))) * VALUES / math.pi)


class Thread:
    """One of them: does, and writes down. Its values are its own."""

    def __init__(self, db: Database, number: int, shape: Shape, rng: random.Random) -> None:
        self.db, self.number, self.rng = db, number, rng
        self.history = History()
        self._values = iter(range(number + 1, VALUES, shape.threads))

    def run(self, operations: int) -> None:
        """So many operations."""
        acts = [self.save, self.swap, self.delete, self.load, self.load, self.search, self.transact,
                self.look_back]  # fmt: skip
        weights = [4, 4, 2, 4, 0, 4, 5, 3]
        for _ in range(operations):
            self.rng.choices(acts, weights)[0]()

    def note(self, asked: Any, act: Callable[[], Any]) -> Any:
        """Do it, with the clock before and after."""
        invoked = time.perf_counter_ns()
        answered = act()
        returned = time.perf_counter_ns()
        operation = Operation(invoked, returned, asked, answered, self.number)
        self.history.operations.append(operation)
        return answered

    def _node(self, key: int, value: int) -> MemoryNode:
        return MemoryNode(vector_of(value), id=IDS[key], attributes={"value": value})

    def save(self) -> None:
        key, value = self.rng.randrange(len(IDS)), next(self._values)
        node = self._node(key, value)

        def act() -> int:
            self.db.save(node)
            return node._seq

        self.note(("save", key, value), act)

    def swap(self) -> None:
        """Save a memory unless its newest version is not the one that was loaded before."""
        key, value = self.rng.randrange(len(IDS)), next(self._values)
        found = self.note(("load", key), lambda: self._load(key))
        expected = found[1] if found else 0
        node = self._node(key, value)

        def act() -> int | None:
            try:
                self.db.save(node, expected_seq=expected)
            except ConflictError:
                return None
            return node._seq

        self.note(("swap", key, value, expected), act)

    def delete(self) -> None:
        key = self.rng.randrange(len(IDS))
        self.note(("delete", key), lambda: self.db.delete(IDS[key]))

    def load(self) -> None:
        key = self.rng.randrange(len(IDS))
        self.note(("load", key), lambda: self._load(key))

    def _load(self, key: int) -> Version | None:
        node = self.db.get(IDS[key])
        return None if node is None else (node.get_attribute("value"), node._seq)

    def search(self) -> None:
        def act() -> tuple[int | None, ...]:
            hits = dict(self.db.search_similar(QUERY, 10, -1.0))
            return tuple(value_of(hits[id_]) if id_ in hits else None for id_ in IDS)

        self.note(("search",), act)

    def transact(self) -> None:
        """Load two memories and save one or both; or only look."""
        a, b = self.rng.sample(range(len(IDS)), 2)
        saves = self.rng.choice([(), (a,), (a, b)])
        values = {key: next(self._values) for key in saves}
        seen: dict[int, Version | None] = {}

        def act() -> tuple[tuple[tuple[int, Version | None], ...], int | None]:
            nodes = [self._node(key, value) for key, value in values.items()]
            try:
                with self.db.transaction() as tx:
                    for key in (a, b):
                        node = tx.get(IDS[key])
                        seen[key] = node and (node.get_attribute("value"), node._seq)
                    for node in nodes:
                        tx.save(node)
            except ConflictError:
                return tuple(seen.items()), None
            return tuple(seen.items()), nodes[0]._seq if nodes else 0

        self.note(("transact", tuple(values.items())), act)

    def look_back(self) -> None:
        """At any moment, the last one most of all; it is judged at the end."""
        seq = self.db.last_seq
        if self.rng.random() < 0.3:
            seq = self.rng.randrange(seq + 1)
        with self.db.as_of(seq) as past:
            for key, id_ in enumerate(IDS):
                node = past.get(id_)
                found = None if node is None else (node.get_attribute("value"), node._seq)
                self.history.looked_back.append((seq, key, found))


def apply_key(state: Version | None, asked: Any, answered: Any) -> tuple[bool, Version | None]:
    """One memory as a register."""
    kind, *rest = asked
    if kind == "load":
        return answered == state, state
    if kind == "value":  # seen by a search, which does not tell the commit
        return answered == (state and state[0]), state
    if kind == "save":
        return True, (rest[0], answered)
    if kind == "swap":
        value, expected = rest
        if answered is None:
            return (state[1] if state else 0) != expected, state
        return (state[1] if state else 0) == expected, (value, answered)
    assert kind == "delete"
    return answered == (state is not None), None


def apply_all(state: State, asked: Any, answered: Any) -> tuple[bool, State]:
    """All memories at once."""
    kind, *rest = asked
    if kind == "search":
        return answered == tuple(each and each[0] for each in state), state
    if kind == "transact":
        seen, seq = answered
        if seq is None:  # it saw something that was changed before it could write
            return True, state
        made = list(state)
        for key, value in rest[0]:
            made[key] = (value, seq)
        return all(state[key] == version for key, version in seen), tuple(made)
    key = rest[0]
    right, version = apply_key(state[key], (kind, *rest[1:]), answered)
    return right, (*state[:key], version, *state[key + 1 :])


def of_key(history: History, key: int) -> Iterator[Operation]:
    """The operations as one memory sees them."""
    for each in history.operations:
        kind, *rest = each.asked
        asked, answered = (kind, *rest[1:]), each.answered
        if kind == "search":
            asked, answered = ("value",), each.answered[key]
        elif kind == "transact":
            seen, seq = each.answered
            written = dict(rest[0])
            if key in written and seq:
                asked, answered = ("save", written[key]), seq
            elif key in dict(seen) and seq is not None and not written:
                asked, answered = ("load",), dict(seen)[key]
            else:
                continue
        elif rest[0] != key:
            continue
        yield Operation(each.invoked, each.returned, asked, answered, each.thread)


def judge(history: History) -> list[str]:
    """What is wrong with it."""
    problems = []
    for key in range(len(IDS)):
        if explain(list(of_key(history, key)), apply_key, None) is None:
            problems.append(f"memory {key} is not linearizable")
    if explain(history.operations, apply_all, (None,) * len(IDS)) is None:
        problems.append("not strictly serializable")
    return problems + _judge_numbers(history)


def _writes(history: History) -> list[tuple[int, Operation, dict[int, int]]]:
    """The commits whose numbers are known, with what they saved."""
    found = []
    for each in history.operations:
        kind, *rest = each.asked
        if kind in ("save", "swap") and each.answered is not None:
            found.append((each.answered, each, {rest[0]: rest[1]}))
        elif kind == "transact" and each.answered[1]:
            found.append((each.answered[1], each, dict(rest[0])))
    return sorted(found, key=lambda write: write[0])


def _judge_numbers(history: History) -> list[str]:
    problems, writes = [], _writes(history)
    latest_start = 0
    versions: list[dict[int, int]] = [{} for _ in IDS]  # of each key: commit to value
    for seq, operation, saved in writes:
        if operation.returned < latest_start:
            problems.append(f"commit {seq} had returned before one of a lower number was asked for")
        latest_start = max(latest_start, operation.invoked)
        for key, value in saved.items():
            if seq in versions[key]:
                problems.append(f"commit {seq} was given twice")
            versions[key][seq] = value
    answers: dict[tuple[int, int], set[Version | None]] = {}
    for moment, key, found in history.looked_back:
        answers.setdefault((moment, key), set()).add(found)
        if found is None:
            continue  # deleted, or not saved yet; deletes do not tell their numbers
        value, seq = found
        if versions[key].get(seq) != value:
            problems.append(f"as of {moment}, memory {key} is {found}, which nobody saved")
        newest = max((each for each in versions[key] if each <= moment), default=0)
        if newest != seq:
            problems.append(f"as of {moment}, memory {key} is {found}, not that of {newest}")
    for place, seen in answers.items():
        if len(seen) > 1:
            problems.append(f"memory {place[1]} as of {place[0]} is now this, now that: {seen}")
    return problems


def record(seed: int, shape: Shape) -> History:
    """Have the threads work on a new database, while another one flushes and merges."""
    with tempfile.TemporaryDirectory(prefix="engramdb-history-") as path:
        settings: dict[str, Any] = {"memtable_bytes": shape.memtable_bytes}
        if shape.in_memory:
            db = Database.in_memory(**settings)
        else:
            db = Database.file_based(f"{path}/db", durability=shape.durability, **settings)
        with db, _switching(shape.switch_interval_s):
            return _work(db, seed, shape)


def _work(db: Database, seed: int, shape: Shape) -> History:
    workers = [
        Thread(db, number, shape, random.Random(seed * 64 + number))
        for number in range(shape.threads)
    ]
    stop, errors = threading.Event(), list[BaseException]()
    start = threading.Barrier(shape.threads + 1)

    def guarded(work: Callable[[], object]) -> None:
        try:
            start.wait()
            work()
        except BaseException as error:
            errors.append(error)

    def care() -> None:
        while not stop.wait(0.002):
            db.flush()
            db.compact()

    works: list[Callable[[], object]] = [
        lambda worker=worker: worker.run(shape.operations)  # type: ignore[misc]
        for worker in workers
    ]
    carer = threading.Thread(target=guarded, args=[care])
    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in (carer, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    carer.join()
    if errors:
        raise errors[0]
    history = History()
    for worker in workers:
        history.operations += worker.history.operations
        history.looked_back += worker.history.looked_back
    return history


@contextmanager
def _switching(interval_s: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval_s)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def shape_of(rng: random.Random) -> Shape:
    """One of many."""
    return Shape(
        threads=rng.choice([2, 3, 4, 6]),
        operations=rng.choice([10, 20, 30]),
        switch_interval_s=rng.choice([1e-6, 1e-6, 0.005]),
        durability=rng.choice(["sync", "interval", "os"]),
        memtable_bytes=rng.choice([1024, 4096, 1 << 26]),
        in_memory=rng.random() < 0.3,
    )


def repeat(seed: int) -> None:
    """Record and judge one history, as far as timing allows the same one."""
    print(trial(seed)[1])


def trial(seed: int) -> tuple[History, list[str]]:
    """One history, and one line for each thing that is wrong with it."""
    try:
        history = record(seed, shape_of(random.Random(seed)))
        problems = judge(history)
    except Exception as error:
        history, problems = History(), [f"{type(error).__name__}: {error}"]
    call = f'python -c "from tests.threads.histories import repeat; repeat({seed})"'
    return history, [f"{call}  # {' '.join(each.split())}" for each in problems]
