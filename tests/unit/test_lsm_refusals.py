"""A database that cannot be opened, or closed in peace, is left as it is: nothing removed that a
repair may need, no file open, no lock held."""

from __future__ import annotations

import pytest

from engramdb.errors import CorruptionError, EngramError
from engramdb.lsm import StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.crash.databases import (
    DATABASE_OPTIONS,
    contents_of,
    disk_of,
    image_of,
    published_database,
)
from tests.crash.driver import PATH, Driver, put
from tests.crash.fault_runs import WatchedDisk

MEANT = ("/MANIFEST-", "/seg/", "/vec/", "/wal/", "/VISIBLE")


def open_(disk: SimulatedDisk, *, read_only: bool = False) -> StorageEngine:
    return StorageEngine.open(PATH, DATABASE_OPTIONS, environment=disk, read_only=read_only)


def files_of(disk: SimulatedDisk) -> dict[str, bytes]:
    found = contents_of(image_of(disk))
    return {path: data for path, data in found.items() if any(part in path for part in MEANT)}


def test_a_missing_manifest_does_not_cost_the_files_that_it_named() -> None:
    """They were removed as leftovers before the missing log behind the older one was noticed."""
    disk = disk_of("closed_database")
    disk.plant(f"{PATH}/MANIFEST-00000000000000000004", None)
    before = files_of(disk)
    with pytest.raises(CorruptionError, match="as VISIBLE says"):
        open_(disk)
    assert files_of(disk) == before


def test_a_damaged_log_is_not_removed_before_its_successor_is_asked() -> None:
    """Its header was unreadable, so it was taken for one that was never used."""
    disk = disk_of("full_database")
    damaged = f"/db/wal/{min(disk.list('/db/wal'))}"
    disk.plant(damaged, bytes(512) + disk.content(damaged)[512:])
    before = files_of(disk)
    with pytest.raises(CorruptionError):
        open_(disk)
    assert files_of(disk) == before


def test_a_damaged_segment_does_not_cost_a_manifest() -> None:
    """A manifest whose writer had died was published again, and the oldest one removed, before the
    files were looked at."""
    disk = published_database()
    last = f"MANIFEST-{7:020d}"
    disk.plant(f"{PATH}/tmp/{last}", disk.content(f"{PATH}/{last}"))
    disk = SimulatedDisk(image=image_of(disk))
    disk.rot(f"{PATH}/seg/000002.seg", 80)
    before = files_of(disk)
    with pytest.raises(CorruptionError):
        open_(disk)
    assert files_of(disk) == before


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("path", ["/db/vec/000006.vec", "/db/seg/000008.mark", "/db/VISIBLE"])
def test_an_error_that_is_kept_keeps_no_file_open(path: str, read_only: bool) -> None:
    disk = WatchedDisk(image=image_of(disk_of("crashed_database")))
    if path.endswith("VISIBLE"):
        disk.plant("/db/wal/000009.wal", bytes(1024))  # damage that is found last
    else:
        disk.rot(path, 8 * 64 * 3 + 1)
        disk.plant(path, disk.content(path)[:-1])
    with pytest.raises(CorruptionError) as raised:
        open_(disk, read_only=read_only)
    assert raised.value is not None
    assert disk.open_files() == []
    assert not disk.lock_is_held(f"{PATH}/LOCK")


def test_a_reader_closes_though_its_name_cannot_be_removed() -> None:
    """The OSError went up as it was, and its files stayed open."""
    disk = WatchedDisk(image=image_of(disk_of("closed_database")))
    reader = open_(disk, read_only=True)
    list(reader.latest().vector_runs())
    disk.fail("unlink", sticky=True)
    reader.close()
    assert disk.open_files() == []
    disk.heal()
    with open_(disk) as writer:
        writer.purge([bytes(16)])
    assert disk.list(f"{PATH}/readers") == [], "whoever looks for readers removes it"


def test_a_file_that_fails_to_close_does_not_keep_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = WatchedDisk()
    driver = Driver(disk, DATABASE_OPTIONS)
    driver.commit(put(1, b"in the log", 1))
    log = driver.engine._core.log
    assert log is not None
    disk.fail("rename")  # the flush of closing fails, so the log is still open then

    def close() -> None:
        type(log).close(log)
        raise OSError(5, "as NFS reports what it could not write")

    monkeypatch.setattr(log, "close", close)
    with pytest.raises(EngramError):
        driver.engine.close()
    assert not disk.lock_is_held(f"{PATH}/LOCK")
    assert disk.open_files() == []
