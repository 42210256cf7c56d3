"""The simulated disk fails when and how it is told to."""

from __future__ import annotations

import errno

import pytest

from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.unit.test_simulated_disk import disk, durable_file, outcomes, read

__all__ = ["disk"]  # a fixture


def error_of(call: object) -> int | None:
    try:
        call()
    except OSError as error:
        return error.errno
    return None


def test_the_nth_call_fails_and_only_that_one(disk: SimulatedDisk) -> None:
    file = disk.open("/d/a", "x")
    fault = disk.fail("write_at", 3, error=errno.ENOSPC)
    errors = [error_of(lambda i=i: file.write_at(i, b"x")) for i in range(5)]
    assert errors == [None, None, errno.ENOSPC, None, None]
    assert fault.fired == 1
    assert read(disk, "/d/a") == b"xx\0xx"


def test_a_sticky_fault_stays_until_healed(disk: SimulatedDisk) -> None:
    file = disk.open("/d/a", "x")
    disk.fail("write_at", 2, sticky=True)
    errors = [error_of(lambda: file.write_at(0, b"x")) for _ in range(4)]
    assert errors == [None] + [errno.EIO] * 3
    disk.heal()
    assert error_of(lambda: file.write_at(0, b"x")) is None


def test_any_call_counts_for_a_star(disk: SimulatedDisk) -> None:
    file = disk.open("/d/a", "x")
    disk.fail("*", 3)
    assert error_of(lambda: file.write_at(0, b"x")) is None
    assert error_of(file.size) is None
    assert error_of(lambda: disk.list("/d")) == errno.EIO
    assert error_of(lambda: disk.list("/d")) is None


@pytest.mark.parametrize(
    "kind",
    [
        "open",
        "read_at",
        "write_at",
        "truncate",
        "sync",
        "sync_data",
        "map",
        "size",
        "list",
        "make_directory",
        "rename",
        "link",
        "unlink",
        "sync_directory",
        "lock",
        "lock_is_held",
    ],
)
def test_every_kind_of_call_can_fail_and_then_did_nothing(disk: SimulatedDisk, kind: str) -> None:
    path = durable_file(disk, "a", b"old")
    file = disk.open(path, "w")
    calls = {
        "open": lambda: disk.open("/d/new", "x"),
        "read_at": lambda: file.read_at(0, 1),
        "write_at": lambda: file.write_at(0, b"new"),
        "truncate": lambda: file.truncate(0),
        "sync": file.sync,
        "sync_data": file.sync_data,
        "map": file.map,
        "size": file.size,
        "list": lambda: disk.list("/d"),
        "make_directory": lambda: disk.make_directory("/d/new"),
        "rename": lambda: disk.rename(path, "/d/new"),
        "link": lambda: disk.link(path, "/d/new"),
        "unlink": lambda: disk.unlink(path),
        "sync_directory": lambda: disk.sync_directory("/d"),
        "lock": lambda: disk.lock("/d/new", b""),
        "lock_is_held": lambda: disk.lock_is_held(path),
    }
    disk.fail(kind)
    assert error_of(calls[kind]) == errno.EIO
    assert disk.list("/d") == ["a"]
    assert read(disk, path) == b"old"
    assert error_of(calls[kind]) is None


def test_a_short_write_leaves_its_part(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"")
    disk.fail("write_at", error=errno.ENOSPC, partial=3)
    assert error_of(lambda: disk.open(path, "w").write_at(0, b"abcdef")) == errno.ENOSPC
    assert read(disk, path) == b"abc"
    assert outcomes(disk, path) == {b"", b"abc"}


def test_a_change_of_names_can_happen_and_be_reported_as_failed(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"x")
    disk.fail("link", happens=True)
    assert error_of(lambda: disk.link(path, "/d/b")) == errno.EIO
    assert disk.list("/d") == ["a", "b"]


def test_after_a_failed_sync_the_pages_are_gone_and_the_next_sync_lies(
    disk: SimulatedDisk,
) -> None:
    path = durable_file(disk, "a", b"old")
    file = disk.open(path, "w")
    file.write_at(0, b"new")
    disk.fail("sync_data")
    assert error_of(file.sync_data) == errno.EIO
    assert read(disk, path) == b"old"
    assert error_of(file.sync_data) is None
    assert outcomes(disk, path) == {b"old"}
    file.write_at(0, b"3rd")
    file.sync()
    assert outcomes(disk, path) == {b"3rd"}


def test_pages_of_a_failed_sync_can_look_fine_until_the_crash(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"old")
    file = disk.open(path, "w")
    file.write_at(0, b"new")
    disk.fail("sync", drop=False)
    assert error_of(file.sync) == errno.EIO
    file.write_at(3, b"+")
    file.sync()
    assert read(disk, path) == b"new+"
    assert outcomes(disk, path) == {b"old+", b"new+"}


def test_after_a_failed_directory_sync_the_next_one_lies(disk: SimulatedDisk) -> None:
    disk.open("/d/a", "x")
    disk.fail("sync_directory")
    assert error_of(lambda: disk.sync_directory("/d")) == errno.EIO
    disk.sync_directory("/d")
    assert outcomes(disk, "/d/a") == {None, b""}
