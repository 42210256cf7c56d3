"""Readers beside a writer that will lose its power.

A follower is a read-only engine on a replica of the writer's disk: the events of the writer's trace
are applied to it one by one, so it stands still at every system call of the writer, and may also be
moved on between two calls of the follower itself. What it sees must be a state that the writer has
published, and never goes back.

What it saw of synced commits is marked in the trace as promised, at the very place where it saw it:
the enumerator then checks that it survives every power cut from there on.
"""

from __future__ import annotations

import random

from engramdb.lsm import StorageEngine
from engramdb.lsm.environment import trace as t
from engramdb.lsm.environment.crash import CrashState, resize
from engramdb.lsm.environment.faults import Fault
from engramdb.lsm.environment.simulated import SimulatedDisk, _Node
from engramdb.lsm.manifest import numbers_in
from tests.crash.checks import check_answers, check_now, match
from tests.crash.driver import PATH, SMALL
from tests.crash.named import Run
from tests.crash.oracle import Oracle, Promise, World

OWN_NUMBERS = 1 << 32  # what the follower makes itself has numbers above the writer's
STEP_MAX = 4  # events of the writer between two calls of a follower


class Replica(SimulatedDisk):
    """The disk of another machine's trace, as far as `position`; whoever reads it changes nothing
    of it. `restless`: with a random source, each call that is made to it lets the writer go on."""

    def __init__(self, trace: t.Trace) -> None:
        super().__init__(trace.seed, image=trace.base, generation=trace.generation)
        self._last_number = OWN_NUMBERS
        self.writer = trace
        self.position = 0
        self.restless: random.Random | None = None
        self._rest: t.Write | None = None  # of a write that has arrived in part
        self.synced: list[tuple[int, t.SyncDirectory]] = []  # by a follower, and where

    def count(self, kind: str) -> Fault | None:
        if self.restless is not None and self.restless.random() < 0.3:
            self.advance(self.restless.randrange(STEP_MAX))
        return super().count(kind)

    def sync_directory(self, path: str) -> None:
        before = len(self.trace.events)
        super().sync_directory(path)
        for event in self.trace.events[before:]:
            if isinstance(event, t.SyncDirectory) and event.directory < OWN_NUMBERS:
                self.synced.append((self.position, event))

    def advance(self, events: int) -> None:
        """Let the writer make so many of its calls; a restless disk shows some writes half done."""
        for _ in range(events):
            if self._rest is not None:
                self._write(self._rest)
                self._rest = None
            if self.position == len(self.writer.events):
                return
            self._apply(self.position)
            self.position += 1

    def _apply(self, position: int) -> None:
        event = self.writer.events[position]
        match event:
            case t.Write(file, offset, data):
                if self.restless is not None and len(data) > 1 and self.restless.random() < 0.3:
                    cut = self.restless.randrange(1, len(data))
                    self._write(t.Write(file, offset, data[:cut]))
                    self._rest = event
                else:
                    self._write(event)
            case t.Truncate(file, length):
                resize(self._file(file).writable(), length)
            case t.NamesChanged(_, change, made):
                if made is not None:
                    self._names.directories[made] = {}
                self._names.apply(change)
                for entry in change:
                    if entry.node is not None and entry.node not in self._names.directories:
                        self._file(entry.node)
            case t.SyncFailed(file, True):
                self._file(file).content = CrashState(self.writer, position + 1).durable(file)

    def _file(self, number: int) -> _Node:
        return self._nodes.setdefault(number, _Node(number, b""))

    def _write(self, event: t.Write) -> None:
        content = self._file(event.file).writable()
        resize(content, max(len(content), event.offset))
        content[event.offset : event.offset + len(event.data)] = event.data


