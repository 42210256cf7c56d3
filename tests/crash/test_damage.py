"""Damage planted in every kind of file: a typed error or the same answers, never a wrong one.

Which damages there are is in `damage`, what is allowed to come of them in `damage_check`; all bits
of all files are turned by `make stress`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from engramdb.errors import CorruptionError, IncompatibleFormatError
from engramdb.lsm import StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.crash.damage import Damage, damages, flips, version_of
from tests.crash.damage_check import (
    ERROR,
    MIXED,
    PREFIX,
    SAME,
    DamageCheck,
    answers_of,
    read_everything,
)
from tests.crash.databases import (
    DATABASE_OPTIONS,
    MAKERS,
    contents_of,
    database,
    disk_of,
    kind_of,
)
from tests.crash.driver import PATH

PARTS = 8
KINDS = {"MANIFEST", "wal", "seg", "mark", "vec", "VISIBLE", "LOCK"}


def part_of(found: Iterator[Damage], part: int) -> Iterator[Damage]:
    return islice(found, part, None, PARTS)


def test_every_kind_of_file_is_there() -> None:
    for root in ("/db", "/fork", "/checkpoint"):
        files = contents_of(database("full_database")[1])
        assert {kind_of(path) for path in files if path.startswith(f"{root}/")} == KINDS


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", ["crashed_database", "full_database"])
def test_one_bit_of_each_byte_flips(name: str, part: int) -> None:
    check = DamageCheck(name)
    for damage in part_of(filter(check.matters, flips(name, every_bit=False)), part):
        check(damage, looks=1)
    assert check.outcomes[ERROR] > 500
    assert check.outcomes[SAME]
    assert not check.outcomes[MIXED]


@pytest.mark.parametrize("name", MAKERS)
def test_what_nobody_reads_may_be_anything(name: str) -> None:
    assert DamageCheck(name).check_untouched() > 1000


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "full_database"])
def test_sectors_lengths_and_files(name: str) -> None:
    check = DamageCheck(name)
    for damage in damages(name):
        check(damage, looks=1 + (name in ("crashed_database", "power_cut_database")))
    assert check.outcomes[ERROR] > 500
    assert check.outcomes[SAME] > 100


@pytest.mark.parametrize("part", range(PARTS))
def test_sectors_lengths_and_files_of_a_full_database(part: int) -> None:
    check = DamageCheck("full_database")
    for damage in part_of(damages("full_database"), part):
        check(damage, looks=1)
    assert check.outcomes[ERROR] > 100


def test_the_exception_is_reached_and_no_wider() -> None:
    """After a power cut without VISIBLE nothing proves the last group of commits; the header of
    each record proves those before it."""
    check = DamageCheck("power_cut_database")
    log = "/db/wal/000009.wal"
    for damage in flips("power_cut_database", every_bit=False):
        if damage.path == log and check.matters(damage):
            check(damage, looks=1)
    assert check.outcomes[PREFIX] and check.outcomes[ERROR]
    right = check.right[PATH]
    last = max(
        answers_of(_damaged("power_cut_database", damage), PATH).last_seq
        for damage in [Damage("missing", log), Damage("truncate", log, 64)]
    )
    assert last < right.last_seq - 1, "a whole log goes unnoticed where VISIBLE is missing too"


def _damaged(name: str, damage: Damage) -> SimulatedDisk:
    disk = disk_of(name)
    damage.apply(disk)
    return disk


def test_a_damage_prints_what_makes_it_again() -> None:
    for name in ("crashed_database", "sibling_database"):
        for damage in [*islice(damages(name), 0, None, 7), *islice(flips(name), 0, None, 999)]:
            again = eval(repr(damage), {"Damage": Damage})
            assert again == damage
            one, two = _damaged(name, damage), _damaged(name, again)
            assert one.trace.events == two.trace.events != []


def test_an_older_version_of_a_file_is_what_it_once_held() -> None:
    visible = [
        damage
        for damage in damages("crashed_database")
        if damage.kind == "copy" and damage.path == "/db/VISIBLE" and damage.at >= 0
    ]
    versions = {version_of(damage.donor, damage.other, damage.at) for damage in visible}
    assert len(versions) == len(visible) > 3


@pytest.mark.parametrize("kind", ["seg", "vec"])
def test_a_file_rots_under_an_open_database(kind: str) -> None:
    """What was read before may still be answered from memory; what is read now is checked."""
    right = answers_of(disk_of("closed_database"), PATH)
    noticed = 0
    for damage in islice(flips("closed_database", every_bit=False), 0, None, 9):
        if kind_of(damage.path) != kind:
            continue
        disk = disk_of("closed_database")
        engine = StorageEngine.open(PATH, DATABASE_OPTIONS, environment=disk)
        damage.apply(disk)
        try:
            assert read_everything(engine) == right, f"{damage!r}: wrong answers"
        except (CorruptionError, IncompatibleFormatError):
            noticed += 1
        assert isinstance(engine.verify().problems, tuple)
        engine._core.close("read")
    assert noticed > 10
