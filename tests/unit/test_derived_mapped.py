"""Large arrays of derived data: mapped, checked where they are touched, valid as long as anybody
looks at them. And what else the store tells: names, and removing one."""

from __future__ import annotations

import gc
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engramdb.errors import ClosedError, CorruptionError, InvalidInputError, StoragePoisonedError
from engramdb.lsm import StorageEngine
from engramdb.lsm.chunks import Chunks
from engramdb.lsm.container import CHUNK_BYTES
from engramdb.lsm.derived import Loaded, Values
from engramdb.lsm.environment import Environment, MemoryEnvironment
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.mapped import Mapped
from tests.unit.lsm_support import PATH, core_of, key, open_engine, put

FILE = f"{PATH}/derived/codes.drv"
VALUES: Values = {
    "codes": np.arange(300_000, dtype=np.float32).reshape(3000, 100),
    "starts": np.arange(7, dtype=np.int64),
    "rows": np.arange(70_000, dtype=np.uint32)[::-1],
    "text": b"bytes",
}
LARGE = ("codes", "rows")


def store(engine: StorageEngine, values: Values = VALUES, **more: Any) -> bool:
    derived = engine.derived
    return derived.store("codes", values, erasures=derived.erasures, **{"mapped": LARGE, **more})


def large(found: Loaded | None, name: str = "codes") -> Mapped:
    assert found is not None
    value = found[name]
    assert isinstance(value, Mapped)
    return value


def assert_same(found: Loaded | None, expected: Values = VALUES) -> None:
    assert found is not None and found.keys() == expected.keys()
    for name, value in expected.items():
        got = found[name]
        if isinstance(got, Mapped):
            got.check_all()
            assert got.is_checked
            got = got.array
        if isinstance(value, bytes):
            assert got == value
        else:
            assert isinstance(got, np.ndarray) and not got.flags.writeable
            assert got.dtype == value.dtype and got.shape == value.shape and (got == value).all()


def offset_of(disk: SimulatedDisk, name: str = "codes") -> int:
    """Where a section begins, as its entry in the directory says."""
    content = disk.content(FILE)
    entry = content.rindex(name.encode().ljust(16, b"\0"))
    return int.from_bytes(content[entry + 40 : entry + 48], "little")


