"""A disk for tests: deterministic, it records what it is asked, fails on demand, and loses power.

    disk = SimulatedDisk(seed=7)
    ... run something on it, with disk.issue(x) before and disk.acknowledge(x) after a promise ...
    after = crash_image(disk.trace, point, choice)    # a SimulatedDisk as a power cut leaves it
    after = disk.crash()                              # the same, at the end, with a random choice

What can be lost is said in `base` and modelled in `crash`. While it is running, the disk behaves as
a correct file system does. What is written into a lock's file is not recorded: nothing after a
crash may depend on it.
"""

from __future__ import annotations

import errno
import random
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final

from engramdb.lsm.environment import trace as t
from engramdb.lsm.environment.base import Data, Environment, File, Lock, LockHeld, Mode
from engramdb.lsm.environment.crash import CrashState, flip, resize
from engramdb.lsm.environment.faults import Fault
from engramdb.lsm.environment.namespace import Change, Entry, Namespace, failure

START_US: Final = 1_700_000_000_000_000
TICK_US: Final = 1_000
REBOOT_US: Final = 3_600_000_000


class _Node:
    """A file's bytes as its readers see them; copied on the first write after a crash or a map."""

    __slots__ = ("content", "holder", "number")

    def __init__(self, number: int, content: bytes) -> None:
        self.number = number
        self.content: bytes | bytearray = content
        self.holder: bytes | None = None

    def writable(self) -> bytearray:
        if isinstance(self.content, bytes):
            self.content = bytearray(self.content)
        return self.content

    def frozen(self) -> bytes:
        if not isinstance(self.content, bytes):
            self.content = bytes(self.content)
        return self.content


class SimulatedFile(File):
    """A handle on a node of a simulated disk."""

    __slots__ = ("_disk", "_node", "_writable", "path")

    def __init__(self, disk: SimulatedDisk, path: str, node: _Node, writable: bool) -> None:
        self.path = path
        self._disk = disk
        self._node: _Node | None = node
        self._writable = writable

    def _opened(self, to_write: bool = False) -> _Node:
        if self._node is None or (to_write and not self._writable):
            raise failure(errno.EBADF, self.path)
        return self._node

    def read_at(self, offset: int, length: int) -> bytes:
        with self._disk.guard:
            node = self._opened()
            self._disk.call("read_at", self.path)
            if offset < 0 or length < 0:
                raise failure(errno.EINVAL, self.path)
            return bytes(node.content[offset : offset + length])

    def write_at(self, offset: int, data: Data) -> None:
        if isinstance(data, memoryview) and data.itemsize != 1:
            raise TypeError("write_at takes bytes, or a memoryview with items of one byte")
        with self._disk.guard:
            node = self._opened(to_write=True)
            fault = self._disk.count("write_at")
            if offset < 0:
                raise failure(errno.EINVAL, self.path)
            written = bytes(data) if fault is None else bytes(data[: fault.partial])
            if written:
                content = node.writable()
                resize(content, max(len(content), offset))
                content[offset : offset + len(written)] = written
                self._disk.trace.events.append(t.Write(node.number, offset, written))
            if fault is not None:
                raise fault.exception(self.path)

    def size(self) -> int:
        with self._disk.guard:
            node = self._opened()
            self._disk.call("size", self.path)
            return len(node.content)

    def truncate(self, length: int) -> None:
        with self._disk.guard:
            node = self._opened(to_write=True)
            fault = self._disk.count("truncate")
            if length < 0:
                raise failure(errno.EINVAL, self.path)
            if fault is None or fault.happens:
                resize(node.writable(), length)
                self._disk.trace.events.append(t.Truncate(node.number, length))
            if fault is not None:
                raise fault.exception(self.path)

    def sync(self) -> None:
        self._sync("sync")

    def sync_data(self) -> None:
        self._sync("sync_data")

    def _sync(self, kind: str) -> None:
        with self._disk.guard:
            node = self._opened()
            fault = self._disk.count(kind)
            if fault is None or fault.happens:
                self._disk.trace.events.append(t.Sync(node.number))
                if fault is not None:
                    raise fault.exception(self.path)
                return
            self._disk.trace.events.append(t.SyncFailed(node.number, fault.drop))
            if fault.drop:
                trace = self._disk.trace
                node.content = CrashState(trace, len(trace.events)).durable(node.number)
            raise fault.exception(self.path)

    def map(self) -> memoryview:
        with self._disk.guard:
            node = self._opened()
            self._disk.call("map", self.path)
            return memoryview(node.frozen())

    def close(self) -> None:
        self._node = None


