"""Erasure: no byte of what was erased is left in any file, and nothing else is touched."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from engramdb.lsm import Batch, Commit, KeepLast, StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import EDGE, MEMORY
from tests.unit.lsm_support import (
    Floats,
    assert_consistent,
    columns,
    connect,
    contents,
    delete,
    edge_set,
    key,
    open_engine,
    patch,
    put,
    value,
    vec,
)

SECRET = b"the-secret-is-8472-" * 3
DIMENSION = 8
rng = np.random.default_rng(5)
VECTORS = rng.standard_normal((12, DIMENSION)).astype(np.float32)


def secret_vector(i: int) -> Floats:
    vector: Floats = VECTORS[i]
    return vector


def random_text(i: int) -> bytes:
    """A payload that zstd stores as it is, so that it can be looked for in the files."""
    return SECRET[:19] + np.random.default_rng(i).bytes(60)


def all_bytes(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def filled(path: str) -> StorageEngine:
    """Memories 1 and 2 are to be erased; they stand in segments, marks, logs and a bulk load."""
    engine = open_engine(None, path, bulk_bytes_min=1, dimension=DIMENSION)
    for i in range(100):
        put(engine, i, random_text(i), rng.standard_normal(DIMENSION).astype(np.float32))
    put(engine, 1, random_text(201), secret_vector(0))
    engine.flush()
    put(engine, 1, random_text(202), secret_vector(1))
    put(engine, 2, random_text(203), secret_vector(2))
    patch(engine, 2, random_text(204))
    connect(engine, 1, 5, "knows")
    connect(engine, 6, 1, "is-secretly-married-to")
    connect(engine, 6, 7, "knows")
    engine.pin("pinned")
    engine.flush()
    engine.commit_columns(columns([2, 30], random_text(205), DIMENSION))
    delete(engine, 2)
    put(engine, 1, random_text(206), secret_vector(3))
    return engine


def test_no_byte_is_left_and_pins_do_not_protect(tmp_path: Path) -> None:
    engine = filled(str(tmp_path))
    others = {k: v for k, v in contents(engine.latest()).items() if k not in (key(1), key(2))}
    needles = [random_text(i)[:40] for i in (201, 202, 203, 204, 206)]
    needles += [VECTORS[i].tobytes()[:16] for i in range(4)]
    needles += [key(1), key(2), b"is-secretly-married-to"]
    before = b"".join(all_bytes(tmp_path).values())
    # the first and the last ones can be found before, so that not to find them means something
    assert needles[4] in before and all(needle in before for needle in needles[5:9])
    assert b"is-secretly-married-to" in before

    report = engine.purge([key(1), key(2)])
    assert report.versions == 4 + 5
    assert report.connection_versions == 2
    assert report.vectors == 4 + 3
    assert (report.copies, report.readers) == ((), ())

    for name, data in all_bytes(tmp_path).items():
        for needle in needles:
            assert needle not in data, f"{needle!r} stands in {name}"
            half = needle[:8]
            assert needle not in (key(1), key(2)) or half[::-1] not in data, f"a key in {name}"
    latest = engine.latest()
    assert contents(latest) == others
    for i in (1, 2):
        assert latest.find(MEMORY, key(i)) is None and latest.history(MEMORY, key(i)) == []
        assert latest.edges_from(key(i)) == latest.edges_to(key(i)) == []
        assert value(engine.at(engine.pins()["pinned"].seq), i) is None
    assert {e[:3] for e in edge_set(latest)} == {(key(6), key(7), "knows")}
    assert latest.edges_from(key(6))[0].target == key(7) and latest.edges_to(key(5)) == []
    assert_consistent(engine)
    for seq in range(1, engine.last_seq + 1):
        assert_consistent(engine, engine.at(seq))
    engine.close()
    with open_engine(None, str(tmp_path)) as again:
        assert contents(again.latest()) == others
        assert_consistent(again)
    for name, data in all_bytes(tmp_path).items():
        for needle in needles:
            assert needle not in data, f"{needle!r} is back in {name}"


def test_it_names_the_copies_that_still_exist_and_the_readers(tmp_path: Path) -> None:
    engine = filled(str(tmp_path / "db"))
    fork, checkpoint = tmp_path / "fork", tmp_path / "checkpoint"
    engine.fork(str(fork))
    engine.checkpoint(str(checkpoint))
    secret = random_text(201)
    report = engine.purge([key(1)])
    assert report.copies == (str(fork), str(checkpoint))
    with open_engine(None, str(fork)) as copy:
        held = [r.payload for r in copy.latest().history(MEMORY, key(1))]
        assert secret in held, "a file is never changed in place: forks share it"
        assert_consistent(copy)
        copy.purge([key(1)])
        assert copy.latest().history(MEMORY, key(1)) == []
    for path in sorted(checkpoint.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    checkpoint.rmdir()
    assert engine.purge([key(1)]).copies == (str(fork),)
    engine.close()


def test_it_is_durable_when_it_returns() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk, durability="os")
    for i in range(5):
        put(engine, i, b"x%d" % i, vec(i, 1))
    engine.purge([key(3)])
    with open_engine(disk.crash(())) as again:
        assert again.latest().history(MEMORY, key(3)) == []
        assert len(contents(again.latest())) == 4 and again.last_seq == 5
        assert_consistent(again)
    engine.close()


@pytest.mark.parametrize("unknown", [True, False])
def test_erasing_nothing_rewrites_nothing(unknown: bool) -> None:
    with open_engine(SimulatedDisk()) as engine:
        put(engine, 1, b"x", vec(1, 2))
        engine.flush()
        manifest = engine.stats()["manifest"]
        report = engine.purge([key(77)] if unknown else [])
        assert (report.versions, report.files_rewritten) == (0, 0)
        assert engine.stats()["manifest"] == manifest


def test_the_last_memory_can_be_erased_and_life_goes_on() -> None:
    disk = SimulatedDisk()
    with open_engine(disk) as engine:
        put(engine, 1, b"x", vec(1, 2))
        connect(engine, 1, 1)
        assert engine.purge([key(1)]).connection_versions == 1
        assert engine.stats()["versions"] == 0 and engine.latest().count(EDGE) == 0
        assert put(engine, 1, b"reborn", vec(2, 1)).seq == 3
        assert_consistent(engine)
    with open_engine(disk) as engine:
        assert value(engine.latest(), 1) == b"reborn"


def test_it_stands_between_retention_and_compaction() -> None:
    with open_engine(SimulatedDisk(), history=KeepLast(2), bulk_bytes_min=1) as engine:
        for round_ in range(6):
            engine.commit_columns(columns(range(10), b"%d-" % round_))
            engine.purge([key(round_)])
            assert value(engine.latest(), round_) is None
            assert_consistent(engine)
        engine.compact()
        assert engine.latest().count(MEMORY) == 9
        assert_consistent(engine)


def test_a_save_that_shares_an_erased_vector_meanwhile_writes_it_again() -> None:
    # memory 1 is patched over and over, sharing its vector, while it is being erased
    with open_engine(SimulatedDisk()) as engine:
        vector = vec(1, 2, 3)
        stop = threading.Event()
        failures: list[BaseException] = []

        def save() -> Commit:
            record = engine.latest().get(MEMORY, key(1))
            shares = 0 if record is None else record.vector  # type: ignore[union-attr]
            batch = Batch()
            batch.put(key(1), b"x", vector, shares=shares)
            return engine.commit(batch)

        def work() -> None:
            try:
                while not stop.is_set():
                    save()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(25):
                engine.purge([key(1)])
        finally:
            stop.set()
            thread.join()
        assert not failures
        for seq in range(max(1, engine.last_seq - 20), engine.last_seq + 1):
            record = engine.at(seq).get(MEMORY, key(1))
            if record is not None:
                found = engine.at(seq).vector(record.vector)  # type: ignore[union-attr]
                assert found.tolist() == [1, 2, 3]
        assert_consistent(engine)
