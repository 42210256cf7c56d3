"""The real operating system: short calls, descriptors, and locks between processes."""

from __future__ import annotations

import errno
import gc
import os
import warnings
from pathlib import Path

import pytest

from engramdb.errors import EngramError
from engramdb.lsm.environment import LockHeld, PosixEnvironment

environment = PosixEnvironment()


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


def write(root: str, name: str, data: bytes) -> str:
    path = f"{root}/{name}"
    file = environment.open(path, "x")
    file.write_at(0, data)
    file.close()
    return path


def read(path: str) -> bytes:
    file = environment.open(path, "r")
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


def fork() -> int:
    """os.fork, although pytest may have threads (the child here only locks and exits)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def test_is_persistent(root: str) -> None:
    assert environment.is_persistent


def test_a_disk_that_fails_is_not_an_absent_file(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os.path.exists answers "no" to every error: an unreadable VISIBLE was none then."""
    environment = PosixEnvironment()
    assert not environment.exists(f"{root}/absent")
    assert not environment.exists(f"{root}/{'x' * 300}")
    assert environment.exists(root)

    def stat(path: str) -> os.stat_result:
        raise OSError(errno.EIO, "as a failing disk says", path)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(OSError, match="as a failing disk says"):
        environment.exists(f"{root}/absent")


def test_short_writes_are_continued(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:7], at))
    path = write(root, "a", b"0123456789" * 10)
    monkeypatch.undo()
    assert read(path) == b"0123456789" * 10


def test_short_reads_are_continued(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(root, "a", b"0123456789" * 10)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: real(fd, min(n, 7), at))
    assert read(path) == b"0123456789" * 10


def test_a_write_that_makes_no_progress_is_an_error(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    with pytest.raises(OSError, match="wrote nothing") as caught:
        write(root, "a", b"x")
    assert caught.value.errno == errno.EIO


def test_descriptors_do_not_reach_executed_programs(root: str) -> None:
    file = environment.open(write(root, "a", b""), "r")
    assert not os.get_inheritable(file._fd)
    file.close()


def test_descriptors_are_given_back(root: str) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    path = write(root, "a", b"x" * 100)
    gc.collect()
    before = count()
    for _ in range(20):
        file = environment.open(path, "r")
        assert file.map()[0] == ord("x")
        file.close()
        environment.open(path, "r")  # dropped without close
        lock = environment.lock(f"{root}/LOCK", b"1")
        with pytest.raises(LockHeld):
            environment.lock(f"{root}/LOCK", b"2")
        lock.release()
        environment.sync_directory(root)
    gc.collect()
    assert count() == before


def test_a_lock_keeps_other_processes_out_and_dies_with_its_own(root: str) -> None:
    path = f"{root}/LOCK"
    ready_read, ready_write = os.pipe()
    end_read, end_write = os.pipe()
    child = fork()
    if not child:
        environment.lock(path, b"the child")
        os.write(ready_write, b"!")
        os.read(end_read, 1)
        os._exit(0)  # without release
    assert os.read(ready_read, 1) == b"!"
    assert environment.lock_is_held(path)
    with pytest.raises(LockHeld) as caught:
        environment.lock(path, b"the parent")
    assert caught.value.content == b"the child"
    os.write(end_write, b"!")
    assert os.waitpid(child, 0)[1] == 0
    for fd in (ready_read, ready_write, end_read, end_write):
        os.close(fd)
    assert not environment.lock_is_held(path)
    environment.lock(path, b"the parent").release()


@pytest.mark.parametrize("way", ["after_fork_in_child", "release", "nothing"])
def test_a_forked_child_neither_has_nor_takes_the_lock(root: str, way: str) -> None:
    path = f"{root}/LOCK"
    lock = environment.lock(path, b"the parent")
    child = fork()
    if not child:
        if way != "nothing":
            getattr(lock, way)()
        try:
            environment.lock(path, b"the child")
        except LockHeld as refusal:
            os._exit(0 if refusal.content == b"the parent" else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert environment.lock_is_held(path)
    with pytest.raises(LockHeld):
        environment.lock(path, b"again")
    lock.release()
    assert not environment.lock_is_held(path)


def test_releasing_unlocks_even_if_a_child_still_has_the_descriptor(root: str) -> None:
    path = f"{root}/LOCK"
    lock = environment.lock(path, b"the parent")
    read_end, write_end = os.pipe()
    child = fork()
    if not child:
        os.read(read_end, 1)
        os._exit(0)
    lock.release()
    assert not environment.lock_is_held(path)
    os.write(write_end, b"!")
    os.waitpid(child, 0)
    os.close(read_end)
    os.close(write_end)


def test_windows_is_refused_with_a_reason(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(EngramError, match="not proven on Windows"):
        PosixEnvironment()
