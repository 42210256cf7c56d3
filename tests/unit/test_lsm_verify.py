"""verify() finds a planted error in every kind of file, and nothing where nothing is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engramdb.errors import ClosedError, CorruptionError, EngramError
from engramdb.lsm import KeepLast, StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import MEMORY
from tests.unit.lsm_support import (
    PATH,
    columns,
    connect,
    contents,
    core_of,
    delete,
    key,
    open_engine,
    patch,
    put,
    vec,
)


def filled(disk: SimulatedDisk, **options: Any) -> StorageEngine:
    """A database with files of every kind: segments, vectors, marks, a log, a manifest, VISIBLE."""
    engine = open_engine(disk, bulk_bytes_min=1, **options)
    for i in range(50):
        put(engine, i, b"payload%d" % i * 5, vec(i, 1, 2, 3))
        connect(engine, i, i + 1)
    engine.flush()
    engine.commit_columns(columns(range(40, 90)))
    patch(engine, 1, b"patched")
    delete(engine, 2)
    engine.flush()
    put(engine, 3, b"in the log", vec(9, 9, 9, 9))
    return engine


def files_of(disk: SimulatedDisk) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for directory in ("", "/seg", "/vec", "/wal"):
        for name in disk.list(PATH + directory):
            if not directory and not name.startswith(("MANIFEST", "VISIBLE")):
                continue
            kind = name.rpartition(".")[2] if "." in name else name.partition("-")[0]
            found.setdefault(kind, []).append(f"{PATH}{directory}/{name}")
    return found


@pytest.mark.parametrize(
    "after",
    [
        lambda engine: None,
        lambda engine: engine.flush(),
        lambda engine: engine.compact(),
        lambda engine: (engine.set_history(KeepLast(1)), engine.compact()),
        lambda engine: engine.purge([bytes(16)]),
        lambda engine: engine.fork("/fork"),
    ],
    ids=["unflushed", "flushed", "compacted", "trimmed", "purged", "forked"],
)
def test_where_nothing_is_wrong_it_finds_nothing(
    after: Callable[[StorageEngine], object],
) -> None:
    disk = SimulatedDisk()
    with filled(disk) as engine:
        after(engine)
        report = engine.verify()
        assert report.ok and report.problems == ()
        assert report.files >= 2 and report.bytes_read > 1000 and report.versions >= 50
        put(engine, 77, b"more")
        assert engine.verify().ok
    with open_engine(disk) as engine:
        assert engine.verify().ok
    with open_engine(disk, read_only=True) as engine:
        assert engine.verify().ok


@pytest.mark.parametrize("kind", ["seg", "mark", "vec", "wal", "MANIFEST", "VISIBLE"])
def test_a_flipped_bit_is_found_and_the_file_named(kind: str) -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    path = files_of(disk)[kind][-1]
    size = disk.size(path) if kind != "wal" else core_of(engine).log.size  # type: ignore[union-attr]
    found = 0
    places = np.linspace(0, size - 1, 60, dtype=int).tolist()
    for position in places:
        disk.rot(path, 8 * position + position % 8)
        report = engine.verify()
        if not report.ok:
            found += 1
            assert any(path in problem or PATH in problem for problem in report.problems)
        if kind != "VISIBLE":  # which was written again
            disk.rot(path, 8 * position + position % 8)
        assert engine.verify().ok
    # the rest is padding, which nobody reads
    assert found >= (0.5 if kind in ("seg", "mark", "vec") else 1) * len(places)
    engine.close()


@pytest.mark.parametrize("kind", ["seg", "mark", "vec"])
def test_a_missing_file_is_found(kind: str) -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    for path in files_of(disk)[kind]:
        disk.unlink(path)
        report = engine.verify()
        assert any(path in problem for problem in report.problems)
    engine.close()


@pytest.mark.parametrize("kind", ["seg", "mark", "vec"])
def test_opening_and_reading_finds_it_too_or_answers_right(kind: str) -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    held = contents(engine.latest())
    engine.close()
    disk.unlink(f"{PATH}/VISIBLE")
    path = files_of(disk)[kind][0]
    refused = 0
    for position in np.linspace(0, disk.size(path) - 1, 80, dtype=int).tolist():
        disk.rot(path, 8 * position)
        try:
            reader = open_engine(disk, read_only=True)
            assert contents(reader.latest()) == held
            assert reader.latest().count(MEMORY) == len(held)
        except EngramError as error:
            refused += 1
            assert path in str(error)
        disk.rot(path, 8 * position)
    assert refused > 20


def test_a_vector_nobody_holds_is_found() -> None:
    # as a bug would leave it: each file is sound, but a version refers to a vector in none of them
    disk = SimulatedDisk()
    engine = filled(disk)
    core = core_of(engine)
    version = core.state.version
    core.state = core.state._replace(version=version._replace(vectors=version.vectors[1:]))
    assert any("in no vector file" in problem for problem in engine.verify().problems)
    core.state = core.state._replace(version=version)
    engine.close()


def test_reading_a_rotten_vector_is_corruption_with_file_and_offset() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.close()
    path = files_of(disk)["vec"][0]
    with open_engine(disk) as engine:
        file = core_of(engine).state.version.vectors[0]
        at = file.reader.section("matrix").offset
        disk.rot(path, 8 * at + 3)
        with pytest.raises(CorruptionError) as caught:
            contents(engine.latest())
        assert caught.value.file == path and caught.value.offset == at


def test_a_closed_engine_is_not_verified(tmp_path: Path) -> None:
    engine = open_engine(None, str(tmp_path))
    engine.close()
    with pytest.raises(ClosedError):
        engine.verify()


@pytest.mark.parametrize("left", [b"", b"ENGR", bytes(4096), None])
def test_to_a_reader_what_a_killed_writer_had_begun_is_no_damage(
    left: bytes | None, tmp_path: Path
) -> None:
    # it made its next log, or (None) wrote its next record
    with open_engine(None, str(tmp_path / "db"), durability="os") as engine:
        put(engine, 1, b"x", vec(1, 2))
        engine.flush()
        put(engine, 1, b"y", vec(1, 2))
        shutil.copytree(tmp_path / "db", tmp_path / "killed")
    wal = tmp_path / "killed" / "wal"
    if left is None:
        (log,) = wal.iterdir()
        log.write_bytes(log.read_bytes().rstrip(b"\0") + bytes(8) + b"EREC, torn")
    else:
        (wal / "000099.wal").write_bytes(left)
    with open_engine(None, str(tmp_path / "killed"), read_only=True) as reader:
        before = contents(reader.latest())
        assert reader.verify().problems == () and contents(reader.latest()) == before
    with open_engine(None, str(tmp_path / "killed")) as again:
        assert again.verify().ok and contents(again.latest()) == before


def test_a_vector_may_outlive_the_version_that_is_left_of_those_that_shared_it() -> None:
    # the pinned first version is kept, the second one, with the same vector, is dropped
    with open_engine(SimulatedDisk(), history=KeepLast(1)) as engine:
        put(engine, 1, b"first", vec(1, 2))
        engine.pin("first")
        patch(engine, 1, b"second")
        put(engine, 1, b"third", vec(3, 4))
        put(engine, 1, b"fourth", vec(5, 6))
        engine.compact()
        assert [each.seq for each in engine.latest().history(MEMORY, key(1))] == [1, 4]
        assert engine.verify().problems == ()
