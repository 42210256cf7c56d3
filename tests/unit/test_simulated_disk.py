"""The simulated disk really loses, tears and reorders, and is damaged as it is told to."""

from __future__ import annotations

import itertools
import random

import pytest

from engramdb.lsm.environment.crash import SIZE_ONLY, CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk, crash_image, random_choice
from engramdb.lsm.environment.trace import Acknowledged, Issued

LOST, KEPT = 0, -1


@pytest.fixture
def disk() -> SimulatedDisk:
    disk = SimulatedDisk(seed=1)
    disk.make_directory("/d")
    return disk


def durable_file(disk: SimulatedDisk, name: str, data: bytes) -> str:
    path = f"/d/{name}"
    file = disk.open(path, "x")
    file.write_at(0, data)
    file.sync()
    file.close()
    disk.sync_directory("/d")
    return path


def read(disk: SimulatedDisk, path: str) -> bytes | None:
    if not disk.exists(path):
        return None
    return disk.open(path, "r").read_at(0, 1 << 20)


def outcomes(disk: SimulatedDisk, *paths: str) -> set[object]:
    """What the files can hold after a power cut now, over all subsets of what is pending."""
    state = CrashState(disk.trace, len(disk.trace.events))
    found = set()
    for choice in itertools.product((LOST, KEPT), repeat=len(state.pending)):
        after = disk.crash(choice)
        contents = tuple(read(after, path) for path in paths)
        found.add(contents if len(paths) > 1 else contents[0])
    return found


# What a crash takes


def test_what_was_synced_stays(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"safe")
    assert outcomes(disk, path) == {b"safe"}


def test_what_was_not_synced_may_be_lost(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"old!")
    disk.open(path, "w").write_at(0, b"new")
    assert read(disk, path) == b"new!"
    assert outcomes(disk, path) == {b"old!", b"new!"}


def test_writes_arrive_in_any_order(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"")
    file = disk.open(path, "w")
    file.write_at(0, b"1")
    file.write_at(1, b"2")
    assert outcomes(disk, path) == {b"", b"1", b"\0" + b"2", b"12"}


def test_files_are_independent(disk: SimulatedDisk) -> None:
    a, b = durable_file(disk, "a", b"a"), durable_file(disk, "b", b"b")
    disk.open(a, "w").write_at(0, b"A")
    disk.open(b, "w").write_at(0, b"B")
    assert outcomes(disk, a, b) == {(b"a", b"b"), (b"A", b"b"), (b"a", b"B"), (b"A", b"B")}


def test_syncing_a_file_saves_no_other(disk: SimulatedDisk) -> None:
    a, b = durable_file(disk, "a", b"a"), durable_file(disk, "b", b"b")
    disk.open(a, "w").write_at(0, b"A")
    file = disk.open(b, "w")
    file.write_at(0, b"B")
    file.sync_data()
    assert outcomes(disk, a, b) == {(b"a", b"B"), (b"A", b"B")}


def test_a_truncation_is_pending_too(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"0123")
    file = disk.open(path, "w")
    file.truncate(1)
    file.write_at(1, b"x")
    assert outcomes(disk, path) == {b"0123", b"0", b"0x23", b"0x"}
    file.sync()
    assert outcomes(disk, path) == {b"0x"}


def test_a_write_is_torn_at_sectors_of_the_file(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"-" * 1600)
    disk.open(path, "w").write_at(500, b"+" * 1000)  # sectors 0, 1 and 2, the outer ones in part
    third = disk.crash([0b1000])
    assert read(third, path) == b"-" * 1024 + b"+" * 476 + b"-" * 100
    outer = disk.crash([0b1010])
    assert read(outer, path) == b"-" * 500 + b"+" * 12 + b"-" * 512 + b"+" * 476 + b"-" * 100
    assert read(disk.crash([0b1110]), path) == read(disk.crash([KEPT]), path)


