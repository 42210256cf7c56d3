"""Repairs that once lost what was intact, or did not say what was lost; one test each."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from engramdb.errors import EngramError, HistoryUnavailableError, InvalidInputError
from engramdb.lsm import KeepLast, RepairReport, StorageEngine, repair
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import MEMORY
from tests.unit.lsm_support import PATH, columns, key, open_engine, put, vec


def filled(disk: SimulatedDisk, count: int = 10, path: str = PATH) -> StorageEngine:
    engine = open_engine(disk, path, bulk_bytes_min=1)
    for i in range(count):
        put(engine, i, b"payload %d" % i, vec(i, 1, 2, 3))
    return engine


def newest_manifest(disk: SimulatedDisk, path: str = PATH) -> str:
    return f"{path}/" + max(name for name in disk.list(path) if name.startswith("MANIFEST-"))


def zero(disk: SimulatedDisk, path: str) -> None:
    disk.plant(path, bytes(disk.size(path)))


def kill(engine: StorageEngine) -> None:
    core = engine._core
    assert core.file_lock is not None
    core.file_lock.release()
    core.closed = "its process was killed"


def keys_in(disk: SimulatedDisk, path: str = PATH) -> set[bytes]:
    with open_engine(disk, path) as engine:
        assert engine.verify().ok
        return {row.tobytes() for rows in engine.latest().scan(MEMORY) for row in rows.keys}


def loses_nothing(report: RepairReport) -> bool:
    return not (report.commits_lost or report.versions_lost or report.vectors_lost)


def test_a_bulk_load_whose_manifest_is_damaged() -> None:
    # its files have lower numbers than the manifest that its own flush published before it
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.commit_columns(columns(range(100, 150)))
    engine.close()
    zero(disk, newest_manifest(disk))
    assert loses_nothing(repair(disk, PATH))
    assert keys_in(disk) == {key(i) for i in [*range(10), *range(100, 150)]}


@pytest.mark.parametrize("without_visible", [False, True])
def test_a_fork_without_a_manifest(without_visible: bool) -> None:
    # most of its files are its parent's, and say so
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.flush()
    engine.fork("/fork")
    with open_engine(disk, "/fork") as fork:
        for i in range(20, 25):
            put(fork, i, b"of the fork", vec(i, 1, 2, 3))
        kill(fork)
    zero(disk, newest_manifest(disk, "/fork"))
    if without_visible:
        disk.plant("/fork/VISIBLE", None)
    assert loses_nothing(repair(disk, "/fork"))
    assert keys_in(disk, "/fork") == {key(i) for i in [*range(10), *range(20, 25)]}
    engine.close()


def test_the_only_log_is_gone() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.pin("here")
    kill(engine)
    disk.plant(f"{PATH}/wal/{disk.list(PATH + '/wal')[0]}", None)
    report = repair(disk, PATH)
    assert report.commits_lost == ((1, 10),) and not report.is_complete
    assert report.tags_lost == ("here",) and report.seq == 11
    with open_engine(disk) as again:
        assert again.last_seq == 11 and again.pins() == {}
        for seq in range(1, 11):
            with pytest.raises(HistoryUnavailableError):
                again.at(seq)


def test_the_last_lost_commit_is_not_answered() -> None:
    disk = SimulatedDisk()
    engine = filled(disk, 5)
    engine.flush()
    for i in range(5, 10):
        put(engine, i, b"in the log", vec(i, 1, 2, 3))
    kill(engine)
    log = f"{PATH}/wal/{max(disk.list(PATH + '/wal'))}"
    disk.plant(log, disk.content(log)[:64] + bytes(disk.size(log) - 64))
    report = repair(disk, PATH)
    assert report.commits_lost == ((6, 10),) and report.seq == 11
    with open_engine(disk) as again, pytest.raises(HistoryUnavailableError):
        again.at(10)


def test_the_newest_manifest_and_the_last_log_are_gone() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.flush()
    for i in range(10, 20):
        put(engine, i, b"in the log")
    kill(engine)
    zero(disk, newest_manifest(disk))
    disk.plant(f"{PATH}/wal/{max(disk.list(PATH + '/wal'))}", None)
    assert repair(disk, PATH).commits_lost == ((11, 20),)
    assert keys_in(disk) == {key(i) for i in range(10)}


def test_what_the_policy_dropped_is_not_called_lost() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.set_history(KeepLast(1))
    engine.flush()
    for i in range(10):
        put(engine, i, b"again", vec(1, 1, 1, 1))
    engine.pin("here")
    engine.compact()
    kill(engine)
    zero(disk, newest_manifest(disk))
    report = repair(disk, PATH)
    assert loses_nothing(report) and report.tags_lost == ()


def test_what_was_purged_is_not_called_lost() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.flush()
    engine.pin("here")
    engine.purge([key(4)])
    kill(engine)
    zero(disk, newest_manifest(disk))
    report = repair(disk, PATH)
    assert loses_nothing(report) and report.tags_lost == ()
    assert keys_in(disk) == {key(i) for i in range(10)} - {key(4)}


def test_a_merged_segment_that_is_gone_with_its_manifest_is_missed() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.flush()
    for i in range(10):
        put(engine, i, b"again", vec(1, 1, 1, 1))
    engine.compact()
    kill(engine)
    zero(disk, newest_manifest(disk))
    segments = [name for name in disk.list(f"{PATH}/seg") if name.endswith(".seg")]
    disk.plant(f"{PATH}/seg/{segments[-1]}", None)
    report = repair(disk, PATH)
    assert report.commits_lost and not report.is_complete


def test_half_a_bulk_load_is_not_published() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.flush()
    disk.fail("rename", 2, sticky=True)  # the segment is in place, its vectors are not
    with pytest.raises(EngramError):
        engine.commit_columns(columns(range(100, 150)))
    disk.heal()
    kill(engine)
    zero(disk, newest_manifest(disk))
    assert loses_nothing(repair(disk, PATH))
    assert keys_in(disk) == {key(i) for i in range(10)}


def test_leftovers_beside_the_latest_manifest_are_no_database() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.flush()
    disk.fail("rename", 3, sticky=True)  # everything is in place but the manifest
    disk.fail("link", 1)
    with pytest.raises(EngramError):
        engine.commit_columns(columns(range(100, 150)))
    disk.heal()
    kill(engine)
    vectors = f"{PATH}/vec/{min(disk.list(PATH + '/vec'))}"
    data = disk.content(vectors)
    disk.plant(vectors, data[:600] + bytes(64) + data[664:])
    report = repair(disk, PATH)
    assert not any("MANIFEST" in problem for problem in report.problems)
    assert keys_in(disk) == {key(i) for i in range(10)}


def test_a_copy_that_was_cut_short_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimulatedDisk()
    filled(disk).close()
    segment = f"{PATH}/seg/{disk.list(PATH + '/seg')[0]}"
    zero(disk, segment)
    damaged = disk.content(segment)
    real = SimulatedDisk.link

    def link(self: SimulatedDisk, source: str, destination: str) -> None:
        if "/lost/" in destination:
            raise OSError(errno.EPERM, "no links here", destination)
        real(self, source, destination)

    monkeypatch.setattr(SimulatedDisk, "link", link)
    disk.fail("write_at", 1, partial=100, sticky=True)  # and then the process dies
    monkeypatch.setattr(SimulatedDisk, "unlink", lambda self, path: None)
    with pytest.raises(EngramError):
        repair(disk, PATH)
    monkeypatch.undo()
    monkeypatch.setattr(SimulatedDisk, "link", link)
    disk.heal()
    report = repair(disk, PATH)
    assert [disk.content(path) for path in report.moved] == [damaged]


def test_a_note_of_somebody_else() -> None:
    disk = SimulatedDisk()
    filled(disk).close()
    disk.make_directory(f"{PATH}/lost")
    numbers = [name for name in disk.list(PATH) if name.startswith("MANIFEST-")]
    disk.plant(f"{PATH}/lost/{len(numbers) + 1:06d}-repair-made-files-from-abc", b"")
    assert repair(disk, PATH).problems == ()


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    from engramdb import Database

    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="no database"):
        Database.repair(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_vectors_are_the_same_floats() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    wanted = {i: np.array([i, 1, 2, 3], np.float32).tobytes() for i in range(10)}
    engine.close()
    zero(disk, newest_manifest(disk))
    repair(disk, PATH)
    with open_engine(disk) as again:
        snapshot = again.latest()
        for i, floats in wanted.items():
            record = snapshot.get(MEMORY, key(i))
            assert record is not None
            assert snapshot.vector(record.vector).tobytes() == floats  # type: ignore[union-attr]
