"""The process that is killed: several threads that do everything a user can do to a database.

Before each operation it says what it asks for, and right after the call has returned that it did.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any

import numpy as np

from engramdb import ConflictError, Database, KeepAll, KeepFor, KeepLast, MemoryNotFoundError
from engramdb.lsm import Options
from tests.processes.contents import (
    ACCOUNTS,
    FREE,
    PAIRS,
    SUM,
    TYPES,
    VICTIMS,
    id_of,
    node_of,
    padding_of,
    state_of,
    vector_of,
)
from tests.processes.pipes import Board, send

POLICIES = {
    "all": KeepAll(),
    "two": KeepLast(2),
    "now": KeepFor(timedelta(0)),
}
NOTHING = (ConflictError, MemoryNotFoundError)
"""What a call raises that has written nothing, and that is nobody's fault."""


@dataclass(frozen=True)
class Settings:
    """How one writer opens the database and how much it does before it closes it."""

    seed: int
    first_operation: int
    threads: int
    operations: int  # of each thread
    durability: str
    memtable_bytes: int
    background: bool
    log_allocate_bytes: int
    bulk_bytes_min: int
    fan_in: int


def write(path: str, settings: Settings, board: Board, fd: int) -> None:
    """The whole life of the process, if nobody ends it."""
    db = Database.file_based(
        path,
        durability=settings.durability,
        memtable_bytes=settings.memtable_bytes,
        background=settings.background,
        sync_interval=0.005,
    )
    core = db._engine._core
    core.options = replace(  # what a user need not know of
        core.options,
        log_allocate_bytes=settings.log_allocate_bytes,
        bulk_bytes_min=settings.bulk_bytes_min,
        fan_in=settings.fan_in,
    )
    assert isinstance(core.options, Options)
    send(fd, "opened", db.last_seq, state_of(db).digest())
    writer = Writer(db, settings, board, fd)
    writer.begin()
    errors: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            writer.work(thread)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[i]) for i in range(1, settings.threads)]
    for thread in threads:
        thread.start()
    work(0)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    send(fd, "closing")
    db.close()
    send(fd, "closed")