@pytest.mark.parametrize("kind", ["posix", "memory", "simulated"])
def test_what_was_stored_is_mapped_also_after_opening_again(kind: str, tmp_path: Path) -> None:
    disk: Environment | None = {"memory": MemoryEnvironment, "simulated": SimulatedDisk}.get(
        kind, lambda: None
    )()
    path = PATH if disk else str(tmp_path / "db")
    with open_engine(disk, path) as engine:
        assert store(engine)
        assert_same(engine.derived.load("codes"))
    for read_only in (False, True):
        with open_engine(disk, path, read_only=read_only) as engine:
            found = engine.derived.load("codes")
            assert not large(found).is_checked and not large(found, "rows").is_checked
            assert_same(found)
            assert isinstance(found["starts"] if found else None, np.ndarray)
            if kind == "posix":
                assert large(found).array.ctypes.data % 64 == 0
            assert engine.verify().notes == ()


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "u2", "i4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (5, 0), (1,), (3, 4, 5), (9, 40_000)])
def test_any_array_can_be_mapped(dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    value = rng.integers(0, 2, shape).astype(dtype)
    with open_engine(MemoryEnvironment()) as engine:
        assert store(engine, {"a": value, "b": b""}, mapped=["a"])
        assert_same(engine.derived.load("codes"), {"a": value, "b": b""})
        assert engine.verify().notes == () and engine.derived.unusable == 0


@pytest.mark.parametrize(
    ("values", "mapped", "argument"),
    [
        ({"a": np.zeros(2)}, ["b"], "mapped"),
        ({"a": b"bytes"}, ["a"], "mapped"),
        ({"a" * 12: np.zeros(2)}, ["a" * 12], "mapped"),
        ({"a": np.zeros(2), "a.sums": b""}, ["a"], "values"),
        ({"a": np.zeros(2, complex)}, ["a"], "values"),
    ],
)
def test_what_cannot_be_mapped_is_refused(values: Values, mapped: list[str], argument: str) -> None:
    disk = SimulatedDisk()
    with open_engine(disk) as engine, pytest.raises(InvalidInputError, match=argument):
        store(engine, values, mapped=mapped)
    assert not disk.exists(f"{PATH}/derived")


# Damage


@pytest.fixture
def disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    with open_engine(disk) as engine:
        assert store(engine)
    return disk


def test_only_what_is_touched_is_checked_and_damage_is_noticed_there(disk: SimulatedDisk) -> None:
    disk.rot(FILE, 8 * (offset_of(disk) + 2 * CHUNK_BYTES + 77))
    damaged = 2 * CHUNK_BYTES // 400 + 3
    with open_engine(disk) as engine:
        codes = large(engine.derived.load("codes"))
        codes.check(0, CHUNK_BYTES // 400)
        codes.check_rows(np.array([2999, 0, 5]))
        large(engine.derived.load("codes"), "rows").check_all()
        for _ in range(2):
            with pytest.raises(CorruptionError, match="codes"):
                codes.check(damaged, damaged + 1)
            with pytest.raises(CorruptionError):
                codes.check_rows(np.array([damaged, 0]))
            with pytest.raises(CorruptionError):
                codes.check_all()
        assert not codes.is_checked
        (note,) = engine.verify().notes
        assert "codes.drv" in note and engine.verify().ok
        assert store(engine) and engine.verify().notes == ()
        assert_same(engine.derived.load("codes"))


def test_any_flipped_bit_is_noticed_on_loading_or_on_checking() -> None:
    values: Values = {"a": np.arange(40, dtype=np.uint16), "b": np.arange(3)}
    disk = SimulatedDisk()
    with open_engine(disk) as engine:
        assert store(engine, values, mapped=["a"])
        sound = disk.content(FILE)
        for bit in range(8 * len(sound)):
            disk.rot(FILE, bit)
            found = engine.derived.load("codes")
            if found is not None:
                with pytest.raises(CorruptionError):
                    large(found, "a").check_all()
            assert len(engine.verify().notes) == 1, bit
            disk.plant(FILE, sound)
        assert_same(engine.derived.load("codes"), values)


def test_any_other_length_means_none() -> None:
    disk = SimulatedDisk()
    with open_engine(disk) as engine:
        assert store(engine, {"a": np.arange(40)}, mapped=["a"])
        sound = disk.content(FILE)
        for length in range(len(sound)):
            disk.plant(FILE, sound[:length])
            assert engine.derived.load("codes") is None


def test_a_file_that_cannot_be_mapped_means_none(disk: SimulatedDisk) -> None:
    with open_engine(disk) as engine:
        disk.fail("map")
        assert engine.derived.load("codes") is None
        disk.heal()
        assert_same(engine.derived.load("codes"))


# How long it lasts


@pytest.mark.parametrize("kind", ["posix", "memory", "simulated"])
def test_it_stays_readable_when_the_file_is_replaced_or_gone(kind: str, tmp_path: Path) -> None:
    disk: Environment | None = {"memory": MemoryEnvironment, "simulated": SimulatedDisk}.get(
        kind, lambda: None
    )()
    engine = open_engine(disk, PATH if disk else str(tmp_path / "db"))
    put(engine, 1, b"x")
    assert store(engine)
    old = engine.derived.load("codes")
    large(old).check(0, 10)
    assert store(engine, {"codes": np.zeros(5)}, mapped=["codes"])
    new = engine.derived.load("codes")
    assert_same(old)
    assert engine.derived.remove("codes")
    again = engine.derived.load("codes")
    engine.purge([key(1)])
    engine.close()
    gc.collect()
    assert again is None
    assert_same(new, {"codes": np.zeros(5)})
    assert_same(old)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_the_map_goes_with_the_last_array(tmp_path: Path) -> None:
    def maps() -> int:
        return Path("/proc/self/maps").read_text().count("codes.drv")

    with open_engine(None, str(tmp_path / "db")) as engine:
        assert store(engine)
        found = engine.derived.load("codes")
        assert maps() == 1, "one for both arrays"
        rows = large(found, "rows").array
        part = rows[5:9]
        del found, rows
        gc.collect()
        assert maps() == 1 and part.tolist() == [69_994, 69_993, 69_992, 69_991]
        del part
        gc.collect()
        assert maps() == 0


def test_nothing_large_is_read_on_loading(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[object] = []
    real = Chunks._check
    monkeypatch.setattr(Chunks, "_check", lambda *given: (checked.append(given), real(*given)))
    with open_engine(disk) as engine:
        before = disk.calls["read_at"]
        found = engine.derived.load("codes")
        assert disk.calls["read_at"] - before < 20 and not checked
        large(found).check(0, 1)
        assert len(checked) == 1


# Names, and removing


def test_names_and_removing() -> None:
    disk = SimulatedDisk()
    with open_engine(disk) as engine:
        derived = engine.derived
        assert derived.names() == [] and not derived.remove("codes")
        for name in ("codes-2", "access", "codes-10"):
            assert derived.store(name, {}, erasures=0)
        disk.plant(f"{PATH}/derived/UPPER.drv", b"")
        disk.plant(f"{PATH}/derived/codes.txt", b"")
        disk.plant(f"{PATH}/derived/codes-damaged.drv", b"")
        assert derived.names() == ["access", "codes-10", "codes-2", "codes-damaged"]
        assert derived.names("codes-") == ["codes-10", "codes-2", "codes-damaged"]
        assert derived.names("x") == []
        assert derived.remove("codes-damaged") and not derived.remove("codes-damaged")
        assert derived.remove("codes-2") and derived.names("codes-") == ["codes-10"]
        with pytest.raises(InvalidInputError, match="name"):
            derived.remove("../x")
    with open_engine(disk, read_only=True) as reader:
        assert reader.derived.names("codes-") == ["codes-10"]
        assert not reader.derived.remove("codes-10")
        assert reader.derived.names("codes-") == ["codes-10"]
    for use in (lambda: engine.derived.names(), lambda: engine.derived.remove("access")):
        with pytest.raises(ClosedError):
            use()


def test_removing_may_fail_and_harms_nothing(disk: SimulatedDisk) -> None:
    with open_engine(disk) as engine:
        disk.fail("unlink")
        assert not engine.derived.remove("codes") and engine.derived.failed == 1
        disk.heal()
        put(engine, 1, b"x")
        assert_same(engine.derived.load("codes"))
        core_of(engine).poison = OSError("as if")
        assert not engine.derived.remove("codes")
        with pytest.raises(StoragePoisonedError):
            put(engine, 2, b"y")


def test_a_power_cut_leaves_what_is_sound_or_none() -> None:
    disk = SimulatedDisk(3)
    with open_engine(disk) as engine:
        rng = random.Random(1)
        for round_ in range(3):
            assert store(engine, {"a": np.full(500, round_)}, mapped=["a"])
            for _ in range(30):
                choice = [rng.choice((0, -1, rng.randrange(2**12))) for _ in range(40)]
                with open_engine(disk.crash(choice)) as after:
                    found = after.derived.load("codes")
                    if found is None:
                        continue
                    codes = large(found, "a")
                    try:
                        codes.check_all()
                    except CorruptionError:
                        continue
                    assert len(set(codes.array.tolist())) == 1
