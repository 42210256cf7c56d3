"""`verify` finds every fault that is planted beneath an open database, in each kind of file."""

from __future__ import annotations

from functools import cache
from itertools import islice

import pytest

from engramdb.lsm import StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk, reboot
from engramdb.lsm.environment.trace import Image
from tests.crash.damage import Damage, damages, flips
from tests.crash.damage_check import mixes_copies
from tests.crash.databases import (
    CHECKPOINT,
    DATABASE_OPTIONS,
    MAKERS,
    PATH,
    disk_of,
    image_of,
    kind_of,
)

FLIPS_STEP = 23
DAMAGES_STEP = 5
UNCHECKED = ("VISIBLE", "LOCK")  # a power cut may leave anything of these, and does no harm


@cache
def opened(name: str) -> tuple[SimulatedDisk, Image]:
    """The disk and what is on it while the database is open: what opening removes is gone."""
    disk = disk_of(name)
    StorageEngine.open(PATH, DATABASE_OPTIONS, environment=disk)
    return disk, image_of(disk)


def finds(name: str, damage: Damage) -> bool | None:
    """Whether the damage is found; None if the file is none that counts, or nothing changes."""
    disk = reboot(opened(name)[0].trace, opened(name)[1])
    names = [damage.path, *([damage.other] if damage.kind.startswith("swap") else [])]
    if mixes_copies(damage):
        return None  # nobody can tell them apart
    if any(not disk.exists(path) or kind_of(path) in UNCHECKED for path in names):
        return None
    if damage.kind == "flip" and damage.at >= 8 * disk.size(damage.path):
        return None  # behind what opening has cut off
    if kind_of(damage.path) == "MANIFEST" and is_spare(damage, disk):
        return None
    engine = StorageEngine.open(PATH, DATABASE_OPTIONS, environment=disk)
    assert engine.verify().ok
    before = [disk.content(path) for path in names]
    damage.apply(disk)
    after = [disk.content(path) if disk.exists(path) else None for path in names]
    if kind_of(names[0]) == "wal" and len(names) == 1:  # it ends in zeros, however many
        before, after = [before[0].rstrip(b"\0")], [after[0] and after[0].rstrip(b"\0")]
    if before == after:
        return None
    return not engine.verify().ok


def is_spare(damage: Damage, disk: SimulatedDisk) -> bool:
    """Older manifests are kept for a repair: it does no harm if one is missing, or is a sound one
    of a checkpoint, which is the same database."""
    manifests = [name for name in disk.list(PATH) if name.startswith("MANIFEST-")]
    is_alike = damage.kind in ("missing", "copy") or damage.other.startswith(CHECKPOINT)
    return is_alike and not damage.path.endswith(manifests[-1])


@pytest.mark.parametrize("name", MAKERS)
def test_verify_finds_a_flipped_bit(name: str) -> None:
    found = 0
    for damage in islice(flips(name, every_bit=False), 0, None, FLIPS_STEP):
        if damage.path.startswith(f"{PATH}/"):
            seen = finds(name, damage)
            assert seen is not False, f"finds({name!r}, {damage!r})"
            found += bool(seen)
    assert found > 50


@pytest.mark.parametrize("name", MAKERS)
def test_verify_finds_every_other_damage(name: str) -> None:
    found = 0
    for damage in islice(damages(name), 0, None, DAMAGES_STEP):
        if damage.path.startswith(f"{PATH}/"):
            seen = finds(name, damage)
            assert seen is not False, f"finds({name!r}, {damage!r})"
            found += bool(seen)
    assert found > 50
