"""Opens a damaged database and reads everything: a typed error, or the same answers, or what the
documentation allows (docs/durability.md, "A torn tail, and damage").

What may be missing is worked out here a second time, from the bytes: a commit is proven when
VISIBLE or the header of a later record, as they are after the damage, say that its place was
synced. If no proof is left, what stands from the damaged place on may be cut off; what is left is a
prefix, and what was cut off is counted, unless there is nothing left to count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from xxhash import xxh3_128_hexdigest

from engramdb.errors import CorruptionError, EngramError, IncompatibleFormatError
from engramdb.lsm import StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk, reboot
from engramdb.lsm.log_format import RECORD_HEADER
from engramdb.lsm.log_writer import read_visible
from engramdb.lsm.manifest import encode_policy, load_latest
from engramdb.lsm.records import EDGE, MEMORY, META
from tests.crash.checks import read_edges, read_memories, read_runs
from tests.crash.damage import Damage, files_of
from tests.crash.databases import (
    CHECKPOINT,
    DATABASE_OPTIONS,
    PATH,
    ROOTS,
    database,
    disk_of,
    image_of,
    kind_of,
    paths_of,
)
from tests.crash.driver import key, vector
from tests.crash.reading import ReadingDisk
from tests.crash.watchdog import bounded

ERROR, SAME, PREFIX = "typed error", "same answers", "documented prefix"
MIXED = "copies mixed"  # nobody can notice: see docs
STATISTICS = ("versions", "segments", "vectors", "history_floor", "dimension")
UNTOUCHED = ("seg", "vec", "mark", "wal", "MANIFEST")


@dataclass(frozen=True, slots=True)
class Answers:
    """Everything that an engine says. `moments`: a digest for each commit from the history floor
    on; `rest`: of what is not as of one commit."""

    last_seq: int
    settings: str
    moments: tuple[str, ...]
    rest: str
    truncated: int


def _digest(parts: object) -> str:
    return xxh3_128_hexdigest(repr(parts).encode())


KEYS = [key(number) for number in range(25)]


def read_everything(engine: StorageEngine) -> Answers:
    """Ask for everything, in every way."""
    statistics = engine.stats()
    vectors: dict[int, bytes] = {}
    floor, last = statistics["history_floor"], engine.last_seq
    moments = []
    for seq in range(floor, last + 1):
        snapshot = engine.at(seq)
        moments.append(
            _digest(
                (
                    sorted(read_memories(snapshot, vectors).items()),
                    sorted(read_edges(snapshot).items()),
                    sorted(read_runs(snapshot)),
                    snapshot.count(MEMORY),
                    snapshot.count(EDGE),
                )
            )
        )
    latest = engine.latest()
    settings = (sorted(engine.pins().items()), encode_policy(engine.history_policy))
    pinned = [
        sorted(read_memories(engine.at(commit.seq), vectors).items())
        for commit in engine.pins().values()
    ]
    rest = [
        [statistics[name] for name in STATISTICS],
        pinned,
        [latest.history(MEMORY, key_) for key_ in KEYS],
        [latest.get(MEMORY, key_) for key_ in KEYS],
        [[*latest.edges_from(key_), *latest.edges_to(key_)] for key_ in KEYS],
        [rows.payloads() for rows in latest.scan(META)],
        [np.sort(run.product(vector(1, 2, 3))).tolist() for run in latest.vector_runs()],
        engine.changes(floor),
    ]
    return Answers(
        last, _digest(settings), tuple(moments), _digest(rest), statistics["truncated_bytes"]
    )


def answers_of(disk: SimulatedDisk, root: str, *, read_only: bool = False) -> Answers:
    """Open, read everything, and go without closing properly."""
    engine = StorageEngine.open(root, DATABASE_OPTIONS, environment=disk, read_only=read_only)
    try:
        return read_everything(engine)
    finally:
        engine._core.close("read")


class DamageCheck:
    """Checks one damage after another of one database, and counts what came of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.outcomes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.right: dict[str, Answers] = {}
        image = database(name)[1]
        self.nodes = paths_of(image)
        self.files = files_of(image)
        self.touched = {number: bytearray(len(c.data)) for number, c in image.files.items()}
        for root in ROOTS:
            if any(path.startswith(f"{root}/") for path in self.nodes):
                self.right[root] = answers_of(disk_of(name), root)
                for read_only in (False, True):
                    disk = ReadingDisk(image)
                    assert answers_of(disk, root, read_only=read_only) == self.right[root]
                    self._touch(disk)

    def _touch(self, disk: ReadingDisk) -> None:
        for number, touched in disk.touched.items():
            mine = self.touched[number]
            mine[:] = bytes(a | b for a, b in zip(mine, touched, strict=True))

    def matters(self, flip: Damage) -> bool:
        """Whether any reader touches the byte of this flip."""
        return bool(self.touched[self.nodes[flip.path]][flip.at // 8])

    def check_untouched(self) -> int:
        """All bits that no reader touches flip at once: the same answers. How many there were."""
        count = 0
        disk = disk_of(self.name)
        for path, node in self.nodes.items():
            touched = self.touched[node]
            content = database(self.name)[1].files[node].data
            turned = bytes(
                byte if read else byte ^ 255 for byte, read in zip(content, touched, strict=True)
            )
            count += 8 * touched.count(0) if path in self.files else 0
            disk.plant(path, turned)
        for root, right in self.right.items():
            for read_only in (True, False):
                again = reboot(disk.trace, image_of(disk))
                assert answers_of(again, root, read_only=read_only) == right, f"{self.name} {root}"
        return count

    def __call__(self, damage: Damage, *, looks: int | None = None) -> None:
        """AssertionError, of one line that makes it again, if an answer is wrong. It is looked at
        as each of the databases that the damage reaches, to write and to read only; `looks` bounds
        that, and goes round."""
        ways = [(root, read_only) for root in self._roots_of(damage) for read_only in (False, True)]
        if looks is not None:
            first = sum(self.kinds.values()) % len(ways)
            ways = [*ways[first:], *ways[:first]][:looks]
        for root, read_only in ways:
            line = f"DamageCheck({self.name!r})({damage!r})  # {root}, {read_only=}"
            look = partial(self._look, damage, root, read_only, line)
            self.outcomes[bounded(look, line)] += 1
        self.kinds[damage.kind] += 1

    def _roots_of(self, damage: Damage) -> list[str]:
        """The databases that have a file of it; those of a copy share files with the original."""
        touched = {self.nodes.get(damage.path), self.nodes.get(damage.other)} - {None}
        paths = {path for path, node in self.nodes.items() if node in touched} | {damage.path}
        return [root for root in self.right if any(path.startswith(f"{root}/") for path in paths)]

    def _look(self, damage: Damage, root: str, read_only: bool, line: str) -> str:
        disk = disk_of(self.name)
        damage.apply(disk)
        before = _files(disk, root)
        try:
            engine = StorageEngine.open(
                root, DATABASE_OPTIONS, environment=disk, read_only=read_only
            )
        except EngramError as error:
            check_type(error, line)
            check_kept(before, _files(disk, root), line)
            assert not disk.lock_is_held(f"{root}/LOCK"), f"{line}: the lock is still held"
            return ERROR
        try:
            got = read_everything(engine)
        except (CorruptionError, IncompatibleFormatError):
            return ERROR
        finally:
            engine._core.close("read")
        if replace(got, truncated=0) == replace(self.right[root], truncated=0):
            return SAME  # garbage behind a log's end is counted and cut off
        if mixes_copies(damage):
            return MIXED
        self._check_prefix(got, before, root, line)
        return PREFIX

    def _check_prefix(self, got: Answers, files: dict[str, bytes], root: str, line: str) -> None:
        right = self.right[root]
        lost = right.last_seq - got.last_seq
        assert lost > 0, f"{line}: wrong answers"
        assert got.settings == right.settings, f"{line}: other settings"
        assert got.moments == right.moments[:-lost], f"{line}: not a prefix"
        proven, rest = proven_commits(self.name, files, root, got.last_seq)
        assert got.last_seq >= proven, f"{line}: {got.last_seq} commits, {proven} were proven"
        assert got.truncated or not rest, f"{line}: {lost} commits went without a word"


def mixes_copies(damage: Damage) -> bool:
    """Whether it puts a log of a checkpoint into its original, or the other way round. Both have
    one uuid, and went on with the same numbers."""
    logs = [path for path in (damage.path, damage.other) if kind_of(path) == "wal"]
    roots = {path.split("/")[1] for path in logs}
    return len(logs) == 2 and roots == {PATH[1:], CHECKPOINT[1:]}


def check_type(error: EngramError, line: str) -> None:
    """Damage is one of two errors, nothing vague."""
    assert isinstance(error, CorruptionError | IncompatibleFormatError), f"{line}: {error!r}"


def check_kept(before: dict[str, bytes], after: dict[str, bytes], line: str) -> None:
    """A refused opening leaves what a repair may need."""
    for path, content in before.items():
        assert after.get(path) == content, f"{line}: {path} was changed by a refused opening"


def _files(disk: SimulatedDisk, root: str) -> dict[str, bytes]:
    found = {}
    for directory in ("", "/wal", "/seg", "/vec"):
        if disk.exists(root + directory):
            for name in disk.list(root + directory):
                path = f"{root}{directory}/{name}"
                if name not in ("wal", "seg", "vec", "tmp", "readers", "LOCK"):
                    found[path] = disk.content(path)
    return found


def proven_commits(
    name: str, files: dict[str, bytes], root: str, last_seq: int
) -> tuple[int, bool]:
    """The last commit that something in these damaged files proves, and whether anything but zeros
    stands where the commit after `last_seq` stood, or behind it."""
    sound = disk_of(name)
    manifest = load_latest(sound, root)
    visible = read_visible(sound, root)
    if files.get(f"{root}/VISIBLE") != _files(sound, root).get(f"{root}/VISIBLE"):
        visible = None
    assert manifest is not None
    proven, rest = manifest.last_seq, False
    logs = sorted(path for path in _files(sound, root) if path.endswith(".wal"))
    for path in logs:
        content, damaged = sound.content(path), files.get(path, b"")
        is_named = visible is not None and path.endswith(f"{visible.log:06d}.wal")
        synced = 64
        if (
            is_named
            and visible
            and files.get(f"{root}/VISIBLE") == sound.content(f"{root}/VISIBLE")
        ):
            synced = visible.synced
        elif path != logs[-1]:
            synced = len(content)
        for at in starts_of_records(content):
            if damaged[at : at + 64] == content[at : at + 64]:
                synced = max(synced, RECORD_HEADER.unpack_from(content, at)[5])
        for at in starts_of_records(content):
            _, length, _, seq, *_ = RECORD_HEADER.unpack_from(content, at)
            if at + 64 + length <= synced:
                proven = max(proven, seq)
            if seq == last_seq + 1:
                rest = bool(damaged[at:].strip(b"\0"))
    return proven, rest


def starts_of_records(log: bytes) -> list[int]:
    """Where the records of a sound log begin."""
    starts, at = [], 64
    while log.startswith(b"EREC", at):
        starts.append(at)
        at += 64 + RECORD_HEADER.unpack_from(log, at)[1]
    return starts