def test_the_size_can_arrive_before_the_data(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"head")
    disk.open(path, "w").write_at(4, b"x" * 1000)
    assert read(disk.crash([SIZE_ONLY]), path) == b"head" + bytes(1000)
    assert read(disk.crash([0b010]), path) == b"head" + b"x" * 508
    assert read(disk.crash([0b011]), path) == b"head" + b"x" * 508 + bytes(492)


# Names


def test_a_new_name_needs_a_directory_sync(disk: SimulatedDisk) -> None:
    file = disk.open("/d/a", "x")
    file.write_at(0, b"x")
    file.sync()
    assert outcomes(disk, "/d/a") == {None, b"x"}
    disk.sync_directory("/d")
    assert outcomes(disk, "/d/a") == {b"x"}


def test_a_durable_name_does_not_save_the_data(disk: SimulatedDisk) -> None:
    disk.open("/d/a", "x").write_at(0, b"x")
    disk.sync_directory("/d")
    assert outcomes(disk, "/d/a") == {b"", b"x"}


def test_a_rename_is_atomic(disk: SimulatedDisk) -> None:
    durable_file(disk, "tmp", b"new")
    durable_file(disk, "a", b"old")
    disk.rename("/d/tmp", "/d/a")
    assert outcomes(disk, "/d/tmp", "/d/a") == {(b"new", b"old"), (None, b"new")}


def test_a_rename_brings_no_data_along(disk: SimulatedDisk) -> None:
    durable_file(disk, "a", b"old")
    disk.open("/d/tmp", "x").write_at(0, b"new")
    disk.rename("/d/tmp", "/d/a")
    disk.sync_directory("/d")
    assert outcomes(disk, "/d/a") == {b"", b"new"}


def test_a_chain_of_renames_never_doubles_a_file(disk: SimulatedDisk) -> None:
    durable_file(disk, "a", b"x")
    disk.rename("/d/a", "/d/b")
    disk.rename("/d/b", "/d/c")
    names = outcomes(disk, "/d/a", "/d/b", "/d/c")
    assert names == {(b"x", None, None), (None, b"x", None), (None, None, b"x")}


def test_different_names_reorder_and_the_same_name_does_not(disk: SimulatedDisk) -> None:
    durable_file(disk, "a", b"1")
    durable_file(disk, "b", b"2")
    disk.unlink("/d/a")
    disk.unlink("/d/b")
    disk.open("/d/a", "x")
    assert outcomes(disk, "/d/a", "/d/b") == {
        (first, second) for first in (b"1", None, b"") for second in (b"2", None)
    }


def test_a_link_and_an_unlink_are_pending(disk: SimulatedDisk) -> None:
    durable_file(disk, "a", b"x")
    disk.link("/d/a", "/d/b")
    disk.unlink("/d/a")
    assert outcomes(disk, "/d/a", "/d/b") == {
        (b"x", None),
        (b"x", b"x"),
        (None, None),
        (None, b"x"),
    }
    disk.sync_directory("/d")
    assert outcomes(disk, "/d/a", "/d/b") == {(None, b"x")}


def test_a_move_between_directories_is_durable_with_its_destination(disk: SimulatedDisk) -> None:
    disk.make_directory("/e")
    durable_file(disk, "a", b"x")
    disk.rename("/d/a", "/e/a")
    both = {(b"x", None), (None, b"x")}
    assert outcomes(disk, "/d/a", "/e/a") == both
    disk.sync_directory("/d")
    assert outcomes(disk, "/d/a", "/e/a") == both
    disk.sync_directory("/e")
    assert outcomes(disk, "/d/a", "/e/a") == {(None, b"x")}


