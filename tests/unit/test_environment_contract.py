"""What every environment promises, asked of the real one, the one in memory and the simulated."""

from __future__ import annotations

import contextlib
import errno
import gc
import random
import threading
from pathlib import Path

import pytest

from engramdb.lsm.environment import (
    Environment,
    File,
    LockHeld,
    MemoryEnvironment,
    PosixEnvironment,
)
from engramdb.lsm.environment.simulated import SimulatedDisk


class Contract:
    """A subclass gives `environment` and `root`, an existing empty directory."""

    environment: Environment
    root: str

    def write(self, name: str, data: bytes) -> str:
        path = f"{self.root}/{name}"
        file = self.environment.open(path, "x")
        file.write_at(0, data)
        file.sync()
        file.close()
        return path

    def read(self, path: str) -> bytes:
        file = self.environment.open(path, "r")
        try:
            return file.read_at(0, file.size())
        finally:
            file.close()

    # Files

    def test_what_is_written_is_read(self) -> None:
        path = self.write("a", b"0123456789")
        assert self.read(path) == b"0123456789"
        assert self.environment.size(path) == 10
        assert self.environment.exists(path)

    def test_reads_end_where_the_file_ends(self) -> None:
        file = self.environment.open(self.write("a", b"0123456789"), "r")
        assert file.read_at(3, 4) == b"3456"
        assert file.read_at(8, 100) == b"89"
        assert file.read_at(10, 1) == b""
        assert file.read_at(1000, 1) == b""
        assert file.read_at(0, 0) == b""
        file.close()

    def test_writes_land_where_they_are_aimed(self) -> None:
        path = self.write("a", b"0123456789")
        file = self.environment.open(path, "w")
        file.write_at(2, b"xy")
        file.write_at(9, bytearray(b"end"))
        file.write_at(12, memoryview(b"--more--")[2:6])
        file.write_at(5, b"")
        assert file.size() == 16
        file.close()
        assert self.read(path) == b"01xy45678endmore"

    def test_a_write_beyond_the_end_leaves_zeros(self) -> None:
        file = self.environment.open(self.write("a", b"ab"), "w")
        file.write_at(5, b"z")
        assert file.read_at(0, 10) == b"ab\0\0\0z"
        file.close()

    def test_truncate_cuts_and_extends_with_zeros(self) -> None:
        file = self.environment.open(self.write("a", b"0123456789"), "w")
        file.truncate(4)
        assert file.size() == 4
        file.truncate(8)
        assert file.read_at(0, 100) == b"0123\0\0\0\0"
        file.truncate(0)
        assert file.read_at(0, 100) == b""
        file.close()

    def test_a_large_write_arrives_whole(self) -> None:
        data = random.Random(1).randbytes(3_000_001)
        path = self.write("a", data)
        assert self.read(path) == data
        with self.environment.open(path, "r").map() as view:
            assert view == data

    def test_many_small_appends_arrive_in_order(self) -> None:
        file = self.environment.open(f"{self.root}/a", "x")
        for i in range(1000):
            file.write_at(4 * i, i.to_bytes(4, "big"))
        file.sync_data()
        file.close()
        expected = b"".join(i.to_bytes(4, "big") for i in range(1000))
        assert self.read(f"{self.root}/a") == expected

    def test_file_knows_its_path(self) -> None:
        path = self.write("a", b"")
        file = self.environment.open(path, "r")
        assert file.path == path
        file.close()

    def test_a_file_opened_to_read_refuses_writes(self) -> None:
        file = self.environment.open(self.write("a", b"abc"), "r")
        for forbidden in (lambda: file.write_at(0, b"x"), lambda: file.truncate(0)):
            with pytest.raises(OSError) as caught:
                forbidden()
            assert caught.value.errno in (errno.EBADF, errno.EINVAL)
        assert file.read_at(0, 3) == b"abc"
        file.close()

    def test_close_is_idempotent_and_final(self) -> None:
        file = self.environment.open(self.write("a", b"abc"), "w")
        file.close()
        file.close()
        for forbidden in (
            lambda: file.read_at(0, 1),
            lambda: file.write_at(0, b"x"),
            file.size,
            lambda: file.truncate(0),
            file.sync,
            file.sync_data,
            file.map,
        ):
            with pytest.raises(OSError) as caught:
                forbidden()
            assert caught.value.errno == errno.EBADF

    def test_a_negative_offset_is_refused(self) -> None:
        file = self.environment.open(self.write("a", b"abc"), "w")
        for forbidden in (lambda: file.read_at(-1, 1), lambda: file.write_at(-1, b"x")):
            with pytest.raises(OSError) as caught:
                forbidden()
            assert caught.value.errno == errno.EINVAL
        file.close()

    # Opening

    def test_open_refuses_what_is_not_there(self) -> None:
        for mode in ("r", "w"):
            with pytest.raises(FileNotFoundError) as caught:
                self.environment.open(f"{self.root}/absent", mode)
            assert caught.value.errno == errno.ENOENT
        with pytest.raises(FileNotFoundError):
            self.environment.open(f"{self.root}/no/such/directory", "x")
        with pytest.raises(FileNotFoundError):
            self.environment.size(f"{self.root}/absent")
        assert not self.environment.exists(f"{self.root}/absent")

    def test_create_is_exclusive(self) -> None:
        path = self.write("a", b"mine")
        with pytest.raises(FileExistsError) as caught:
            self.environment.open(path, "x")
        assert caught.value.errno == errno.EEXIST
        assert self.read(path) == b"mine"

    def test_two_handles_see_the_same_file(self) -> None:
        path = self.write("a", b"abc")
        writer, reader = self.environment.open(path, "w"), self.environment.open(path, "r")
        writer.write_at(1, b"XYZ")
        assert reader.read_at(0, 10) == b"aXYZ"
        assert reader.size() == 4
        writer.close()
        reader.close()

    # Maps

    def test_a_map_shows_the_file_and_is_read_only(self) -> None:
        file = self.environment.open(self.write("a", b"0123456789"), "r")
        view = file.map()
        assert view == b"0123456789"
        assert view.readonly and view.nbytes == 10 and view.itemsize == 1 and view.c_contiguous
        file.close()
        assert view[3:5] == b"34"

    def test_a_map_of_an_empty_file_is_empty(self) -> None:
        file = self.environment.open(self.write("a", b""), "r")
        view = file.map()
        assert view.nbytes == 0 and view.readonly
        file.close()

    def test_a_map_outlives_handle_name_and_truncation_of_a_successor(self) -> None:
        path = self.write("a", b"old" * 1000)
        file = self.environment.open(path, "r")
        view = file.map()
        file.close()
        del file
        self.write("b", b"new" * 2000)
        self.environment.rename(f"{self.root}/b", path)
        self.environment.unlink(path)
        gc.collect()
        assert view == b"old" * 1000

    def test_parts_of_a_map_keep_it_alive(self) -> None:
        part = self.environment.open(self.write("a", b"0123456789"), "r").map()[2:4]
        gc.collect()
        assert part == b"23"

    def test_a_map_of_a_file_that_grows_keeps_its_part(self) -> None:
        file = self.environment.open(self.write("a", b"head"), "w")
        view = file.map()
        for i in range(200):
            file.write_at(4 + 100 * i, b"x" * 100)
        assert view == b"head"
        assert file.map().nbytes == 4 + 200 * 100
        file.close()

    # Names

    def test_list_is_sorted_and_names_only(self) -> None:
        for name in ("b", "a", "c10", "c2"):
            self.write(name, b"")
        self.environment.make_directory(f"{self.root}/directory")
        assert self.environment.list(self.root) == ["a", "b", "c10", "c2", "directory"]
        with pytest.raises(FileNotFoundError):
            self.environment.list(f"{self.root}/absent")
        with pytest.raises(NotADirectoryError):
            self.environment.list(f"{self.root}/a")

    def test_make_directory_makes_parents_and_may_be_repeated(self) -> None:
        path = f"{self.root}/one/two/three"
        self.environment.make_directory(path)
        self.write("one/two/three/file", b"x")
        self.environment.make_directory(path)
        assert self.environment.list(path) == ["file"]
        with pytest.raises(FileExistsError):
            self.environment.make_directory(path + "/file")
        self.environment.sync_directory(path)

    def test_sync_directory_wants_a_directory(self) -> None:
        with pytest.raises(FileNotFoundError):
            self.environment.sync_directory(f"{self.root}/absent")
        with pytest.raises(NotADirectoryError):
            self.environment.sync_directory(self.write("a", b""))

    def test_rename_replaces(self) -> None:
        a, b = self.write("a", b"a"), self.write("b", b"b")
        reader = self.environment.open(b, "r")
        self.environment.rename(a, b)
        assert self.environment.list(self.root) == ["b"]
        assert self.read(b) == b"a"
        assert reader.read_at(0, 10) == b"b"
        reader.close()
        with pytest.raises(FileNotFoundError):
            self.environment.rename(a, b)

    def test_rename_moves_between_directories(self) -> None:
        a = self.write("a", b"a")
        self.environment.make_directory(f"{self.root}/sub")
        self.environment.rename(a, f"{self.root}/sub/b")
        assert self.read(f"{self.root}/sub/b") == b"a"
        assert self.environment.list(self.root) == ["sub"]

    def test_rename_of_a_directory_takes_its_files_along(self) -> None:
        self.environment.make_directory(f"{self.root}/one")
        self.write("one/file", b"x")
        self.environment.rename(f"{self.root}/one", f"{self.root}/two")
        assert self.read(f"{self.root}/two/file") == b"x"
        with pytest.raises(OSError) as caught:
            self.environment.rename(f"{self.root}/two", f"{self.root}/two/inside")
        assert caught.value.errno == errno.EINVAL

    def test_link_gives_a_second_name_and_never_replaces(self) -> None:
        a, b = self.write("a", b"a"), f"{self.root}/b"
        self.environment.link(a, b)
        writer = self.environment.open(a, "w")
        writer.write_at(0, b"both")
        writer.close()
        assert self.read(b) == b"both"
        with pytest.raises(FileExistsError) as caught:
            self.environment.link(a, b)
        assert caught.value.errno == errno.EEXIST
        self.environment.unlink(a)
        assert self.read(b) == b"both"
        with pytest.raises(FileNotFoundError):
            self.environment.link(a, f"{self.root}/c")

    def test_rename_onto_another_name_of_the_same_file_changes_nothing(self) -> None:
        a, b = self.write("a", b"a"), f"{self.root}/b"
        self.environment.link(a, b)
        self.environment.rename(a, b)
        assert self.environment.list(self.root) == ["a", "b"]

    def test_unlink_leaves_what_is_open(self) -> None:
        path = self.write("a", b"still here")
        file = self.environment.open(path, "r")
        self.environment.unlink(path)
        assert not self.environment.exists(path)
        assert file.read_at(0, 100) == b"still here"
        file.close()
        self.write("a", b"another")
        with pytest.raises(FileNotFoundError):
            self.environment.unlink(f"{self.root}/absent")

    def test_copy(self) -> None:
        data = random.Random(2).randbytes(2_500_000)
        a, b = self.write("a", data), f"{self.root}/b"
        self.environment.copy(a, b)
        assert self.read(b) == data
        with pytest.raises(FileExistsError):
            self.environment.copy(a, b)
        with pytest.raises(FileNotFoundError):
            self.environment.copy(f"{self.root}/absent", f"{self.root}/c")
        assert self.environment.list(self.root) == ["a", "b"]

    # Locks

    def test_a_lock_is_exclusive_and_names_its_holder(self) -> None:
        path = f"{self.root}/LOCK"
        assert not self.environment.lock_is_held(path)
        lock = self.environment.lock(path, b"pid 17")
        assert self.environment.lock_is_held(path)
        with pytest.raises(LockHeld) as caught:
            self.environment.lock(path, b"pid 18")
        assert caught.value.content == b"pid 17"
        lock.release()
        lock.release()
        assert not self.environment.lock_is_held(path)
        again = self.environment.lock(path, b"19")
        assert self.read(path) == b"19"
        again.release()

    def test_a_lock_has_one_holder_whatever_name_it_is_asked_by(self) -> None:
        path, other = f"{self.root}/LOCK", f"{self.root}/OTHER"
        lock = self.environment.lock(path, b"1")
        self.environment.link(path, other)
        with pytest.raises(LockHeld):
            self.environment.lock(other, b"2")
        assert self.environment.lock_is_held(other)
        lock.release()
        self.environment.lock(other, b"2").release()

    def test_a_lock_whose_file_was_unlinked_does_not_block_a_new_one(self) -> None:
        path = f"{self.root}/pin"
        lock = self.environment.lock(path, b"1")
        self.environment.unlink(path)
        assert not self.environment.lock_is_held(path)
        second = self.environment.lock(path, b"2")
        lock.release()
        assert self.environment.lock_is_held(path)
        second.release()

    def test_of_many_threads_one_gets_the_lock(self) -> None:
        won: list[object] = []
        barrier = threading.Barrier(8)

        def contend(i: int) -> None:
            barrier.wait()
            with contextlib.suppress(LockHeld):
                won.append(self.environment.lock(f"{self.root}/LOCK", b"%d" % i))

        run_threads([lambda i=i: contend(i) for i in range(8)])
        assert len(won) == 1

    # Threads

    def test_threads_share_a_file(self) -> None:
        file = self.environment.open(f"{self.root}/a", "x")

        def work(i: int) -> None:
            for k in range(50):
                offset = (k * 8 + i) * 64
                file.write_at(offset, bytes([i]) * 64)
                assert file.read_at(offset, 64) == bytes([i]) * 64

        run_threads([lambda i=i: work(i) for i in range(8)])
        expected = b"".join(bytes([i]) * 64 for i in range(8)) * 50
        assert file.read_at(0, file.size()) == expected
        file.close()

    # Time and randomness

    def test_time_and_randomness(self) -> None:
        environment = self.environment
        assert isinstance(environment.now(), int)
        assert 1_600_000_000_000_000 < environment.now() < 4_000_000_000_000_000
        readings = [environment.monotonic() for _ in range(100)]
        assert readings == sorted(readings)
        assert len(environment.random_bytes(16)) == 16
        assert len({environment.random_bytes(16) for _ in range(100)}) == 100


