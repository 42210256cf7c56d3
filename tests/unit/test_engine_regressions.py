"""Bugs of the engine that the crash and fault tests found, one test each."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace

import pytest

from engramdb.errors import CorruptionError, EngramError, StoragePoisonedError
from engramdb.lsm import StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import MEMORY
from tests.crash.driver import PATH, SMALL, Driver, key, put


def abandon(driver: Driver) -> None:
    """The process dies."""
    driver.engine._core.close("its process was killed")


def do_nothing() -> None:
    """Instead of maintenance."""


def payload(engine: StorageEngine, number: int) -> bytes | None:
    record = engine.latest().get(MEMORY, key(number))
    return None if record is None else record.payload


def test_an_empty_log_that_a_recovery_removed_may_come_back() -> None:
    """Its removal was not durable yet when the next log was made: that is no damage."""
    disk = SimulatedDisk()
    driver = Driver(disk)
    driver.commit(put(1, b"one"))
    abandon(driver)
    disk.open(f"{PATH}/wal/000002.wal", "x").close()
    driver._open()
    assert disk.list(f"{PATH}/wal") == ["000001.wal"]
    driver.engine._maintenance.run_inline = do_nothing  # type: ignore[method-assign]
    driver.commit(put(2, b"two"))
    abandon(driver)
    assert disk.list(f"{PATH}/wal") == ["000001.wal", "000003.wal"]
    disk.open(f"{PATH}/wal/000002.wal", "x").close()
    driver._open()
    assert payload(driver.engine, 1) == b"one" and payload(driver.engine, 2) == b"two"
    assert driver.engine.verify().ok


def test_a_log_in_the_middle_that_lost_its_content_is_damage() -> None:
    disk = SimulatedDisk()
    driver = Driver(disk)
    driver.engine._maintenance.run_inline = do_nothing  # type: ignore[method-assign]
    for i in range(3):
        driver.commit(put(i, b"payload"))
        driver.engine._core.freeze()
    abandon(driver)
    file = disk.open(f"{PATH}/wal/000002.wal", "w")
    file.write_at(0, bytes(file.size()))
    with pytest.raises(CorruptionError):
        StorageEngine.open(PATH, SMALL, environment=disk)


@pytest.mark.parametrize("nth", [1, 2])
def test_what_a_failed_sync_left_in_the_page_cache_is_written_again(nth: int) -> None:
    """After a failed sync the kernel shows pages as clean that never reached the disk. Recovery
    reads them, shows them, and must not take the next, successful sync for theirs."""
    disk = SimulatedDisk()
    driver = Driver(disk)
    driver.commit(put(1, b"one"))
    disk.fail("sync_data", nth, drop=False)
    with pytest.raises(StoragePoisonedError):
        for i in range(2, 4):
            driver.commit(put(i, b"in the page cache"))
    driver.close()
    driver._open()
    shown = driver.engine.last_seq
    driver.commit(put(9, b"after"))
    again = StorageEngine.open(PATH, SMALL, environment=disk.crash([]))
    assert again.last_seq == shown + 1


def test_a_log_whose_header_never_reached_the_disk_is_not_built_on() -> None:
    disk = SimulatedDisk()
    driver = Driver(disk)
    disk.fail("sync", 1, drop=False)
    with pytest.raises(StoragePoisonedError):
        driver.commit(put(1, b"one"))
    driver.close()
    driver._open()
    driver.commit(put(2, b"two"))
    again = StorageEngine.open(PATH, SMALL, environment=disk.crash([]))
    assert payload(again, 2) == b"two"


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_no_file_is_removed_on_the_word_of_a_manifest_that_may_not_be_durable(how: str) -> None:
    """A writer died between the link of a manifest and the sync of its directory."""
    disk = SimulatedDisk()
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1))
    if how == "killed":
        disk.fail("link", 1, happens=True)
    else:
        disk.fail("sync_directory", 3)  # after those of seg/ and vec/
    with pytest.raises(StoragePoisonedError):
        driver.flush()
    driver.close()
    driver._open()
    driver.commit(put(2, b"two"))
    again = StorageEngine.open(PATH, SMALL, environment=disk.crash([]))
    assert payload(again, 1) == b"one" and payload(again, 2) == b"two"


@pytest.mark.parametrize("kind", ["lock", "list", "make_directory", "read_at", "open"])
@pytest.mark.parametrize("read_only", [False, True])
def test_opening_raises_typed_errors(kind: str, read_only: bool) -> None:
    disk = SimulatedDisk()
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1))
    driver.close()
    disk.fail(kind, sticky=True)
    if kind == "make_directory" or (read_only and kind == "lock"):
        # nothing is to be made; and a directory may be there only to be read
        StorageEngine.open(PATH, SMALL, environment=disk, read_only=read_only).close()
        if not read_only:
            with pytest.raises(EngramError):
                StorageEngine.open("/another", SMALL, environment=disk)
        return
    with pytest.raises(EngramError):
        StorageEngine.open(PATH, SMALL, environment=disk, read_only=read_only)
    disk.heal()
    StorageEngine.open(PATH, SMALL, environment=disk).close()


@pytest.mark.parametrize(("number", "is_damage"), [(errno.EIO, True), (errno.ENOMEM, False)])
def test_reading_raises_typed_errors(number: int, is_damage: bool) -> None:
    disk = SimulatedDisk()
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1))
    driver.reopen()
    disk.fail("read_at", error=number)
    with pytest.raises(EngramError) as caught:
        payload(driver.engine, 1)
    assert isinstance(caught.value, CorruptionError) == is_damage
    assert payload(driver.engine, 1) == b"one"


def test_a_poisoned_engine_holds_no_file_after_its_close() -> None:
    """The error that poisoned it held, through the frames of its traceback, what was open then."""
    disk = SimulatedDisk()
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1))
    driver.flush()
    driver.commit(put(1, b"two", 2))
    disk.fail("link")
    with pytest.raises(StoragePoisonedError):
        driver.flush()
    poison = driver.engine._core.poison
    assert poison is not None and poison.__traceback__ is not None
    driver.close()
    assert poison.__traceback__ is None


def test_without_background_work_no_thread_is_started() -> None:
    driver = Driver(SimulatedDisk(), replace(SMALL, bulk_bytes_min=1))
    started: list[str] = []
    real = threading.Thread.start
    try:
        threading.Thread.start = lambda thread: (started.append(thread.name), real(thread))[1]  # type: ignore[method-assign,assignment]
        driver.bulk(*(put(i, b"bulk", i) for i in range(3)))
    finally:
        threading.Thread.start = real  # type: ignore[method-assign]
    assert not started