class SimulatedLock(Lock):
    """A lock on a node; a crash releases it, because the image has other nodes."""

    __slots__ = ("_node",)

    def __init__(self, node: _Node) -> None:
        self._node: _Node | None = node

    def release(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            node.holder = None

    def after_fork_in_child(self) -> None:
        self._node = None


class SimulatedDisk(Environment):
    """A machine with one disk, a clock and a seed.

    trace      everything that happened to the disk
    calls      how often each kind of call was made, by the name of the method
    guard      held during each call; whoever looks at the trace from another thread takes it
    """

    is_persistent = True

    def __init__(self, seed: int = 0, *, image: t.Image = t.EMPTY, generation: int = 0) -> None:
        self.trace = t.Trace(image, seed, generation)
        self.calls: Counter[str] = Counter()
        self.guard = threading.RLock()
        self._faults: list[Fault] = []
        self._names = Namespace({n: names.copy() for n, names in image.directories.items()})
        self._nodes = {n: _Node(n, content.data) for n, content in image.files.items()}
        self._last_number = max(max(image.files, default=0), max(image.directories))
        self._now_us = START_US + generation * REBOOT_US
        self._monotonic_us = 0
        self._random: random.Random | None = None  # 10 us to seed; few images ask for it

    # What a test adds to it

    def issue(self, what: object) -> None:
        """Mark in the trace that the caller is about to ask for `what`."""
        with self.guard:
            self.trace.events.append(t.Issued(what))

    def acknowledge(self, what: object) -> None:
        """Mark in the trace that the caller was told that `what` is durable."""
        with self.guard:
            self.trace.events.append(t.Acknowledged(what))

    def fail(
        self,
        kind: str,
        nth: int = 1,
        *,
        error: int = errno.EIO,
        sticky: bool = False,
        partial: int = 0,
        happens: bool = False,
        drop: bool = True,
        raises: type[BaseException] | None = None,
    ) -> Fault:
        """Let the nth call of `kind` from now on fail; see `Fault`. Faults add up."""
        fault = Fault(kind, nth, error, sticky, partial, happens, drop, raises)
        with self.guard:
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """No more faults."""
        with self.guard:
            self._faults.clear()

    def rot(self, path: str, bit: int) -> None:
        """Flip a bit of a file (bit 0 is the lowest bit of the first byte)."""
        with self.guard:
            node = self._nodes[self._names.file(path)]
            if not 0 <= bit < len(node.content) * 8:
                raise ValueError(f"{path} has {len(node.content)} bytes, so no bit {bit}")
            node.content = flip(node.content, bit)
            self.trace.events.append(t.Rot(node.number, bit))

    def content(self, path: str) -> bytes:
        """The bytes of a file; no call is counted, and none fails."""
        with self.guard:
            return bytes(self._nodes[self._names.file(path)].content)

    def plant(self, path: str, content: bytes | None) -> None:
        """Replace a file's bytes beneath whoever uses the disk, durably and under each of its
        names; None takes this name away. The file is made if it is not there."""
        with self.guard:
            if content is None:
                self._plant_name(path, None)
                return
            known = self._names.find(path)
            number = self._next_number() if known is None else self._names.file(path)
            node = self._nodes.setdefault(number, _Node(number, b""))
            node.content = bytes(content)
            self.trace.events.append(t.Planted(number, node.content))
            if known is None:  # the content first: a crash in between must not find a name alone
                self._plant_name(path, number)

    def _plant_name(self, path: str, node: int | None) -> None:
        if node is None:
            self._names.file(path)  # a directory cannot be taken away
        directory, name = self._names.place(path)
        self._names.apply((Entry(directory, name, node),))
        self.trace.events.append(t.NamePlanted(directory, name, node))

    def step_clock(self, microseconds: int) -> None:
        """Set the clock forward, or back; `monotonic` does not notice."""
        with self.guard:
            self._now_us += microseconds

    def crash(
        self, choice: Sequence[int] | None = None, *, rng: random.Random | None = None
    ) -> SimulatedDisk:
        """The disk after a power cut now; without a choice, a random one (by `rng`, else by the
        seed) that keeps, drops or tears each pending operation."""
        with self.guard:
            state = CrashState(self.trace, len(self.trace.events))
        if choice is None:
            choice = random_choice(state, rng or random.Random(self.trace.seed))
        return reboot(self.trace, state.image(choice))

    # What the disk itself needs

    def count(self, kind: str) -> Fault | None:
        """Count a call; the fault that it is to fail with."""
        self.calls[kind] += 1
        due = None
        for fault in self._faults:
            if fault.is_due(kind) and due is None:
                due = fault
        return due

    def call(self, kind: str, *paths: str) -> None:
        """Count a call that does nothing if it fails, and fail it if it is its turn."""
        fault = self.count(kind)
        if fault is not None:
            raise fault.exception(*paths)

    def _change(
        self, change: Change, kind: str, fault: Fault | None, *paths: str, makes: int | None = None
    ) -> None:
        if fault is None or fault.happens:
            if makes is not None:
                self._names.directories[makes] = {}
            self._names.apply(change)
            self.trace.events.append(t.NamesChanged(kind, change, makes))
        if fault is not None:
            raise fault.exception(*paths)

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    # The environment

    def open(self, path: str, mode: Mode) -> File:
        with self.guard:
            fault = self.count("open")
            if mode == "x":
                return SimulatedFile(self, path, self._create(path, fault), True)
            if fault is not None:
                raise fault.exception(path)
            return SimulatedFile(self, path, self._nodes[self._names.file(path)], mode == "w")

    def _create(self, path: str, fault: Fault | None) -> _Node:
        number = self._next_number()
        change = self._names.plan_create(path, number)
        node = self._nodes[number] = _Node(number, b"")
        self._change(change, "create", fault, path)
        return node

    def exists(self, path: str) -> bool:
        with self.guard:
            self.call("exists", path)
            return self._names.find(path) is not None

    def size(self, path: str) -> int:
        with self.guard:
            self.call("size", path)
            return len(self._nodes[self._names.file(path)].content)

    def list(self, path: str) -> list[str]:
        with self.guard:
            self.call("list", path)
            return sorted(self._names.directories[self._names.directory(path)])

    def make_directory(self, path: str) -> None:
        with self.guard:
            fault = self.count("make_directory")
            if fault is not None and not fault.happens:
                raise fault.exception(path)
            self._make_directory(path)
            if fault is not None:
                raise fault.exception(path)

    def _make_directory(self, path: str) -> None:
        parent = path.rstrip("/").rpartition("/")[0] or "/"
        node = self._names.find(path)
        if node is None:
            self._make_directory(parent)
            number = self._next_number()
            change = self._names.plan_create(path, number)
            self._change(change, "make_directory", None, makes=number)
        elif node not in self._names.directories:
            raise failure(errno.EEXIST, path)
        self.trace.events.append(t.SyncDirectory(self._names.directory(parent)))

    def rename(self, source: str, destination: str) -> None:
        with self.guard:
            fault = self.count("rename")
            change = self._names.plan_rename(source, destination)
            if change or fault is not None:
                self._change(change, "rename", fault, source, destination)

    def link(self, source: str, destination: str) -> None:
        with self.guard:
            fault = self.count("link")
            change = self._names.plan_link(source, destination)
            self._change(change, "link", fault, source, destination)

    def unlink(self, path: str) -> None:
        with self.guard:
            fault = self.count("unlink")
            self._change(self._names.plan_unlink(path), "unlink", fault, path)

    def sync_directory(self, path: str) -> None:
        with self.guard:
            fault = self.count("sync_directory")
            directory = self._names.directory(path)
            failed = fault is not None and not fault.happens
            event = t.SyncDirectoryFailed if failed else t.SyncDirectory
            self.trace.events.append(event(directory))
            if fault is not None:
                raise fault.exception(path)

    def lock(self, path: str, content: bytes) -> Lock:
        with self.guard:
            fault = self.count("lock")
            if fault is not None:
                raise fault.exception(path)
            if self._names.find(path) is None:
                node = self._create(path, None)
            else:
                node = self._nodes[self._names.file(path)]
            if node.holder is not None:
                raise LockHeld(node.holder)
            node.holder = node.content = bytes(content)
            return SimulatedLock(node)

    def lock_is_held(self, path: str) -> bool:
        with self.guard:
            self.call("lock_is_held", path)
            number = self._names.find(path)
            return number in self._nodes and self._nodes[number].holder is not None

    def now(self) -> int:
        with self.guard:
            self._now_us += TICK_US
            return self._now_us

    def monotonic(self) -> float:
        with self.guard:
            self._monotonic_us += TICK_US
            return self._monotonic_us / 1e6

    def random_bytes(self, length: int) -> bytes:
        with self.guard:
            if self._random is None:  # other bytes after each crash, as a machine would give
                self._random = random.Random(f"{self.trace.seed}/{self.trace.generation}")
            return self._random.randbytes(length)


def reboot(trace: t.Trace, image: t.Image) -> SimulatedDisk:
    """A disk that holds `image`, which a crash somewhere in `trace` has left."""
    return SimulatedDisk(trace.seed, image=image, generation=trace.generation + 1)


def crash_image(trace: t.Trace, point: int, choice: Sequence[int] = ()) -> SimulatedDisk:
    """The disk after a power cut behind the first `point` events; `choice` says which pending
    operations arrived, see `crash`. To build many, walk one `CrashState` along the trace."""
    return reboot(trace, CrashState(trace, point).image(choice))


def random_choice(state: CrashState, rng: random.Random) -> list[int]:
    """Keep, drop or tear each pending operation."""
    choice = []
    for pending in state.pending:
        fate = rng.randrange(8)
        if fate == 0 and pending.sectors:
            choice.append(rng.randrange(1 << pending.sectors + 1))
        else:
            choice.append(-(fate & 1))
    return choice
