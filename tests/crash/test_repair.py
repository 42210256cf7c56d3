"""Every planted fault, repaired: what is intact comes back, the rest is kept and named."""

from __future__ import annotations

from functools import cache
from itertools import islice

import pytest

from engramdb.errors import DatabaseLockedError, EngramError, InvalidInputError
from engramdb.lsm import StorageEngine, repair
from engramdb.lsm.environment.faults import ANY_CALL
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.crash.damage import Damage, damages, flips
from tests.crash.databases import MAKERS, PATH, contents_of, database, disk_of
from tests.crash.enumerator import enumerate_crashes
from tests.crash.repair_check import OPTIONS, check_repair, is_of_ours, truth_of, versions_of

truth = cache(lambda name: truth_of(disk_of(name)))

FLIPS_STEP = 83
DAMAGES_STEP = 11
PARTS = 4


def try_repair(name: str, damage: Damage) -> bool:
    """Damage a database and repair it. Returns whether nothing was lost."""
    disk = disk_of(name)
    damage.apply(disk)
    line = f"try_repair({name!r}, {damage!r})"
    try:
        return check_repair(disk, truth(name), {damage.path, damage.other}).is_complete
    except Exception as error:
        raise AssertionError(f"{line} -> {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("name", MAKERS)
def test_a_flipped_bit_costs_nothing(name: str) -> None:
    """One wrong bit anywhere is found by its checksum, and turned back."""
    tried = 0
    for damage in islice(flips(name, every_bit=False), 0, None, FLIPS_STEP):
        if is_of_ours(damage):
            tried += 1
            # behind the last proof a torn end cannot be told from damage; it may have a wrong bit
            assert try_repair(name, damage), damage
    assert tried > 30


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_intact_comes_back(name: str, part: int) -> None:
    complete = lossy = 0
    for damage in islice(damages(name), part, None, PARTS * DAMAGES_STEP):
        if is_of_ours(damage):
            if try_repair(name, damage):
                complete += 1
            else:
                lossy += 1
    assert complete + lossy > 3


def file_of(name: str, directory: str, which: int) -> str:
    """One of the files of a database: the first (0), the last (-1), ..."""
    start = f"{PATH}/{directory}"
    paths = [path for path in contents_of(database(name)[1]) if path.startswith(start)]
    return [path for path in paths if not path.endswith(".mark")][which]


CRASHED = (
    ("closed_database", Damage("zero", file_of("closed_database", "seg/", 0), 512)),
    ("closed_database", Damage("truncate", file_of("closed_database", "vec/", 0), 512)),
    ("crashed_database", Damage("zero", file_of("crashed_database", "wal/", 0), 512)),
    ("crashed_database", Damage("zero", file_of("crashed_database", "MANIFEST-", -1), 512)),
    ("full_database", Damage("missing", file_of("full_database", "seg/", -1))),
)


@pytest.mark.parametrize(("name", "damage"), CRASHED, ids=lambda value: str(value)[:60])
def test_the_power_goes_during_a_repair(name: str, damage: Damage) -> None:
    """It ends as it would have without the power cut, and keeps the same damaged bytes."""
    whole = disk_of(name)
    damage.apply(whole)
    report = repair(whole, PATH)
    with StorageEngine.open(PATH, OPTIONS, environment=whole) as engine:
        expected, last_seq = versions_of(engine), engine.last_seq
    kept = {whole.content(path) for path in report.moved}

    def workload(disk: SimulatedDisk, acknowledge: object) -> None:
        for directory in ("", "/wal", "/seg", "/vec", "/tmp"):
            disk.make_directory(PATH + directory)
        damaged = disk_of(name)
        damage.apply(damaged)
        for path in contents_of(database(name)[1]):
            if path.startswith(f"{PATH}/") and damaged.exists(path):
                disk.plant(path, damaged.content(path))
        disk.issue("damaged")
        repair(disk, PATH)
        disk.acknowledge("repaired")

    def check(disk: SimulatedDisk, issued: list[object], acknowledged: list[object]) -> None:
        if "damaged" not in issued:
            return
        again = repair(disk, PATH)
        if acknowledged:
            assert not again.problems
        engine = StorageEngine.open(PATH, OPTIONS, environment=disk, create=False)
        assert engine.verify().ok
        assert (versions_of(engine), engine.last_seq) == (expected, last_seq)
        engine.close()
        lost = {disk.content(f"{PATH}/lost/{file}") for file in disk.list(f"{PATH}/lost")}
        assert kept - lost <= {b""} or kept <= lost

    counts = enumerate_crashes(
        workload, check, states_max=400, seed=2, depth=2, name=f"repair of {damage!r}"
    )
    assert counts.distinct > 40, counts


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
def test_a_call_fails_during_a_repair(sticky: bool) -> None:
    """A typed error, the lock is free, and the next repair brings back the same."""
    damage = Damage("zero", file_of("full_database", "seg/", 0), 512)
    for nth in range(1, 2000, 3):
        disk = disk_of("full_database")
        damage.apply(disk)
        fault = disk.fail(ANY_CALL, nth, sticky=sticky)
        try:
            repair(disk, PATH)
        except EngramError:
            assert fault.fired
        disk.heal()
        known = truth("full_database")
        repair(disk, PATH)
        engine = StorageEngine.open(PATH, OPTIONS, environment=disk)
        present = versions_of(engine, known.versions).keys()
        gone = [at for at in known.versions.keys() - present if at[2] <= known.last_seq]
        assert all(known.homes[at][0] == damage.path for at in gone), f"{nth=} {gone}"
        engine.close()
        if not fault.fired:
            assert nth > 20
            return
    raise AssertionError("a repair takes very many calls")


def test_a_sound_database_is_left_alone() -> None:
    for name in MAKERS:
        disk = disk_of(name)
        before = len(disk.trace.events)
        report = repair(disk, PATH)
        assert report.problems == () and report.is_complete and report.moved == ()
        assert len(disk.trace.events) == before


def test_nobody_else_may_have_it_open() -> None:
    disk = disk_of("closed_database")
    with StorageEngine.open(PATH, OPTIONS, environment=disk):
        for dry_run in (True, False):
            with pytest.raises(DatabaseLockedError):
                repair(disk, PATH, dry_run=dry_run)


def test_there_must_be_something_to_repair() -> None:
    disk = SimulatedDisk()
    with pytest.raises(InvalidInputError, match="no database"):
        repair(disk, "/nothing")
    disk.make_directory("/empty")
    with pytest.raises(InvalidInputError, match="no database"):
        repair(disk, "/empty")
    assert disk.list("/empty") in ([], ["LOCK"])


def test_all_manifests_are_gone() -> None:
    """Pins and policy are, too; no version is, and the bulk load finds its number again."""
    for name in ("closed_database", "crashed_database", "published_database"):
        known = truth(name).versions
        disk = disk_of(name)
        for path in contents_of(database(name)[1]):
            if path.startswith(f"{PATH}/MANIFEST-"):
                disk.plant(path, None)
        report = repair(disk, PATH)
        engine = StorageEngine.open(PATH, OPTIONS, environment=disk)
        found = versions_of(engine, known)
        assert report.settings_of == 0 and not report.is_complete
        assert {at: found[at][1:] for at in known} == {
            at: version[1:] for at, version in known.items()
        }
        engine.close()