def test_make_directory_is_durable_when_it_returns_and_not_before() -> None:
    disk = SimulatedDisk()
    disk.make_directory("/one/two")
    assert disk.crash([]).list("/one/two") == []
    found = set()
    for point in range(len(disk.trace.events) + 1):
        for fate in (LOST, KEPT):
            image = crash_image(disk.trace, point, [fate, fate])
            found.add((image.exists("/one"), image.exists("/one/two")))
    assert found == {(False, False), (True, False), (True, True)}


def test_a_file_in_a_lost_directory_is_lost(disk: SimulatedDisk) -> None:
    disk.make_directory("/d/sub")
    point = len(disk.trace.events)
    file = disk.open("/d/sub/a", "x")
    file.write_at(0, b"x")
    file.sync()
    disk.sync_directory("/d/sub")
    events = disk.trace.events
    del events[point - 1]  # the sync of /d that make_directory did
    assert not disk.crash([LOST]).exists("/d/sub")
    assert read(disk.crash([KEPT]), "/d/sub/a") == b"x"


# Images


def test_an_image_is_a_disk_of_its_own(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"old")
    first, second = disk.crash([]), disk.crash([])
    file = first.open(path, "w")
    view = file.map()
    file.write_at(0, b"new")
    assert (read(first, path), read(second, path), read(disk, path)) == (b"new", b"old", b"old")
    assert view == b"old"
    assert read(first.crash([]), path) == b"old"
    assert read(first.crash([KEPT]), path) == b"new"


def test_a_crash_releases_locks(disk: SimulatedDisk) -> None:
    disk.lock("/d/LOCK", b"1")
    disk.sync_directory("/d")
    after = disk.crash([])
    assert not after.lock_is_held("/d/LOCK")
    after.lock("/d/LOCK", b"2")


def test_fingerprints_tell_images_apart_and_equal_ones_together(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"same")
    file = disk.open(path, "w")
    file.write_at(0, b"same")  # changes nothing
    file.write_at(4, b"more")
    disk.open("/d/b", "x")
    state = CrashState(disk.trace, len(disk.trace.events))
    choices = list(itertools.product((LOST, KEPT), repeat=3))
    fingerprints = [state.image(choice).fingerprint for choice in choices]
    assert len(set(fingerprints)) == 4
    assert [state.image(choice).fingerprint for choice in choices] == fingerprints


def test_a_walk_along_the_trace_equals_jumping_to_each_point() -> None:
    rng = random.Random(5)
    disk = SimulatedDisk(seed=5)
    disk.make_directory("/d")
    do_at_random(disk, rng, steps=200)
    walking = CrashState(disk.trace)
    for point in range(0, len(disk.trace.events) + 1, 3):
        walking.advance_to(point)
        choice = random_choice(walking, rng)
        jumped = CrashState(disk.trace, point)
        assert walking.image(choice).fingerprint == jumped.image(choice).fingerprint


def test_what_a_killed_process_leaves_is_what_the_disk_showed() -> None:
    for seed in range(20):
        disk = SimulatedDisk(seed)
        disk.make_directory("/d")
        do_at_random(disk, random.Random(seed), steps=60)
        after = disk.crash([KEPT] * len(disk.trace.events))
        assert after.list("/d") == disk.list("/d")
        for name in disk.list("/d"):
            assert read(after, f"/d/{name}") == read(disk, f"/d/{name}")


def do_at_random(disk: SimulatedDisk, rng: random.Random, steps: int) -> None:
    for _ in range(steps):
        names = disk.list("/d")
        step = rng.randrange(9)
        path = f"/d/{rng.choice(names)}" if names else ""
        if step < 2 or not names:
            new = f"/d/{rng.randrange(12)}"
            if not disk.exists(new):
                disk.open(new, "x")
        elif step < 5:
            data = rng.randbytes(rng.randrange(1, 2000))
            disk.open(path, "w").write_at(rng.randrange(3000), data)
        elif step == 5:
            disk.open(path, "w").truncate(rng.randrange(3000))
        elif step == 6:
            disk.rename(path, f"/d/{rng.randrange(12)}")
        elif step == 7:
            disk.unlink(path)
        else:
            rng.choice([disk.open(path, "w").sync, lambda: disk.sync_directory("/d")])()


