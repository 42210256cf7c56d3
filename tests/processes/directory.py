"""One directory and all who live in it: writers that are killed one after the other, and readers.

What dies here is a process, not the machine: what was written stays in the page cache, synced or
not. What a power cut leaves is the matter of tests/crash. The seed determines what is done and
when a writer is to be killed; where exactly that hits it, the operating system decides.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from engramdb import Database, HistoryUnavailableError
from tests.processes.contents import Violation, state_of
from tests.processes.ledger import Ask, Ledger
from tests.processes.pipes import THREADS_MAX, Board, Child, deadline_in
from tests.processes.reader import read
from tests.processes.writer import Settings, write

READERS = 2
ROUNDS_MAX = 16  # of one directory
HANG_S = 120.0  # nothing takes a hundredth of it
MOMENTS = 4  # past ones that are looked at after a round


@dataclass
class Tally:
    """What was done."""

    kills: int = 0
    kills_opening: int = 0
    kills_closing: int = 0
    closed: int = 0
    recoveries: int = 0
    acknowledged: int = 0
    seen_by_readers: int = 0
    moments: int = 0
    directories: int = 0


@dataclass(frozen=True)
class Plan:
    """When a writer is killed: so long after it has said so many times what it waits for."""

    kind: str
    count: int
    delay_s: float


def plan_of(rng: random.Random) -> Plan:
    """While it opens, works, closes, or at any time."""
    kind = rng.choices(["open", "answer", "time", "closing"], [2, 5, 2, 2])[0]
    if kind == "open":
        return Plan(kind, 0, rng.uniform(0, 0.02))
    if kind == "answer":
        return Plan(kind, int(2 ** rng.uniform(0, 6.5)), rng.choice([0, rng.uniform(0, 0.003)]))
    if kind == "time":
        return Plan(kind, 0, rng.uniform(0, 0.12))
    return Plan(kind, 1, rng.choice([0, rng.uniform(0, 0.01)]))


class Directory:
    """The parent of all processes that use one directory."""

    def __init__(self, seed: int, tally: Tally) -> None:
        self.path = tempfile.mkdtemp(prefix="engramdb-kills-")
        self.place = f"{self.path}/db"
        self.tally, self.ledger, self.board = tally, Ledger(), Board()
        self._rng = random.Random(seed)
        self._seed = seed
        self._operation = 1
        self._settings = self._shape()
        self._children: list[Child] = []
        for number in range(READERS):
            self._children.append(Child(lambda fd, n=number: read(self.place, n, self.board, fd)))  # type: ignore[misc]

    def _shape(self) -> dict[str, Any]:
        choice = self._rng.choice
        return {
            "durability": choice(["sync", "sync", "interval", "os"]),
            "memtable_bytes": choice([1024, 8192, 65536, 1 << 26]),
            "background": choice([True, True, False]),
            "log_allocate_bytes": choice([0, 4096, 1 << 20]),
            "bulk_bytes_min": choice([1, 1 << 30]),
            "fan_in": choice([2, 4]),
        }

    def live(self, is_enough: Callable[[], bool]) -> None:
        """A number of rounds, or until it is enough. Raises Violation."""
        self.tally.directories += 1
        try:
            for number in range(self._rng.randint(4, ROUNDS_MAX)):
                self._round(number)
                if is_enough():
                    break
            self.board.stop()
            for reader in self._children:
                self._drain(reader, reader_of=True)
                if reader.wait():
                    raise Violation("a reader has died")
            self._children.clear()
            self._open_at_last()
        finally:
            self.board.stop()
            for child in self._children:
                child.kill()
                child.wait()
            self.tally.acknowledged += self.ledger.acknowledged
        shutil.rmtree(self.path)

    def _round(self, number: int) -> None:
        rng = self._rng
        plan = plan_of(rng)
        settings = Settings(
            seed=rng.randrange(1 << 30),
            first_operation=self._operation,
            threads=rng.choice([1, 2, THREADS_MAX]),
            operations=rng.randint(1, 40) if plan.kind == "closing" else 1 << 30,
            **self._settings,
        )
        writer = Child(lambda fd: write(self.place, settings, self.board, fd))
        self._children.append(writer)
        self._follow(writer, plan)
        code = writer.wait()
        self._children.remove(writer)
        if writer.killed:
            self.tally.kills += 1
            self.tally.kills_opening += plan.kind == "open"
            self.tally.kills_closing += plan.kind == "closing"
        elif code:
            raise Violation(f"the writer has ended with {code}")
        else:
            self.tally.closed += 1
        for reader in self._children:
            for message in reader.messages(0) or []:
                self._hear(message)
        self._look()
        if rng.random() < 0.1:
            self._replace_a_reader()

    def _follow(self, writer: Child, plan: Plan) -> None:
        """Read what all of them say, kill the writer in time, read the rest."""
        left = deadline_in(HANG_S)
        started = time.monotonic()
        count, at = 0, started + plan.delay_s if not plan.count else None
        while True:
            pause = 0.05 if at is None else min(0.05, at - time.monotonic())
            if at is not None and pause <= 0:
                writer.kill()
                self._drain(writer)
                return
            messages = writer.messages(pause)
            if messages is None:
                return
            for message in messages:
                self._hear(message)
                count += message[0] == plan.kind
            if at is None and count >= plan.count:
                at = time.monotonic() + plan.delay_s
            for reader in self._children[:READERS]:
                for message in reader.messages(0) or []:
                    self._hear(message)
            if left() < 0:
                raise Violation("the writer hangs")

    def _drain(self, child: Child, *, reader_of: bool = False) -> None:
        left = deadline_in(HANG_S)
        while (messages := child.messages(0.05)) is not None:
            for message in messages:
                self._hear(message)
            if left() < 0:
                raise Violation("a reader hangs" if reader_of else "what was killed does not die")

    def _hear(self, message: list[Any]) -> None:
        kind, *rest = message
        ledger = self.ledger
        if kind == "ask":
            operation, memories, connections = rest
            self._operation = max(self._operation, operation + 1)
            ledger.ask(
                Ask(operation, [(n, v) for n, v in memories], [tuple(c) for c in connections])
            )
        elif kind == "answer":
            ledger.answer(*rest)
        elif kind == "saw":
            self.tally.seen_by_readers += 1
            ledger.see(*rest)
        elif kind == "opened":
            self.tally.recoveries += 1
            if rest != [ledger.last_seq, ledger.digests[-1]]:
                raise Violation(f"recovery gave {rest}, not commit {ledger.last_seq} as it was")
        elif kind == "care":
            if rest[0] == "tag":
                self._operation = max(self._operation, int(rest[1][1:]) + 1)
                ledger.tags[rest[1]] = None
            ledger.may_forget |= rest[0] == "history" and rest[1] != "all"
        elif kind == "cared":
            if rest[0] == "tag":
                ledger.tags[rest[1]] = rest[2]
        elif kind == "failed":
            raise Violation(f"unexpected: {rest[0]}")
        elif kind not in ("closing", "closed"):
            raise AssertionError(f"no such message: {message}")

    def _look(self) -> None:
        """At what the writer has left, without changing it: the next one has to recover it."""
        ledger = self.ledger
        try:
            db = Database.open(self.place, read_only=True)
        except ValueError:  # there is none: it was killed before it had made one
            if ledger.last_seq or ledger.acknowledged:
                raise
            return
        with db:
            for seq in ledger.unknown(db.last_seq):
                with suppress(HistoryUnavailableError), db.as_of(seq) as past:
                    ledger.see(seq, state_of(past).digest())
            ledger.settle(db.last_seq, state_of(db))
            self._check(db)

    def _check(self, db: Database) -> None:
        ledger = self.ledger
        report = db.verify()
        if not report.ok:
            raise Violation(f"verify: {report.problems}")
        tags = {name: tag.seq for name, tag in db.tags().items()}
        for name, seq in ledger.tags.items():
            if seq is not None and tags.get(name) != seq:
                raise Violation(f"the tag {name} is at {tags.get(name)}, not at {seq}")
        if not tags.keys() <= ledger.tags.keys():
            raise Violation(f"tags that nobody has asked for: {tags.keys() - ledger.tags.keys()}")
        moments: list[int | str] = [
            self._rng.randrange(max(0, ledger.last_seq - 40), ledger.last_seq + 1)
            for _ in range(MOMENTS)
        ]
        for moment in [*moments, *list(tags)[-2:]]:
            try:
                with db.as_of(moment) as past:
                    difference = state_of(past).difference(ledger.states[past.seq])
            except HistoryUnavailableError:
                if isinstance(moment, str) or not ledger.may_forget:
                    raise Violation(f"{moment} is forgotten, and no policy allows it") from None
                continue
            self.tally.moments += 1
            if difference:
                raise Violation(f"as of {moment}, it is another state: {difference}")

    def _replace_a_reader(self) -> None:
        """Readers may be killed too; nobody is to notice."""
        victim = self._children.pop(0)
        victim.kill()
        self._drain(victim, reader_of=True)
        victim.wait()
        seed = self._rng.randrange(1 << 30)
        self._children.append(Child(lambda fd: read(self.place, seed, self.board, fd)))

    def _open_at_last(self) -> None:
        """As its owner does: recover, write, close, open again."""
        ledger = self.ledger
        for _ in range(2):
            with Database.file_based(self.place, **self._public()) as db:
                difference = state_of(db).difference(ledger.states[-1])
                if db.last_seq != ledger.last_seq or difference:
                    raise Violation(f"opened for writing, it is at {db.last_seq}: {difference}")
                self._check(db)
                db.compact()
                self._check(db)

    def _public(self) -> dict[str, Any]:
        return {name: self._settings[name] for name in ("durability", "memtable_bytes")}


def lives(seed: int, is_enough: Callable[[Tally], bool]) -> tuple[Tally, list[str]]:
    """One directory after the other, until it is enough, or something is broken."""
    tally, rng = Tally(), random.Random(seed)
    while not is_enough(tally):
        failure = live(rng.randrange(1 << 30), tally, lambda: is_enough(tally))
        if failure is not None:
            return tally, [failure]
    return tally, []


def live(seed: int, tally: Tally, is_enough: Callable[[], bool]) -> str | None:
    """The life of one directory. None, or one line that says what was broken and repeats it; the
    directory is kept then."""
    directory = Directory(seed, tally)
    try:
        directory.live(is_enough)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return (
            f'python -c "from tests.processes.directory import repeat; repeat({seed})"  '
            f"# round {tally.kills + tally.closed}: {what[:1500]}; kept in {directory.path}"
        )
    return None


def repeat(seed: int) -> None:
    """Do it again, as far as timing allows."""
    print(live(seed, Tally(), lambda: False))