class Writer:
    """What the threads share."""

    def __init__(self, db: Database, settings: Settings, board: Board, fd: int) -> None:
        self.db, self.settings, self.board, self.fd = db, settings, board, fd
        self._numbers = count(settings.first_operation)
        self._committed = threading.local()  # the seq of the thread's last commit
        engine: Any = db._engine
        for name in ("commit", "commit_columns"):
            setattr(engine, name, self._telling(getattr(engine, name)))

    def _telling(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """The number of a commit is told by save() only, and wanted of every call."""

        def commit(*arguments: Any, **named: Any) -> Any:
            made = real(*arguments, **named)
            self._committed.seq = made.seq
            return made

        return commit

    @contextmanager
    def asking(
        self,
        thread: int,
        operation: int,
        memories: list[tuple[int, int | None]],
        connections: list[tuple[int, int, str, bool]] | None = None,
    ) -> Iterator[None]:
        """Around the call that does it."""
        self._committed.seq = 0
        send(self.fd, "ask", operation, memories, connections or [])
        self.board.count(thread)
        try:
            yield
        except NOTHING:
            send(self.fd, "answer", operation, 0)
        else:
            self.answer(thread, operation)

    def answer(self, thread: int, operation: int) -> None:
        """The call has returned."""
        seq = self._committed.seq
        if seq:
            self.board.acknowledge(thread, seq)
        send(self.fd, "answer", operation, seq)

    @contextmanager
    def caring(self, what: str, name: str) -> Iterator[list[int]]:
        """Around a call that commits nothing; the list takes what it returned."""
        told = [0]
        send(self.fd, "care", what, name)
        yield told
        send(self.fd, "cared", what, name, told[0])

    def begin(self) -> None:
        """The accounts, if they are not there."""
        if id_of(ACCOUNTS[0]) not in self.db:
            operation, share = next(self._numbers), SUM // len(ACCOUNTS)
            with self.asking(0, operation, [(number, share) for number in ACCOUNTS]):
                self.db.save_many([node_of(number, operation, share) for number in ACCOUNTS])

    def work(self, thread: int) -> None:
        """What one thread does."""
        rng = random.Random(self.settings.seed * THREAD_SEEDS + thread)
        actions, weights = zip(*ACTIONS.items(), strict=True)
        for _ in range(self.settings.operations):
            (action,) = rng.choices(actions, weights)
            action(self, thread, next(self._numbers), rng)


THREAD_SEEDS = 16


def save(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    number, value = rng.choice((*FREE, *VICTIMS)), rng.randrange(100)
    with writer.asking(thread, operation, [(number, value)]):
        writer.db.save(
            node_of(number, operation, value), sync=rng.choice((None, None, True, False))
        )


def touch(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    """A new version with the same vector, unless another thread comes in between."""
    number = rng.choice(FREE)
    node = writer.db.get(id_of(number))
    if node is None:
        return
    value = node.get_attribute("n") + 3
    for name, new in (("op", operation), ("n", value), ("pad", padding_of(operation))):
        node.set_attribute(name, new)
    with writer.asking(thread, operation, [(number, value)]):
        writer.db.save(node, expected_seq=node._seq if rng.random() < 0.5 else None)


def save_many(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    value = rng.randrange(100)
    numbers = [*rng.sample(FREE, rng.randint(1, 4)), *rng.choice(PAIRS)]
    with writer.asking(thread, operation, [(number, value) for number in numbers]):
        writer.db.save_many([node_of(number, operation, value) for number in numbers])


def save_columns(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    value = rng.randrange(100)
    numbers = [*rng.sample(FREE, rng.randint(1, 6)), *rng.choice(PAIRS)]
    with writer.asking(thread, operation, [(number, value) for number in numbers]):
        writer.db.save_columns(
            [id_of(number) for number in numbers],
            np.array([vector_of(number, value) for number in numbers], np.float32),
            [{"op": operation, "n": value, "pad": padding_of(operation)} for _ in numbers],
        )


def pair(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    """Two memories and a connection between them, in a transaction."""
    (a, b), value = rng.choice(PAIRS), rng.randrange(100)
    type_ = rng.choice(TYPES)
    ask = [(a, value), (b, value)], [(a, b, type_, True)]
    with writer.asking(thread, operation, *ask), writer.db.transaction() as tx:
        tx.save_many([node_of(number, operation, value) for number in (a, b)])
        tx.connect(id_of(a), id_of(b), type_, attributes={"op": operation})


def transfer(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    a, b = rng.sample(ACCOUNTS, 2)
    try:
        with writer.db.transaction() as tx:
            amount = rng.randrange(1, 20)
            values = {
                a: tx.load(id_of(a)).get_attribute("n") - amount,
                b: tx.load(id_of(b)).get_attribute("n") + amount,
            }
            for number, value in values.items():
                tx.save(node_of(number, operation, value))
            writer._committed.seq = 0
            send(writer.fd, "ask", operation, list(values.items()), [])
            writer.board.count(thread)
    except NOTHING:
        send(writer.fd, "answer", operation, 0)
    else:
        writer.answer(thread, operation)


def delete(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    number = rng.choice(FREE)
    with writer.asking(thread, operation, [(number, None)]):
        writer.db.delete(id_of(number))


def delete_pair(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    both = rng.choice(PAIRS)
    ask: list[tuple[int, int | None]] = [(number, None) for number in both]
    with writer.asking(thread, operation, ask), writer.db.transaction() as tx:
        for number in both:
            tx.delete(id_of(number))


def connect(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    a, b, type_ = rng.choice(FREE), rng.choice((*FREE, *VICTIMS)), rng.choice(TYPES)
    with writer.asking(thread, operation, [], [(a, b, type_, True)]):
        writer.db.connect(id_of(a), id_of(b), type_, attributes={"op": operation})


def disconnect(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    a, b, type_ = rng.choice(FREE), rng.choice(FREE), rng.choice(TYPES)
    with writer.asking(thread, operation, [], [(a, b, type_, False)]):
        writer.db.disconnect(id_of(a), id_of(b), type_)


def flush(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    with writer.caring("flush", ""):
        writer.db.flush()


def compact(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    with writer.caring("compact", ""):
        writer.db.compact()


def purge(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    victim = id_of(rng.choice(VICTIMS))
    with writer.caring("purge", victim):
        writer.db.purge(victim)


def tag(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    with writer.caring("tag", f"t{operation}") as told:
        told[0] = writer.db.tag(f"t{operation}").seq


def set_history(writer: Writer, thread: int, operation: int, rng: random.Random) -> None:
    name = rng.choice(list(POLICIES))
    with writer.caring("history", name):
        writer.db.set_history(POLICIES[name])


ACTIONS: dict[Callable[[Writer, int, int, random.Random], None], float] = {
    save: 20,
    touch: 10,
    save_many: 8,
    save_columns: 4,
    pair: 12,
    transfer: 15,
    delete: 6,
    delete_pair: 2,
    connect: 14,
    disconnect: 6,
    flush: 1,
    compact: 0.5,
    purge: 0.7,
    tag: 0.5,
    set_history: 0.2,
}