# Trace, clock, randomness


def test_markers_are_in_the_trace_in_order(disk: SimulatedDisk) -> None:
    disk.issue("a")
    disk.open("/d/a", "x")
    disk.acknowledge("a")
    first, _, last = disk.trace.events[-3:]
    assert (first, last) == (Issued("a"), Acknowledged("a"))
    state = CrashState(disk.trace, len(disk.trace.events) - 1)
    assert (state.issued, state.acknowledged) == (["a"], [])
    state.advance_to(len(disk.trace.events))
    assert state.acknowledged == ["a"]


def test_time_and_randomness_repeat_with_the_seed() -> None:
    one, two, other = SimulatedDisk(1), SimulatedDisk(1), SimulatedDisk(2)
    assert [one.now() for _ in range(3)] == [two.now() for _ in range(3)]
    assert one.random_bytes(16) == two.random_bytes(16) != other.random_bytes(16)
    assert one.crash([]).random_bytes(16) != SimulatedDisk(1).random_bytes(16)
    assert one.crash([]).now() > one.now()


def test_the_clock_can_step_back_and_monotonic_does_not(disk: SimulatedDisk) -> None:
    before, steady = disk.now(), disk.monotonic()
    disk.step_clock(-3_600_000_000)
    assert disk.now() < before
    assert disk.monotonic() > steady


def test_calls_are_counted_by_kind(disk: SimulatedDisk) -> None:
    disk.calls.clear()
    file = disk.open("/d/a", "x")
    file.write_at(0, b"x")
    file.write_at(1, b"y")
    file.sync_data()
    disk.sync_directory("/d")
    assert disk.calls == {"open": 1, "write_at": 2, "sync_data": 1, "sync_directory": 1}


# Damage


def test_rot_flips_one_durable_bit(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"\0\0\0")
    disk.rot(path, 9)
    assert read(disk, path) == b"\0\2\0"
    assert outcomes(disk, path) == {b"\0\2\0"}
    with pytest.raises(ValueError, match="3 bytes"):
        disk.rot(path, 24)


def test_planted_bytes_are_durable_at_once_under_every_name(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"old")
    disk.link(path, "/d/b")
    disk.sync_directory("/d")
    disk.open(path, "w").write_at(0, b"pending")
    calls = disk.calls.copy()
    disk.plant(path, b"planted")
    assert disk.content("/d/b") == b"planted"
    assert disk.calls == calls
    assert outcomes(disk, path, "/d/b") == {(b"planted", b"planted")}


def test_a_planted_name_is_durable_at_once(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"old")
    disk.plant(path, None)
    disk.plant("/d/b", b"new")
    assert disk.list("/d") == ["b"]
    assert outcomes(disk, path, "/d/b") == {(None, b"new")}
    with pytest.raises(FileNotFoundError):
        disk.plant("/d/c", None)
    with pytest.raises(IsADirectoryError):
        disk.plant("/d", None)


def test_what_was_pending_for_a_planted_name_has_happened(disk: SimulatedDisk) -> None:
    path = durable_file(disk, "a", b"old")
    disk.rename(path, "/d/b")
    disk.plant("/d/b", None)
    assert outcomes(disk, path, "/d/b") == {(None, None)}


def test_building_images_is_fast(disk: SimulatedDisk) -> None:
    """Not a benchmark: only that no image copies what it shares."""
    durable_file(disk, "large", bytes(50_000_000))
    disk.open("/d/small", "x").write_at(0, b"x")
    state = CrashState(disk.trace, len(disk.trace.events))
    images = [state.image([i % 2, i // 2 % 2]) for i in range(1000)]
    large = {
        id(content.data) for i in images for content in i.files.values() if len(content.data) > 9
    }
    assert len(large) == 1
