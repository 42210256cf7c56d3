"""After any damage a repair leaves each memory in each space with the rows of one version, or with
those that are left of it: never with rows of two. They are those that its payload was saved with,
unless commits were lost: what these did is as before them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from engramdb.lsm import Batch, StorageEngine, repair
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import EDGE, MEMORY, Edge, Record, place_of
from tests.unit.lsm_support import PATH, key, open_engine, vec

SEEDS = 100
Rows = dict[tuple[str, int], bytes]


class Saved:
    """What each payload was saved with: the rows of its memory in named spaces."""

    def __init__(self, dice: random.Random) -> None:
        self.disk, self.dice = SimulatedDisk(), dice
        self.engine = open_engine(self.disk, durability="sync")
        self.of: dict[bytes, Rows] = {b"": {}}
        self.now: dict[int, bytes] = {}

    def save(self) -> None:
        i, payload = self.dice.randrange(4), b"%d" % len(self.of)
        batch, rows = Batch(), dict(self.of[self.now.get(i, b"")])
        batch.put(key(i), payload, vec(i, 1))
        for space, width in (("title", 2), ("tokens", 3)):
            if self.dice.random() < 0.6:
                count = self.dice.randrange(3) + 1
                for place in [place for place in rows if place[0] == space]:
                    del rows[place]
                    if place[1] >= count:
                        batch.delete_vector(key(i), *place)
                for slot in range(count):
                    vector = vec(*(self.dice.random() for _ in range(width)))
                    batch.put_vector(key(i), space, slot, vector)
                    rows[space, slot] = vector.tobytes()
        self.engine.commit(batch)
        self.of[payload], self.now[i] = rows, payload

    def delete(self) -> None:
        for i in list(self.now)[:1]:
            batch = Batch()
            batch.delete(key(i))
            for place in self.of[self.now.pop(i)]:
                batch.delete_vector(key(i), *place)
            self.engine.commit(batch)


def files_of(disk: SimulatedDisk) -> Iterator[str]:
    """Every file of the database that can be damaged."""
    for name in disk.list(PATH):
        if name.startswith("MANIFEST"):
            yield f"{PATH}/{name}"
    for kind in ("seg", "vec", "wal"):
        yield from (f"{PATH}/{kind}/{name}" for name in disk.list(f"{PATH}/{kind}"))


def damage(disk: SimulatedDisk, dice: random.Random) -> str:
    """Overwrite some bytes of a file, cut it, or take it away."""
    path = dice.choice(sorted(files_of(disk)))
    content = bytearray(disk.content(path))
    what = dice.random()
    if what < 0.15:
        disk.plant(path, None)
    elif what < 0.25:
        disk.plant(path, bytes(content[: dice.randrange(len(content))]))
    else:
        at = dice.randrange(len(content))
        content[at : at + 40] = dice.randbytes(len(content[at : at + 40]))
        disk.plant(path, bytes(content))
    return path


def check(engine: StorageEngine, saved: Saved, *, lost: bool) -> int:
    """How many rows are missing beside memories that are there."""
    latest = engine.latest()
    missing = 0
    for i in range(4):
        record = latest.get(MEMORY, key(i))
        carried = latest.carried(key(i))
        rows = {place_of(name): latest.vector(n).tobytes() for name, n in carried.items()}
        if record is None:
            assert not rows, "rows of a memory that is gone"
            continue
        expected = saved.of[record.payload]
        for space in ("title", "tokens"):
            mine = {place: row for place, row in rows.items() if place and place[0] == space}
            if not mine.items() <= expected.items():  # what a lost commit did is as before it
                assert lost, "rows of another version"
                assert any(mine.items() <= known.items() for known in saved.of.values())
        missing += len(expected.keys() - rows.keys())
    for rows_ in latest.scan(EDGE):
        for owner in rows_.keys:
            assert isinstance(latest.get(EDGE, owner.tobytes()), Edge)
    return missing


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_damage(seed: int) -> None:
    dice = random.Random(seed)
    saved = Saved(dice)
    for _ in range(16):
        saved.save() if dice.random() < 0.85 else saved.delete()
        if dice.random() < 0.25:
            saved.engine.flush()
    if dice.random() < 0.5:
        saved.engine.close()
    disk = saved.disk.crash([]) if dice.random() < 0.3 else saved.disk.crash()
    path = damage(disk, dice)
    report = repair(disk, PATH)
    with open_engine(disk) as engine:
        assert engine.verify().ok, (path, engine.verify().problems)
        missing = check(engine, saved, lost=bool(report.commits_lost))
        assert not missing or not report.is_complete, (path, missing)
        if report.is_complete and "/wal/" not in path:  # its end may have been torn
            for i, payload in saved.now.items():
                record = engine.latest().get(MEMORY, key(i))
                assert isinstance(record, Record) and record.payload == payload
        batch = Batch()
        batch.put_vector(key(0), "title", 0, vec(1, 2))
        batch.put(key(0), b"after")
        engine.commit(batch)
        assert engine.verify().ok
    assert repair(disk, PATH).problems == ()