def run_threads(tasks: list[object]) -> None:
    """Run them together; the first failure is raised."""
    failures: list[BaseException] = []

    def guarded(task: object) -> None:
        try:
            task()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class TestPosix(Contract):
    @pytest.fixture(autouse=True)
    def on_a_real_directory(self, tmp_path: Path) -> None:
        self.environment, self.root = PosixEnvironment(), str(tmp_path)


class TestMemory(Contract):
    @pytest.fixture(autouse=True)
    def in_memory(self) -> None:
        self.environment, self.root = MemoryEnvironment(), "/data/base"
        self.environment.make_directory(self.root)

    def test_each_is_a_disk_of_its_own_and_not_persistent(self) -> None:
        path = self.write("a", b"a")
        assert not self.environment.is_persistent
        assert not MemoryEnvironment().exists(path)

    def test_relative_paths_and_wide_items_are_refused(self) -> None:
        refuses_relative_paths(self.environment)
        refuses_wide_items(self.environment.open(self.write("a", b"a"), "w"))

    def test_a_file_without_names_is_let_go(self) -> None:
        for i in range(3):
            self.environment.unlink(self.write(f"{i}", b"x" * 1000))
        self.write("a", b"a")
        self.environment.rename(self.write("b", b"b"), f"{self.root}/a")
        assert len(self.environment._inodes) == 1

    def test_the_clock_never_steps_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = self.environment.now()
        monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000)
        assert self.environment.now() >= before


class TestSimulated(Contract):
    @pytest.fixture(autouse=True)
    def on_a_simulated_disk(self) -> None:
        self.environment, self.root = SimulatedDisk(seed=1), "/data/base"
        self.environment.make_directory(self.root)

    def test_counts_as_persistent(self) -> None:
        assert self.environment.is_persistent

    def test_relative_paths_and_wide_items_are_refused(self) -> None:
        refuses_relative_paths(self.environment)
        refuses_wide_items(self.environment.open(self.write("a", b"a"), "w"))


def refuses_relative_paths(environment: Environment) -> None:
    with pytest.raises(OSError) as caught:
        environment.open("relative", "x")
    assert caught.value.errno == errno.EINVAL


def refuses_wide_items(file: File) -> None:
    with pytest.raises(TypeError, match="one byte"):
        file.write_at(0, memoryview(b"12345678").cast("I"))
