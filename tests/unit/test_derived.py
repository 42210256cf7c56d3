"""The store for derived data: it keeps what it can, loses it without harm, and never gives anything
else than what was stored."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engramdb.errors import (
    ClosedError,
    InvalidInputError,
    StoragePoisonedError,
)
from engramdb.lsm import StorageEngine, repair
from engramdb.lsm import derived as module
from engramdb.lsm.derived import Derived, Loaded, Values
from engramdb.lsm.environment import Environment, MemoryEnvironment
from engramdb.lsm.environment.crash import EVERYTHING, CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk, random_choice, reboot
from tests.unit.lsm_support import PATH, contents, core_of, key, open_engine, put, vec

FILE = f"{PATH}/derived/access.drv"
VALUES: Values = {
    "keys": np.arange(48, dtype=np.uint8).reshape(3, 16),
    "counts": np.array([1, 2, 2**63], np.uint64),
    "none": np.empty((0, 10), np.int64),
    "flag": np.array([True, False]),
    "scalar": np.array(0.5),
    "text": b"bytes",
    "nothing": b"",
}


def store(derived: Derived, values: Values = VALUES, name: str = "access", **more: Any) -> bool:
    return derived.store(name, values, erasures=derived.erasures, **more)


def assert_same(found: Values | Loaded | None, expected: Values = VALUES) -> None:
    assert found is not None and found.keys() == expected.keys()
    for name, value in expected.items():
        got = found[name]
        if isinstance(value, bytes):
            assert got == value
        else:
            assert isinstance(got, np.ndarray)
            assert got.dtype == value.dtype and got.shape == value.shape
            assert (got == value).all() and not got.flags.writeable


def filled(disk: Environment) -> StorageEngine:
    engine = open_engine(disk)
    put(engine, 1, b"one", vec(1, 2))
    engine.flush()
    assert store(engine.derived)
    return engine


@pytest.mark.parametrize("kind", ["posix", "memory", "simulated"])
def test_what_was_stored_is_loaded_also_after_opening_again(kind: str, tmp_path: Path) -> None:
    disk: Environment | None = {"memory": MemoryEnvironment, "simulated": SimulatedDisk}.get(
        kind, lambda: None
    )()
    path = PATH if disk else str(tmp_path / "db")
    with open_engine(disk, path) as engine:
        assert engine.derived.load("access") is None
        assert store(engine.derived)
        assert_same(engine.derived.load("access"))
        assert store(engine.derived, {"other": b"x"}, "codes-000021")
    with open_engine(disk, path) as engine:
        assert_same(engine.derived.load("access"))
        assert_same(engine.derived.load("codes-000021"), {"other": b"x"})
        assert store(engine.derived, {"n": np.zeros(2)})
        assert_same(engine.derived.load("access"), {"n": np.zeros(2)})
        assert engine.stats()["derived_files"] == 2
        assert engine.stats()["derived_unusable"] == engine.stats()["derived_failed"] == 0
        assert engine.verify().notes == ()
    with open_engine(disk, path, read_only=True) as reader:
        assert_same(reader.derived.load("access"), {"n": np.zeros(2)})
        assert not store(reader.derived, {})


def test_nothing_is_made_before_something_is_stored() -> None:
    disk = SimulatedDisk()
    with open_engine(disk) as engine:
        assert engine.derived.load("access") is None and engine.stats()["derived_files"] == 0
        engine.purge([key(1)])
    assert not disk.exists(f"{PATH}/derived")


def test_storing_syncs_no_file_and_writes_no_manifest() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    before, number = disk.calls.copy(), core_of(engine).manifest.number
    assert store(engine.derived)
    made = disk.calls - before
    assert made["sync"] == made["sync_data"] == made["sync_directory"] == 0
    assert core_of(engine).manifest.number == number and disk.list(f"{PATH}/tmp") == []
    engine.close()


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a.b", "ä", "a" * 101, "a\n", 3, None])
def test_names_are_checked(name: Any) -> None:
    with open_engine(MemoryEnvironment()) as engine:
        with pytest.raises(InvalidInputError, match="name"):
            engine.derived.load(name)
        with pytest.raises(InvalidInputError, match="name"):
            store(engine.derived, {}, name)


@pytest.mark.parametrize(
    "values",
    [
        {"a": np.array(["text"])},
        {"a": np.array([object()])},
        {"a": np.zeros(2, "M8[us]")},
        {"a": np.zeros(2, complex)},
        {"contents": b""},
        {"a" * 17: b""},
        {"Ä": b""},
    ],
)
def test_values_are_checked(values: Values) -> None:
    disk = SimulatedDisk()
    with open_engine(disk) as engine, pytest.raises(InvalidInputError, match="values"):
        store(engine.derived, values)
    assert not disk.exists(f"{PATH}/derived")


def test_big_endian_and_strided_arrays_come_back_equal() -> None:
    matrix = np.arange(12, dtype=">i4").reshape(3, 4).T
    with open_engine(MemoryEnvironment()) as engine:
        assert store(engine.derived, {"a": matrix})
        assert_same(engine.derived.load("access"), {"a": matrix.astype("<i4")})


def test_another_stamp_means_none() -> None:
    with open_engine(SimulatedDisk()) as engine:
        assert store(engine.derived, stamp=b"of file 21")
        assert engine.derived.load("access") is None
        assert engine.derived.load("access", stamp=b"of file 22") is None
        assert_same(engine.derived.load("access", stamp=b"of file 21"))
        assert engine.stats()["derived_unusable"] == 2


# Damage


def test_any_flipped_bit_means_none() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    sound = disk.content(FILE)
    for bit in range(8 * len(sound)):
        disk.rot(FILE, bit)
        assert engine.derived.load("access") is None, f"bit {bit} of {8 * len(sound)}"
        disk.plant(FILE, sound)
    assert_same(engine.derived.load("access"))
    assert engine.derived.unusable == 8 * len(sound)
    engine.close()


def test_any_other_length_means_none() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    sound = disk.content(FILE)
    for length in range(len(sound)):
        disk.plant(FILE, sound[:length])
        assert engine.derived.load("access") is None, length
    for more in (b"\0", sound, bytes(64)):
        disk.plant(FILE, sound + more)
        assert engine.derived.load("access") is None
    engine.close()


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_mean_none(seed: int) -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    rng = random.Random(seed)
    sound = disk.content(FILE)
    start = rng.randrange(len(sound))
    disk.plant(FILE, sound[:start] + rng.randbytes(rng.randrange(1, 300)))
    assert engine.derived.load("access") is None
    assert len(engine.verify().notes) == 1
    engine.close()


def test_a_file_of_another_name_or_database_means_none() -> None:
    disk, other = SimulatedDisk(1), SimulatedDisk(2)
    engine = filled(disk)
    filled(other).close()
    disk.plant(f"{PATH}/derived/codes.drv", disk.content(FILE))
    assert engine.derived.load("codes") is None
    disk.plant(FILE, other.content(FILE))
    assert engine.derived.load("access") is None
    assert engine.stats()["derived_unusable"] == 2
    report = engine.verify()
    assert report.ok and len(report.notes) == 2 and "belongs elsewhere" in report.notes[0]
    assert store(engine.derived)
    assert_same(engine.derived.load("access"))
    engine.close()


@pytest.mark.parametrize(
    "shape", [(-1, -2), (2**62, 0), (2**47, 2**47, 0), (1,) * 70 + (2,), (3,), ()]
)
def test_forged_shapes_mean_none(shape: tuple[int, ...]) -> None:
    disk = MemoryEnvironment()
    engine = filled(disk)
    forged = np.zeros(0 if 0 in shape else 2, np.uint8)

    def contents_of(values: object, stamp: bytes, mapped: object) -> Any:
        entry = module._Entry("a", "|u1", shape)
        return {"a": forged.data}, module._Contents(b"", [entry])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_checked", contents_of)
        assert store(engine.derived)
    assert engine.derived.load("access") is None and engine.derived.unusable == 1
    engine.close()


def test_unknown_files_break_nothing() -> None:
    disk = SimulatedDisk()
    filled(disk).close()
    for name in ("notes.txt", "UPPER.drv", ".drv", "access.drv~"):
        disk.plant(f"{PATH}/derived/{name}", b"anything")
    with open_engine(disk) as engine:
        assert_same(engine.derived.load("access"))
        report = engine.verify()
        assert report.ok and len(report.notes) == 4
        engine.purge([key(1)])
        assert disk.list(f"{PATH}/derived") == ["access.drv~", "notes.txt"]
    disk.plant(f"{PATH}/tmp/000099.drv", b"left over")
    with open_engine(disk):
        assert disk.list(f"{PATH}/tmp") == []


def test_a_file_in_the_place_of_the_directory_breaks_nothing() -> None:
    disk = SimulatedDisk()
    open_engine(disk).close()
    disk.plant(f"{PATH}/derived", b"a file")
    with open_engine(disk) as engine:
        assert engine.derived.load("access") is None and not store(engine.derived)
        assert engine.verify().ok
        assert engine.stats()["derived_failed"] == 1
        put(engine, 1, b"one")
        engine.purge([key(1)])


# Failures


def test_any_call_may_fail_when_it_is_stored() -> None:
    clean = SimulatedDisk()
    engine = filled(clean)
    before = clean.calls.copy()
    store(engine.derived, {"other": b"x" * 600})
    calls = clean.calls - before
    engine.close()
    assert calls["write_at"] >= 3 and calls["rename"] == 1
    for kind, count in calls.items():
        for nth in range(1, count + 1):
            for partial in (0, 7):
                disk = SimulatedDisk()
                engine = filled(disk)
                disk.fail(kind, nth, partial=partial)
                stored = store(engine.derived, {"other": b"x" * 600})
                disk.heal()
                found = engine.derived.load("access")
                assert_same(found, {"other": b"x" * 600} if stored else VALUES)
                assert disk.list(f"{PATH}/tmp") == [] and engine.derived.failed == (not stored)
                put(engine, 2, b"two")  # it has poisoned nothing
                assert store(engine.derived)
                engine.close()


def test_nothing_is_stored_once_a_write_has_failed() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    disk.fail("sync_data", sticky=True)
    with pytest.raises(StoragePoisonedError):
        put(engine, 2, b"two")
    assert not store(engine.derived, {})
    assert_same(engine.derived.load("access"))
    engine.close()


def test_after_close_it_is_closed() -> None:
    engine = filled(SimulatedDisk())
    engine.close()
    with pytest.raises(ClosedError):
        engine.derived.load("access")
    with pytest.raises(ClosedError):
        store(engine.derived)


# Power cuts


def test_a_power_cut_at_any_point_leaves_the_old_values_the_new_ones_or_none() -> None:
    disk = SimulatedDisk(3)
    engine = open_engine(disk)
    put(engine, 1, b"one", vec(1, 2))
    engine.flush()
    held = contents(engine.latest())
    first = len(disk.trace.events)
    versions: list[Values] = [{"n": np.full(200, i), "text": b"v%d" % i * 99} for i in range(3)]
    for values in versions:
        assert store(engine.derived, values)
    rng = random.Random(5)
    state = CrashState(disk.trace, first)
    outcomes = set()
    for point in range(first, len(disk.trace.events) + 1):
        state.advance_to(point)
        choices = [[], [EVERYTHING] * len(state.pending)]
        choices += [random_choice(state, rng) for _ in range(30)]
        for choice in choices:
            left = reboot(disk.trace, state.image(choice))
            with open_engine(left) as after:
                found = after.derived.load("access")
                numbers = [i for i in range(3) if found and found["text"] == b"v%d" % i * 99]
                outcomes.add(tuple(numbers))
                if found is not None:
                    assert_same(found, versions[numbers[0]])
                assert contents(after.latest()) == held and after.verify().ok
                assert left.list(f"{PATH}/tmp") == []
                assert store(after.derived)
                assert_same(after.derived.load("access"))
    assert outcomes == {(), (0,), (1,), (2,)}
    engine.close()


# Erasure


def test_an_erasure_removes_all_of_it_and_takes_nothing_that_is_older() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    store(engine.derived, {"x": b"y"}, "codes-000021")
    disk.plant(f"{PATH}/tmp/000077.drv", b"a store that failed")
    disk.sync_directory(f"{PATH}/derived")  # as time does
    assert len(disk.crash(()).list(f"{PATH}/derived")) == 2
    erasures = engine.derived.erasures
    engine.purge([key(1)])
    assert disk.list(f"{PATH}/derived") == [] == disk.list(f"{PATH}/tmp")
    assert disk.crash(()).list(f"{PATH}/derived") == []
    assert not engine.derived.store("access", VALUES, erasures=erasures)
    assert disk.list(f"{PATH}/derived") == []
    assert store(engine.derived)
    engine.close()


def test_nothing_is_stored_while_an_erasure_goes_on() -> None:
    engine = filled(SimulatedDisk())
    with engine.derived.erasing():
        assert not store(engine.derived)
        with engine.derived.erasing():
            assert not store(engine.derived)
        assert not store(engine.derived)
    assert engine.derived.load("access") is None
    assert store(engine.derived)
    engine.close()


def test_an_erasure_that_cannot_remove_it_fails() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    disk.fail("unlink")
    with pytest.raises(StoragePoisonedError):
        engine.purge([key(1)])
    assert contents(engine.latest()), "it was not erased"
    engine.close()


# Copies and repair


def test_copies_begin_without() -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.checkpoint("/checkpoint")
    engine.fork("/fork")
    engine.close()
    for path in ("/checkpoint", "/fork"):
        assert not disk.exists(f"{path}/derived")
        with open_engine(disk, path) as copy:
            assert copy.derived.load("access") is None and store(copy.derived)


def test_a_repaired_database_has_none_and_a_sound_one_keeps_it() -> None:
    disk = SimulatedDisk()
    filled(disk).close()
    assert repair(disk, PATH).problems == ()
    assert disk.exists(FILE)
    name = disk.list(f"{PATH}/seg")[0]
    disk.rot(f"{PATH}/seg/{name}", 8 * 70)
    assert repair(disk, PATH, dry_run=True).problems and disk.exists(FILE)
    assert repair(disk, PATH).problems
    assert disk.list(f"{PATH}/derived") == []
    open_engine(disk).close()


def test_the_file_is_a_container_with_the_sum_of_its_name() -> None:
    disk = SimulatedDisk()
    filled(disk).close()
    magic, kind = struct.unpack_from("<8s4s", disk.content(FILE))
    assert (magic, kind) == (b"ENGRAMDB", b"DERV")
