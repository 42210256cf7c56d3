"""One bit of one file flips: a typed error that names the file, or the same answers. Never a wrong
one, and never an error of another kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engramdb.errors import CorruptionError, IncompatibleFormatError
from engramdb.lsm import StorageEngine
from engramdb.lsm.environment.crash import CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk, reboot
from engramdb.lsm.environment.trace import Image
from tests.crash.checks import dump
from tests.crash.driver import PATH, SMALL, Driver, connect, delete, disconnect, put

OPTIONS = replace(SMALL, log_allocate_bytes=512)
FLIPS_MAX = 700  # of one file: its ends, where the headers are, and every so many bytes between
DIRECTORIES = ("", "/wal", "/seg", "/vec")


def closed_database() -> SimulatedDisk:
    """Two runs, their vectors, marks on both, edges, a pin; nothing in a log."""
    disk = SimulatedDisk(5)
    driver = Driver(disk, OPTIONS)
    driver.commit(*(put(i, b"payload of %d " % i * 9, i, 2) for i in range(5)), connect(1, 2))
    driver.commit(connect(2, 3, "likes", 0.5), put(7, b"no vector"))
    driver.flush()
    driver.commit(put(1, b"again", 1, 2), delete(2), disconnect(1, 2))
    driver.commit(put(3, b"another vector", 8))
    driver.pin("here")
    driver.close()
    return disk


def crashed_database() -> SimulatedDisk:
    """The same with synced commits in a log, and one at its end that never was."""
    disk = closed_database()
    driver = Driver(disk, OPTIONS)
    driver.commit(put(8, b"in the log" * 20, 3), connect(8, 1))
    driver.commit(put(1, b"shared", 1, 2))
    driver.commit(delete(3))
    driver.commit(put(9, b"never synced", 4), sync=False)
    return disk


def image_of(disk: SimulatedDisk) -> Image:
    """What a killed process leaves."""
    state = CrashState(disk.trace, len(disk.trace.events))
    return state.image((-1,) * len(state.pending))


def answers(disk: SimulatedDisk) -> tuple[str, int, int]:
    """A digest of all answers, the last commit, and the bytes that were cut off the log."""
    engine = StorageEngine.open(PATH, OPTIONS, environment=disk)
    try:
        truncated = engine.stats()["truncated_bytes"]
        return dump(engine), engine.last_seq, truncated
    finally:
        engine._core.close("read")


def files_of(disk: SimulatedDisk) -> list[tuple[str, int]]:
    """The files of the database and their lengths in bytes."""
    found = []
    for directory in DIRECTORIES:
        for name in disk.list(PATH + directory):
            path = f"{PATH}{directory}/{name}"
            if f"/{name}" not in DIRECTORIES and name not in ("tmp", "LOCK"):
                found.append((path, disk.size(path)))
    return found


def positions(size: int) -> list[int]:
    """Which bytes to damage."""
    if size <= FLIPS_MAX:
        return list(range(size))
    ends = {*range(128), *range(size - 200, size)}
    return sorted(ends | set(range(0, size, -(-size // (FLIPS_MAX - len(ends))))))


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("make", [closed_database, crashed_database])
def test_a_flipped_bit_is_noticed_or_does_no_harm(make, part: int) -> None:  # type: ignore[no-untyped-def]
    disk = make()
    image = image_of(disk)
    right, last_seq, _ = answers(reboot(disk.trace, image))
    driver_log = None
    if make is crashed_database:
        driver_log = f"{PATH}/wal/{max(reboot(disk.trace, image).list(PATH + '/wal'))}"
    noticed = harmless = 0
    for path, size in files_of(reboot(disk.trace, image)):
        for at in positions(size)[part::4]:
            damaged = reboot(disk.trace, image)
            damaged.rot(path, 8 * at + at * 7 % 8)
            line = f"{make.__name__}: rot({path!r}, {8 * at + at * 7 % 8})"
            try:
                got, seq, truncated = answers(damaged)
            except (CorruptionError, IncompatibleFormatError):
                noticed += 1
                continue
            except Exception as error:
                raise AssertionError(f"{line} -> {type(error).__name__}: {error}") from error
            if path == driver_log and seq == last_seq - 1:
                assert truncated > 0, f"{line}: the last record went silently"
                noticed += 1
                continue
            assert got == right, f"{line}: wrong answers"
            harmless += 1
    assert noticed > 200
    assert harmless


@pytest.mark.parametrize("directory", ["seg", "vec"])
def test_rot_under_an_open_database(directory: str) -> None:
    disk = closed_database()
    image = image_of(disk)
    right, _, _ = answers(reboot(disk.trace, image))
    noticed = 0
    for path, size in files_of(reboot(disk.trace, image)):
        if f"/{directory}/" not in path:
            continue
        for at in positions(size)[::5]:
            damaged = reboot(disk.trace, image)
            engine = StorageEngine.open(PATH, OPTIONS, environment=damaged)
            damaged.rot(path, 8 * at + at * 5 % 8)
            try:
                assert dump(engine) == right, f"{path} at {at}: wrong answers"
            except (CorruptionError, IncompatibleFormatError):
                noticed += 1
            report = engine.verify()
            assert isinstance(report.problems, tuple)
            engine._core.close("read")
    assert noticed > 10