class Follower:
    """A read-only engine that refreshes, and what it has seen so far."""

    def __init__(self, disk: Replica) -> None:
        self.disk = disk
        self.engine: StorageEngine | None = None
        self.seq = 0
        self.looks = 0
        self.states: set[tuple[int, int]] = set()  # seqs and manifests that were read in full

    def look(self) -> int:
        """Open or refresh, and check what is there. Returns the last commit that it sees."""
        before = self.disk.position
        if self.engine is None:
            if not self._is_there():
                return 0
            self.engine = open_to_read(self.disk)
        else:
            self.engine.refresh()
        self.looks += 1
        oracle = check_published(self.engine, self.disk.writer, before, self.disk.position)
        assert oracle.last_seq >= self.seq, f"it saw {self.seq} commits, and now {oracle.last_seq}"
        state = oracle.last_seq, self.engine._core.manifest.number
        if state in self.states:
            check_now(self.engine, oracle)
        else:
            self.states.add(state)
            check_answers(self.engine, oracle)
        self.seq = oracle.last_seq
        return self.seq

    def _is_there(self) -> bool:
        return self.disk.exists(PATH) and bool(numbers_in(self.disk.list(PATH)))


def open_to_read(disk: SimulatedDisk) -> StorageEngine:
    """Open the database on a disk of which somebody else has the lock."""
    disk.lock(f"{PATH}/LOCK", b"1")
    return StorageEngine.open(PATH, SMALL, environment=disk, read_only=True)


def world_at(trace: t.Trace, position: int) -> World:
    """What was issued and acknowledged up to a place of a trace."""
    state = CrashState(t.Trace(trace.base, events=_markers(trace, position)))
    state.advance_to(len(state.trace.events))
    return World.of(state.issued, state.acknowledged)


def _markers(trace: t.Trace, position: int) -> list[t.Event]:
    return [e for e in trace.events[:position] if isinstance(e, t.Issued | t.Acknowledged)]


def check_published(engine: StorageEngine, trace: t.Trace, first: int, last: int) -> Oracle:
    """What a reader shows that began to look at `first` and was done at `last`: all that had been
    acknowledged when it began, and nothing that had not been issued when it was done."""
    world = world_at(trace, last)
    before = world_at(trace, first)
    world.must_commits, world.must_settings = before.must_commits, before.must_settings
    return match(engine, world)[0]


def follow(trace: t.Trace, seed: int | None = None) -> tuple[t.Trace, int]:
    """A copy of a trace in which is marked what followers saw, and how often they looked.

    Without a seed one follower refreshes, and another one opens, at every call of the writer. With
    a seed they look at random places while the writer goes on.
    """
    rng = None if seed is None else random.Random(seed)
    replica = Replica(trace)
    follower = Follower(replica)
    promised = 0
    marked: list[t.Event] = []
    copied = 0
    opened = 0
    while True:
        replica.restless = rng
        seen = follower.look()
        replica.restless = None
        for position, event in replica.synced:
            marked += trace.events[copied:position]
            marked.append(event)
            copied = position
        replica.synced.clear()
        marked += trace.events[copied : replica.position]
        copied = replica.position
        durable = _last_synced(trace, copied, seen)
        if durable > promised:
            promised = durable
            marked.append(t.Acknowledged(Promise(durable, 0)))
        if rng is None and follower.engine is not None:
            opened += _opens_anew(trace, copied)
        if replica.position == len(trace.events):
            break
        replica.advance(1 if rng is None else rng.randrange(1, 2 * STEP_MAX))
    return t.Trace(trace.base, trace.seed, trace.generation, marked), follower.looks + opened


def _opens_anew(trace: t.Trace, position: int) -> int:
    """One that comes at this very moment: once beside the living writer, once after it died."""
    for is_alive in (True, False):
        replica = Replica(trace)
        replica.advance(position)
        if is_alive:
            engine = open_to_read(replica)
        else:
            engine = StorageEngine.open(PATH, SMALL, environment=replica, read_only=True)
        check_now(engine, check_published(engine, trace, position, position))
        engine.close()
    return 2


def _last_synced(trace: t.Trace, position: int, seen: int) -> int:
    """The last synced commit among the first `seen` of those issued so far."""
    commits = world_at(trace, position).commits[:seen]
    return max((seq for seq, commit in enumerate(commits, 1) if commit.sync), default=0)


def followed(workload: Run, seed: int | None = None) -> Run:
    """The workload with followers, as one that the enumerator can take."""

    def run(disk: SimulatedDisk, acknowledge: object) -> None:
        workload(disk, disk.acknowledge)
        marked, _ = follow(disk.trace, seed)
        disk.trace.events[:] = marked.events

    run.__name__ = f"followed_{getattr(workload, '__name__', 'workload')}"
    return run
