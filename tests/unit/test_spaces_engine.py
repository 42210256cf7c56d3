"""Vectors in named spaces, as the engine keeps them: edges that carry a vector, through flush,
merge, recovery, retention, purge and repair."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from engramdb.errors import CorruptionError, InvalidInputError
from engramdb.lsm import Batch, StorageEngine, log_format, log_reader, repair
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.limits import SLOTS_MAX, SPACES_MAX
from engramdb.lsm.log_format import EACH_ITS_OWN, PREFIX, encode_body
from engramdb.lsm.records import (
    EDGE,
    MEMORY,
    NO_VECTOR,
    edge_key,
    is_connection,
    is_space_name,
    place_of,
    space_of,
    vector_type,
)
from engramdb.lsm.retention import KeepLast
from engramdb.lsm.snapshot import Snapshot
from tests.unit.lsm_support import (
    PATH,
    Floats,
    assert_consistent,
    connect,
    contents,
    core_of,
    delete,
    key,
    open_engine,
    put,
    vec,
)

State = dict[int, dict[str, list[bytes]]]
"""Of each memory: the rows of each named space, as bytes."""


def set_vectors(batch: Batch, i: int, space: str, rows: list[Floats], before: int = 0) -> None:
    """Rows 0.. of a memory in a space, of which `before` were there."""
    for slot, row in enumerate(rows):
        batch.put_vector(key(i), space, slot, row)
    for slot in range(len(rows), before):
        batch.delete_vector(key(i), space, slot)


def state_of(snapshot: Snapshot) -> State:
    """What is visible, read memory by memory."""
    found: State = {}
    for rows in snapshot.scan(MEMORY):
        for owner in [row.tobytes() for row in rows.keys]:
            places = {place_of(name): n for name, n in snapshot.carried(owner).items()}
            spaces: dict[str, list[bytes]] = {}
            for place in sorted(place for place in places if place is not None):
                spaces.setdefault(place[0], []).append(snapshot.vector(places[place]).tobytes())
            found[NUMBERS[owner]] = spaces
    return found


NUMBERS = {key(i): i for i in range(200)}


def searchable_rows(snapshot: Snapshot, space: str) -> list[tuple[int, bytes]]:
    """Memory and vector of every row that a search in a space would see, sorted."""
    found = []
    for run in snapshot.vector_runs(space):
        rows = np.arange(run.rows)
        hidden = run.hidden(snapshot.seq)
        if hidden is not None:
            rows = np.delete(rows, hidden)
        high, low = run.owners()
        owners = [
            int(high[row]).to_bytes(8, "big") + int(low[row]).to_bytes(8, "big") for row in rows
        ]
        assert owners == run.keys(rows)
        found += [
            (NUMBERS[owner], run.matrix[row].tobytes())
            for owner, row in zip(owners, rows.tolist(), strict=True)
        ]
    return sorted(found)


def check(engine: StorageEngine, expected: State, seq: int | None = None) -> None:
    """The state is this one, by every way to it."""
    snapshot = engine.latest() if seq is None else engine.at(seq)
    assert state_of(snapshot) == expected
    for space in ("title", "tokens"):
        rows = [(i, row) for i, spaces in expected.items() for row in spaces.get(space, [])]
        assert searchable_rows(snapshot, space) == sorted(rows)


def two_spaces(engine: StorageEngine) -> State:
    """Some memories with a title of 3 numbers and some tokens of 5."""
    expected: State = {}
    for i in range(6):
        batch = Batch()
        batch.put(key(i), b"memory %d" % i, vec(i, 1) if i % 2 else None)
        title = [vec(i, 1, 2)]
        tokens = [vec(i, slot, 0, 1, 2) for slot in range(i)]
        set_vectors(batch, i, "title", title)
        set_vectors(batch, i, "tokens", tokens)
        engine.commit(batch)
        expected[i] = {"title": [row.tobytes() for row in title]}
        if tokens:
            expected[i]["tokens"] = [row.tobytes() for row in tokens]
    return expected


def test_the_names_of_places() -> None:
    assert vector_type("title", 12) == "\0title\x0012"
    assert place_of("\0title\x0012") == ("title", 12) and space_of("\0title\x0012") == "title"
    for other in ("Knows", "\0", "\0title", "\0title\0", "\0title\x0001", "\0title\0x", "\0\x001"):
        assert is_connection(other) and space_of(other) is None
    assert is_connection(f"\0title\0{SLOTS_MAX}") and is_connection("\0title\0" + "٣")
    assert not is_connection(f"\0title\0{SLOTS_MAX - 1}")
    assert is_space_name("a" * 64) and is_space_name("ä" * 32)
    assert not any(map(is_space_name, ("", "a" * 65, "ä" * 33, "a\0b")))


@pytest.mark.parametrize("flushed", [False, True])
def test_what_is_saved_is_there_after_reopening(flushed: bool) -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk, durability="sync")
    expected = two_spaces(engine)
    check(engine, expected)
    if flushed:
        engine.flush()
        check(engine, expected)
    assert engine.spaces == {"": 2, "title": 3, "tokens": 5}
    if flushed:
        engine.close()
    with open_engine(disk.crash() if not flushed else disk) as again:
        check(again, expected)
        assert again.spaces == {"": 2, "title": 3, "tokens": 5}
        assert again.verify().ok
        batch = Batch()
        batch.put_vector(key(0), "title", 0, vec(1, 2))
        with pytest.raises(InvalidInputError, match=r"vectors\['title'\].* 2, .*'title'.* 3"):
            again.commit(batch)


def test_a_carrier_is_no_connection() -> None:
    engine = open_engine(SimulatedDisk())
    two_spaces(engine)
    connect(engine, 1, 2)
    connect(engine, 1, 1, "Itself")
    for _ in range(2):
        latest = engine.latest()
        assert {edge.type for edge in latest.edges_from(key(1))} == {"Association", "Itself"}
        assert {edge.type for edge in latest.edges_to(key(1))} == {"Itself"}
        assert latest.count_connections() == 2 and latest.count(EDGE) == 2 + 6 + 15
        engine.flush()


def test_only_named_spaces() -> None:
    disk = SimulatedDisk()
    with open_engine(disk) as engine:
        batch = Batch()
        batch.put(key(1), b"no vector of its own")
        batch.put_vector(key(1), "title", 0, vec(1, 2, 3))
        engine.commit(batch)
        engine.flush()
        manifest = core_of(engine).manifest
        assert [(space.name, space.dimension) for space in manifest.spaces] == [
            ("", 0),
            ("title", 3),
        ]
        assert manifest.features == ["spaces"]
        assert engine.dimension is None
    with open_engine(disk) as engine:
        put(engine, 2, b"the first", vec(1, 2))
        engine.flush()
        assert engine.dimension == 2 and engine.spaces == {"": 2, "title": 3}
        assert core_of(engine).manifest.spaces[0].dimension == 2
        assert engine.verify().ok


def test_without_names_nothing_is_new() -> None:
    with open_engine(SimulatedDisk()) as engine:
        put(engine, 1, b"one", vec(1, 2))
        engine.flush()
        manifest = core_of(engine).manifest
        assert manifest.features == [] and [space.name for space in manifest.spaces] == [""]


def test_vectors_end_with_their_memory() -> None:
    engine = open_engine(SimulatedDisk())
    expected = two_spaces(engine)
    before = engine.last_seq
    batch = Batch()
    batch.delete(key(3))
    for name in engine.latest().carried(key(3)):
        batch.delete_edge(key(3), key(3), name)
    engine.commit(batch)
    for _ in range(2):
        check(engine, {i: spaces for i, spaces in expected.items() if i != 3})
        check(engine, expected, before)
        assert engine.verify().ok
        engine.flush()
    engine.compact()
    check(engine, expected, before)
    engine.set_history(KeepLast(1))
    engine.compact()
    assert key(3) not in contents(engine.latest())
    assert core_of(engine).state.version.vectors and engine.verify().ok
    assert sum(f.rows for f in core_of(engine).state.version.vectors) == 3 - 1 + 5 + (15 - 3)


def test_purge_leaves_nothing() -> None:
    engine = open_engine(SimulatedDisk())
    expected = two_spaces(engine)
    connect(engine, 4, 5)
    engine.flush()
    report = engine.purge([key(4)])
    assert (report.versions, report.connection_versions, report.vectors) == (1, 1, 1 + 4)
    check(engine, {i: spaces for i, spaces in expected.items() if i != 4})
    assert engine.latest().history(EDGE, edge_key(key(4), key(4), vector_type("title", 0))) == []
    assert engine.verify().ok


def test_edges_that_cannot_be() -> None:
    engine = open_engine(SimulatedDisk())
    put(engine, 1, b"one")
    for change in (
        lambda batch: batch.put_edge(key(1), key(1), vector_type("a", 0), 1.0, b""),
        lambda batch: batch.put_edge(key(1), key(2), vector_type("a", 0), 1.0, b""),
        lambda batch: setattr(next(iter(batch.operations.values())), "vector", vec(1, 2)),
    ):
        batch = Batch()
        batch.put_edge(key(1), key(2), "Knows", 1.0, b"")
        change(batch)
        with pytest.raises(InvalidInputError, match="relationship_type"):
            engine.commit(batch)
    assert engine.last_seq == 1


def test_the_number_of_spaces_is_limited() -> None:
    engine = open_engine(SimulatedDisk())
    batch = Batch()
    batch.put(key(1), b"one")
    for i in range(SPACES_MAX - 1):
        batch.put_vector(key(1), f"s{i}", 0, vec(1, 2))
    engine.commit(batch)
    batch = Batch()
    batch.put_vector(key(1), "one more", 0, vec(1, 2))
    with pytest.raises(InvalidInputError, match="256 spaces"):
        engine.commit(batch)
    engine.flush()
    assert len(core_of(engine).manifest.spaces) == SPACES_MAX and engine.verify().ok


def test_two_writers_cannot_fix_two_dimensions() -> None:
    engine = open_engine(SimulatedDisk())
    raced: list[bool] = []

    def race(_: Any) -> bool:
        raced.append(True)
        core_of(engine).spaces = {**core_of(engine).spaces, "title": 7}
        return True

    batch = Batch(guards=[race])
    batch.put_vector(key(1), "title", 0, vec(1, 2))
    with pytest.raises(InvalidInputError, match="dimension 7"):
        engine.commit(batch)
    assert raced and engine.last_seq == 0


# The log


def decoded(body: bytes) -> log_reader.LogRows:
    """The rows of a log with one record that has this body."""
    seed = log_format.seed_of(bytes(16), 1)
    header = log_format.record_header(
        body=body,
        body_sum=log_format.body_sum(body, seed),
        seq=1,
        time=1,
        synced=0,
        first_vector=5,
        operations=3,
        seed=seed,
    )
    data = header + body
    records, end = log_reader.scan(data, seed, 0, len(data))
    assert end == len(data)
    return log_reader.decode(data, records, "log")


def mixed() -> bytes:
    """A memory with a vector of 3 numbers, and two rows of 5 in a space."""
    batch = Batch()
    batch.put(key(1), b"one", vec(1, 2, 3))
    set_vectors(batch, 1, "tokens", [vec(1, 2, 3, 4, 5), vec(6, 7, 8, 9, 0)])
    return encode_body(list(batch.operations.values()))


def test_a_record_of_several_dimensions() -> None:
    body = mixed()
    assert PREFIX.unpack_from(body)[:3] == (3, EACH_ITS_OWN, 2)
    assert body[-4 * 14 - 16 : -4 * 14] == np.array([3, 5, 5, 0], "<u4").tobytes()
    rows = decoded(body)
    assert rows.spaces == ["", "tokens"] and rows.vector_numbers == [5, 6, 7]
    assert [matrix.tolist() for matrix in rows.matrices] == [
        [[1, 2, 3]],
        [[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]],
    ]
    assert rows.owners(rows.vector_rows) == [key(1)] * 3


def test_a_record_that_was_forged_is_refused() -> None:
    body = mixed()
    first = len(body) - 4 * 14 - 16
    for at, word in ((first, 0), (first, 70_000), (first + 4, 4), (4, 5), (0, 2)):
        forged = body[:at] + word.to_bytes(4, "little") + body[at + 4 :]
        with pytest.raises(CorruptionError):
            decoded(forged)
    name = vector_type("tokens", 0).encode()
    knows = b"Knows" + bytes(len(name) - 5)
    with pytest.raises(CorruptionError):
        decoded(body.replace(name, knows))


# Everything at once


def apply(engine: StorageEngine, state: State, dice: random.Random) -> None:
    """A random write, to the engine and to the model of it."""
    i = dice.randrange(8)
    batch = Batch()
    if i in state and dice.random() < 0.2:
        batch.delete(key(i))
        for name in engine.latest().carried(key(i)):
            batch.delete_edge(key(i), key(i), name)
        engine.commit(batch)
        del state[i]
        return
    batch.put(key(i), b"%d" % dice.randrange(100), vec(i, 1) if dice.random() < 0.5 else None)
    spaces = state.setdefault(i, {})
    for space, width in (("title", 3), ("tokens", 5)):
        if dice.random() < 0.5:
            count = 1 if space == "title" else dice.randrange(4)
            rows = [vec(*(dice.random() for _ in range(width))) for _ in range(count)]
            set_vectors(batch, i, space, rows, len(spaces.pop(space, [])))
            if rows:
                spaces[space] = [row.tobytes() for row in rows]
    engine.commit(batch)


def copied(state: State) -> State:
    return {i: {name: list(rows) for name, rows in spaces.items()} for i, spaces in state.items()}


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence(seed: int) -> None:
    dice = random.Random(seed)
    disk = SimulatedDisk()
    options: dict[str, Any] = {"durability": "sync", "fan_in": dice.choice([2, 4])}
    engine = open_engine(disk, **options)
    state: State = {}
    past = {0: {}}
    for _ in range(60):
        apply(engine, state, dice)
        past[engine.last_seq] = copied(state)
        what = dice.random()
        if what < 0.15:
            engine.flush()
        elif what < 0.2:
            engine.compact()
        elif what < 0.25:
            engine.close()
            engine = open_engine(disk, **options)
        elif what < 0.3:
            disk = disk.crash()
            engine = open_engine(disk, **options)
        if dice.random() < 0.3:
            check(engine, state)
            seq = dice.choice(list(past))
            check(engine, past[seq], seq)
            assert_consistent(engine)
    reader = open_engine(disk, read_only=True)
    check(reader, state)
    engine.close()
    for seq, then in past.items():
        check(reader, then, seq)
    reader.close()
    report = repair(disk, PATH)
    assert report.problems == () and report.is_complete


def test_a_repair_brings_named_vectors_back() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    expected = two_spaces(engine)
    engine.flush()
    put(engine, 7, b"in the log")
    expected[7] = {}
    engine.close()
    for name in [n for n in disk.list(PATH) if n.startswith("MANIFEST")]:
        disk.unlink(f"{PATH}/{name}")
    report = repair(disk, PATH)
    assert report.vectors == 3 + 6 + 15 and not report.vectors_lost
    with open_engine(disk) as again:
        check(again, expected)
        assert again.spaces == {"": 2, "title": 3, "tokens": 5} and again.verify().ok


def test_a_vector_that_is_lost_ends_its_edge() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    expected = two_spaces(engine)
    engine.flush()
    title = next(f for f in core_of(engine).state.version.vectors if f.space == "title")
    path, at = title.reader.path, title.reader.section("matrix").offset
    engine.close()
    content = disk.content(path)
    disk.plant(path, content[:at] + b"\x55" * 72 + content[at + 72 :])
    report = repair(disk, PATH)
    assert report.vectors_lost == 6
    with open_engine(disk) as again:
        assert again.verify().ok
        for spaces in expected.values():
            del spaces["title"]
        check(again, expected)
        found = again.latest().find(EDGE, edge_key(key(1), key(1), vector_type("title", 0)))
        assert found is not None and found.vector == NO_VECTOR


def test_delete_of_a_memory_alone_leaves_a_dangling_vector_to_the_caller() -> None:
    # the engine does not cascade: that a memory takes its edges along is for whoever deletes it
    engine = open_engine(SimulatedDisk())
    two_spaces(engine)
    delete(engine, 1)
    assert set(engine.latest().carried(key(1))) == {
        vector_type("title", 0),
        vector_type("tokens", 0),
    }
