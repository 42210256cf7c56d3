"""Compares a whole database with the oracle, at every moment, and goes on writing to it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from xxhash import xxh3_128_hexdigest

from engramdb.errors import HistoryUnavailableError
from engramdb.lsm import Batch, Edge, Options, Record, Snapshot, StorageEngine
from engramdb.lsm.environment.crash import EVERYTHING, CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk, reboot
from engramdb.lsm.environment.trace import Image
from engramdb.lsm.manifest import encode_policy, numbers_in
from engramdb.lsm.records import EDGE, MEMORY, TOMBSTONE, is_connection, space_of
from tests.crash.driver import PATH, SMALL, key, vector
from tests.crash.oracle import (
    Commit,
    Oracle,
    Purge,
    Recovered,
    Version,
    World,
    without_leading_tombstones,
)
from tests.crash.oracle import Write as Issued
from tests.crash.searching import check_facade, check_search

READERS_SHARE = 6  # one outcome in so many is looked at by a reader too
FACADE_SHARE = 8  # and one in so many of those that are read in full through a Database
ORACLES_MAX = 2000
_oracles: dict[tuple[object, ...], Oracle] = {}


def oracle_of(commits: tuple[Commit, ...], settings: tuple[object, ...]) -> Oracle:
    """An oracle, made once for the same steps."""
    steps = (commits, settings)
    oracle = _oracles.get(steps)
    if oracle is None:
        if len(_oracles) > ORACLES_MAX:
            _oracles.clear()
        oracle = _oracles[steps] = Oracle(commits, settings)  # type: ignore[arg-type]
    return oracle


class Check:
    """What the enumerator calls for each disk. What is the same, byte for byte, and has to give the
    same answers, is read in full once: `read_in_full` counts these. Of two looks at what was
    written afterwards, after a power cut and after a close, one in turn is in full. A `thorough`
    one always looks at everything."""

    def __init__(self, options: Options = SMALL, *, thorough: bool = False) -> None:
        self.options, self.thorough = options, thorough
        self.read_in_full = 0
        self._calls = 0
        self._known: set[int] = set()

    def __call__(
        self, disk: SimulatedDisk, issued: list[object], acknowledged: list[object]
    ) -> None:
        world = World.of(issued, acknowledged)
        self._calls += 1
        engine = StorageEngine.open(PATH, self.options, environment=disk)
        oracle, settings = match(engine, world)
        if self.thorough or not self._calls % READERS_SHARE:
            self._read_only(disk, world, oracle)
        disk.issue(Recovered(engine.last_seq, settings))
        check_now(engine, oracle)
        if self._is_new(image_of(disk), oracle):
            self.read_in_full += 1
            check_database(engine, oracle)
            self._recover_again(disk.crash([]), oracle)
            self._go_on(disk, engine, world, oracle, settings)
        else:
            engine._core.close("the check is over")
        if world.copies and self._is_new(disk.trace.base, *world.copies):
            self._check_copies(reboot(disk.trace, disk.trace.base), world)

    def _is_new(self, image: Image, *what: object) -> bool:
        """Whether nothing was looked at with this image that had to give these answers."""
        key = hash((image.fingerprint, *what))
        is_new = self.thorough or key not in self._known
        self._known.add(key)
        return is_new

    def _read_only(self, disk: SimulatedDisk, world: World, oracle: Oracle) -> None:
        """What one who may not write sees of the same outcome, before it is recovered."""
        same = reboot(disk.trace, disk.trace.base)
        if not same.exists(PATH) or not numbers_in(same.list(PATH)):
            return
        with StorageEngine.open(PATH, self.options, environment=same, read_only=True) as engine:
            seen, _ = match(engine, world)
            assert seen.last_seq == oracle.last_seq, f"a reader saw {seen.last_seq} commits"
            if self.thorough or not self._calls % (READERS_SHARE * READERS_SHARE):
                check_answers(engine, seen)  # its torn log is recovery's business
            else:
                check_now(engine, seen)

    def _check_copies(self, disk: SimulatedDisk, world: World) -> None:
        for copy, commits, settings in world.copies:
            engine = StorageEngine.open(copy.path, self.options, environment=disk, create=False)
            check_database(engine, oracle_of(commits, settings))
            engine.close()

    def _recover_again(self, disk: SimulatedDisk, oracle: Oracle) -> None:
        """The power goes at once after the recovery."""
        engine = StorageEngine.open(PATH, self.options, environment=disk)
        assert engine.last_seq == oracle.last_seq, (
            f"recovered {oracle.last_seq} commits, and after another power cut {engine.last_seq}"
        )
        if self._is_new(image_of(disk), oracle):
            check_database(engine, oracle)
        else:
            check_now(engine, oracle)
        engine.close()

    def _go_on(
        self,
        disk: SimulatedDisk,
        engine: StorageEngine,
        world: World,
        oracle: Oracle,
        settings: int,
    ) -> None:
        """Write; what was written is there after another power cut, and after a close."""
        values = vector(0.5, 7.0, 7.0)
        new = Issued(MEMORY, key(999), b"after the crash", values.tobytes())
        commits = (*world.commits[: oracle.last_seq], Commit((new,)))
        disk.issue(commits[-1])
        batch = Batch()
        batch.put(new.key, new.payload or b"", values)
        engine.commit(batch, sync=True)
        disk.acknowledge(Recovered(len(commits), settings))
        again = oracle_of(commits, tuple(world.settings[:settings]))
        in_turn = self.read_in_full % 2 == 0
        self._open_again(disk.crash([]), again, "power cut", in_full=in_turn)
        engine.close()
        self._open_again(disk, again, "close", in_full=not in_turn)

    def _open_again(
        self, disk: SimulatedDisk, oracle: Oracle, after: str, *, in_full: bool
    ) -> None:
        engine = StorageEngine.open(PATH, self.options, environment=disk)
        assert engine.last_seq == oracle.last_seq, f"a write after the recovery lost by a {after}"
        if in_full or self.thorough:
            check_database(engine, oracle)
        else:
            check_now(engine, oracle)
        engine.close()
        if self.thorough or not self.read_in_full % FACADE_SHARE:
            check_facade(disk, oracle)


def image_of(disk: SimulatedDisk) -> Image:
    """What a disk holds for those that use it now."""
    state = CrashState(disk.trace, len(disk.trace.events))
    return state.image((EVERYTHING,) * len(state.pending))


def match(engine: StorageEngine, world: World) -> tuple[Oracle, int]:
    """The oracle of the recovered prefix, and how many settings are in it. AssertionError if it is
    not a prefix, or not long enough."""
    seq = engine.last_seq
    assert seq <= len(world.commits), f"{seq} commits recovered of {len(world.commits)} issued"
    assert seq >= world.must_commits, f"{seq} commits recovered, {world.must_commits} acknowledged"
    commits = tuple(world.commits[:seq])
    pins = {name: commit.seq for name, commit in engine.pins().items()}
    policy = encode_policy(engine.history_policy)
    for count in range(len(world.settings), world.must_settings - 1, -1):
        oracle = oracle_of(commits, tuple(world.settings[:count]))
        if oracle.pins == pins and encode_policy(oracle.policy) == policy:
            purges = [step for step in world.settings[:count] if isinstance(step, Purge)]
            if count == world.must_settings or all(
                is_purged(engine, step, commits) for step in purges
            ):
                return oracle, count
    raise AssertionError(f"pins {pins} and policy {policy} are not what was set")


def is_purged(engine: StorageEngine, purge: Purge, commits: tuple[Commit, ...]) -> bool:
    """Whether nothing of these memories is left that was there before."""
    snapshot = engine.latest()
    touched = {
        (write.record_class, write.key)
        for commit in commits[: purge.seq]
        for write in commit.writes
        if write.key in purge.keys or (write.ends and not {*purge.keys}.isdisjoint(write.ends[:2]))
    }
    return not any(
        record.seq <= purge.seq
        for record_class, key_ in touched
        for record in snapshot.history(record_class, key_)
    )


def read_memories(
    snapshot: Snapshot, vectors: dict[int, bytes]
) -> dict[bytes, tuple[int, bytes, bytes]]:
    """seq, payload and vector of each visible memory, by a scan."""
    found: dict[bytes, tuple[int, bytes, bytes]] = {}
    for rows in snapshot.scan(MEMORY):
        for key_, seq, payload, number in zip(
            [row.tobytes() for row in rows.keys],
            rows.seqs.tolist(),
            rows.payloads(),
            rows.vectors.tolist(),
            strict=True,
        ):
            if number and number not in vectors:
                vectors[number] = snapshot.vector(number).tobytes()
            assert key_ not in found, f"two visible versions of {key_.hex()}"
            found[key_] = (seq, payload, vectors[number] if number else b"")
    return found


def read_edges(
    snapshot: Snapshot,
) -> dict[bytes, tuple[int, bytes, tuple[bytes, bytes, str], float]]:
    """seq, payload, ends and strength of each visible edge, by a scan."""
    found = {}
    for rows in snapshot.scan(EDGE):
        ends = rows.edges()
        types = [ends.types[code] for code in ends.type_code.tolist()]
        for key_, seq, payload, source, target, type_, strength in zip(
            [row.tobytes() for row in rows.keys],
            rows.seqs.tolist(),
            rows.payloads(),
            [row.tobytes() for row in ends.sources()],
            [row.tobytes() for row in ends.targets()],
            types,
            ends.strength.tolist(),
            strict=True,
        ):
            found[key_] = (seq, payload, (source, target, type_), strength)
    return found


def read_runs(snapshot: Snapshot, space: str = "") -> Iterator[tuple[bytes, bytes]]:
    """The visible rows of the vector runs of a space."""
    for run in snapshot.vector_runs(space):
        visible = np.ones(run.rows, np.bool_)
        hidden = run.hidden(snapshot.seq)
        if hidden is not None:
            visible[hidden] = False
        rows = np.flatnonzero(visible)
        matrix = run.matrix[rows]
        norms = np.sqrt((matrix.astype(np.float64) ** 2).sum(axis=1))
        assert np.allclose(run.inverse_norms[rows] * norms, norms > 0, atol=1e-5), "a wrong norm"
        for key_, vector_ in zip(run.keys(rows), matrix, strict=True):
            yield key_, vector_.tobytes()


def check_now(engine: StorageEngine, oracle: Oracle) -> None:
    """The latest state, by a scan."""
    snapshot = engine.latest()
    assert read_memories(snapshot, {}) == oracle.memories(oracle.last_seq), "the latest memories"
    assert read_edges(snapshot) == oracle.edges(oracle.last_seq), "the latest edges"


def check_database(engine: StorageEngine, oracle: Oracle) -> None:
    """Every byte, and every answer at every moment."""
    report = engine.verify()
    assert report.ok, report.problems
    check_answers(engine, oracle)


def check_answers(engine: StorageEngine, oracle: Oracle) -> None:
    """Every answer at every moment."""
    floor = engine.stats()["history_floor"]
    before = oracle.before_purges
    may_drop = [
        version.until
        for key_, versions in before.versions.items()
        for version in versions
        if before.may_be_dropped(key_, version)
    ]
    highest = max([0, *may_drop])
    assert floor <= highest, f"history floor {floor}, but nothing below {highest} may be dropped"
    vectors: dict[int, bytes] = {}
    for seq in range(oracle.last_seq, -1, -1):
        if seq >= floor or seq == oracle.last_seq or seq in oracle.pins.values():
            check_moment(engine.at(seq), oracle, vectors)
        else:
            try:
                engine.at(seq)
            except HistoryUnavailableError:
                check_partial(engine.at(seq, partial=True), oracle)
            else:
                raise AssertionError(f"commit {seq} lies below the history floor {floor}")
    check_histories(engine, oracle)
    check_changes(engine, oracle, floor)


def check_moment(snapshot: Snapshot, oracle: Oracle, vectors: dict[int, bytes]) -> None:
    """All reads as of one commit."""
    seq = snapshot.seq
    memories, edges = oracle.memories(seq), oracle.edges(seq)
    found = read_memories(snapshot, vectors)
    assert found == memories, f"memories at {seq}: {found} instead of {memories}"
    assert read_edges(snapshot) == edges, f"edges at {seq}"
    assert snapshot.count(MEMORY) == len(memories), f"count at {seq}"
    assert snapshot.count(EDGE) == len(edges), f"count of edges at {seq}"
    runs = sorted(read_runs(snapshot))
    wanted = sorted((k, vector_) for k, (_, _, vector_) in memories.items() if vector_)
    assert runs == wanted, f"visible vectors at {seq}: {runs} instead of {wanted}"
    check_search(snapshot, oracle)
    for record_class, key_ in oracle.versions:
        record = snapshot.get(record_class, key_)
        expected = oracle.state(seq).get((record_class, key_))
        assert agrees(record, expected, snapshot), f"get of {key_.hex()} at {seq}: {record}"
    for incoming, read in ((0, snapshot.edges_from), (1, snapshot.edges_to)):
        for end in {ends[incoming] for _, _, ends, _ in edges.values()} | {key(1), key(77)}:
            listed = [(e.key, e.seq, (e.source, e.target, e.type), e.strength) for e in read(end)]
            expected_edges = sorted(
                (k, s, ends, strength)
                for k, (s, _, ends, strength) in edges.items()
                if ends[incoming] == end and is_connection(ends[2])
            )
            assert listed == expected_edges, f"edges of {end.hex()} at {seq}"
    check_spaces(snapshot, oracle)


def check_spaces(snapshot: Snapshot, oracle: Oracle) -> None:
    """The vectors in named spaces, memory by memory and as a search sees them."""
    carried, seq = oracle.carried(snapshot.seq), snapshot.seq
    found = {
        (memory, name): snapshot.vector(number).tobytes()
        for memory in {memory for memory, _ in carried} | {key(1)}
        for name, number in snapshot.carried(memory).items()
    }
    assert found == carried, f"vectors in named spaces at {seq}"
    for space in {space_of(name) for _, name in carried} | {"none"}:
        wanted = [(memory, v) for (memory, name), v in carried.items() if space_of(name) == space]
        assert sorted(read_runs(snapshot, space or "")) == sorted(wanted), f"{space} at {seq}"


def agrees(record: Record | Edge | None, version: Version | None, snapshot: Snapshot) -> bool:
    """Whether the engine's version is the oracle's."""
    if record is None or version is None:
        return record is version
    write = version.write
    if record.seq != version.seq or (record.kind == TOMBSTONE) != (write.payload is None):
        return False
    if record.payload != (write.payload or b""):
        return False
    if isinstance(record, Edge):
        ends = (record.source, record.target, record.type)
        if ends != write.ends or record.strength != write.strength:
            return False
    found = snapshot.vector(record.vector).tobytes() if record.vector else b""
    return found == write.vector


def check_partial(snapshot: Snapshot, oracle: Oracle) -> None:
    """Single reads below the history floor: right, or refused."""
    for record_class, key_ in oracle.versions:
        try:
            record = snapshot.get(record_class, key_)
        except HistoryUnavailableError:
            continue
        expected = oracle.state(snapshot.seq).get((record_class, key_))
        assert agrees(record, expected, snapshot), f"partial get of {key_.hex()} at {snapshot.seq}"


def check_histories(engine: StorageEngine, oracle: Oracle) -> None:
    """All versions that had to stay, and none that was not."""
    snapshot = engine.latest()
    for record_class, key_ in oracle.versions:
        records = snapshot.history(record_class, key_)
        wanted = oracle.history((record_class, key_), oracle.last_seq)
        by_seq = {version.seq: version for version in oracle.versions[record_class, key_]}
        assert [r.seq for r in records] == sorted({r.seq for r in records}), "history in disorder"
        kept = []
        for record in records:
            version = by_seq.get(record.seq)
            assert version is not None, f"{key_.hex()} has no version {record.seq}"
            assert agrees(record, version, snapshot), f"version {record.seq} of {key_.hex()}"
            kept.append(version)
        have = {version.seq for version in kept}
        for version in without_leading_tombstones(wanted):
            if version.seq not in have and not oracle.may_be_dropped((record_class, key_), version):
                only_dead = version.write.payload is None and not any(
                    v.seq < version.seq and v.seq in have for v in wanted
                )
                assert only_dead, f"version {version.seq} of {key_.hex()} is gone"


def check_changes(engine: StorageEngine, oracle: Oracle, floor: int) -> None:
    """Who changed what, in which order, and when."""
    changes = engine.changes(floor)
    found = {(change.seq, *operation) for change in changes for operation in change.operations}
    wanted = set()
    for record_class, key_ in oracle.versions:
        for version in oracle.history((record_class, key_), oracle.last_seq):
            if version.seq > floor:
                wanted.add((version.seq, record_class, key_, version.write.payload is None))
    seen = {
        (seq, record_class, key_, kind == TOMBSTONE)
        for seq, record_class, key_, kind in found
        if record_class in (MEMORY, EDGE)
    }
    missing = wanted - seen
    assert not any(not dead for _, _, _, dead in missing), f"changes without {missing}"
    for seq, record_class, key_, dead in seen - wanted:
        known = oracle.versions.get((record_class, key_), [])
        assert dead and any(v.seq == seq for v in known), f"a change that was none: {seq}"
    times = [change.time for change in changes]
    assert times == sorted(set(times)), "commit times do not ascend"
    for change in changes:
        assert engine.seq_at(change.time) == change.seq, f"seq_at of commit {change.seq}"


def dump(engine: StorageEngine) -> str:
    """A digest of everything that the engine answers, to compare two databases."""
    parts: list[object] = [engine.last_seq, sorted(engine.pins().items())]
    floor = engine.stats()["history_floor"]
    vectors: dict[int, bytes] = {}
    for seq in range(floor, engine.last_seq + 1):
        snapshot = engine.at(seq)
        memories, edges = read_memories(snapshot, vectors), read_edges(snapshot)
        parts += [sorted(memories.items()), sorted(edges.items()), sorted(read_runs(snapshot))]
        for key_ in sorted(memories):
            parts.append(snapshot.history(MEMORY, key_))
        parts.append([snapshot.edges_from(key_) for key_ in sorted(memories)])
        parts += [sorted(read_runs(snapshot, space)) for space in engine.spaces]
    parts.append(engine.changes(floor))
    return xxh3_128_hexdigest(repr(parts).encode())
