"""Damaged files of codes cost time, never an answer: they are noticed, told of and made again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from engramdb.indexing.keeper import Keeper
from engramdb.lsm.container import ENTRY, FOOTER
from engramdb.lsm.environment import Environment, MemoryEnvironment
from tests.unit.codes_support import (
    EVERYTHING,
    PATH,
    Floats32,
    indexer_of,
    mixture,
    open_database,
    questions,
    recall_of,
    save,
    save_with_codes,
    searched,
    small_files_have_codes,
)

VECTORS = mixture(1500, 70)
CODES = f"{PATH}/derived/codes-3.drv"
EFFORT = f"{PATH}/derived/codes-3-effort.drv"
SECTIONS = ("contents", "aside", "axes", "centres", "order", "spread", "starts", "codes.sums")


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_files_have_codes():
        yield


def content(disk: Environment, path: str) -> bytes:
    file = disk.open(path, "r")
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


def write(disk: Environment, path: str, data: bytes) -> None:
    disk.unlink(path)
    file = disk.open(path, "x")
    file.write_at(0, data)
    file.close()


def sections(data: bytes) -> dict[str, tuple[int, int]]:
    """Where each section of a container begins, and how long it is."""
    start, count = FOOTER.unpack(data[-FOOTER.size :])[:2]
    entries = [ENTRY.unpack_from(data, start + number * ENTRY.size) for number in range(count)]
    return {entry[0].rstrip(b"\0").decode(): (entry[5], entry[6]) for entry in entries}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def made(vectors: Floats32 = VECTORS) -> MemoryEnvironment:
    disk = MemoryEnvironment()
    with open_database(disk) as db:
        save_with_codes(db, vectors)
        assert searched(db) == ["clusters"]
    assert disk.exists(CODES) and disk.exists(EFFORT)
    return disk


def assert_made_again(disk: Environment) -> None:
    """What is useless is counted; searches are scans, until codes are made again."""
    with open_database(disk) as db:
        assert recall_of(db, VECTORS[:10]) == 1.0 and searched(db) == ["scan"]
        assert db.stats()["derived_unusable"] == 1 and db.verify().ok
        db.build_index()
        assert searched(db) == ["clusters"] and db.stats()["index"]["built"] == 1
        assert recall_of(db, VECTORS[:10]) >= 0.98
    with open_database(disk) as db:
        db.build_index()
        assert db.stats()["index"]["built"] == 0


@pytest.mark.parametrize("name", SECTIONS)
def test_a_flipped_bit_in_what_is_read_is_noticed_when_it_is_loaded(name: str) -> None:
    disk = made()
    data = content(disk, CODES)
    assert {*SECTIONS, "codes"} == set(sections(data))
    at, length = sections(data)[name]
    # of no rows that have no code, there is nothing to flip: then the padding behind
    write(disk, CODES, flipped(data, at + length // 2 if length else 16))
    assert_made_again(disk)


@pytest.mark.parametrize("path", [CODES, EFFORT])
@pytest.mark.parametrize("how", ["header", "footer", "cut", "empty", "text"])
def test_a_file_that_is_none_is_noticed_too(path: str, how: str) -> None:
    disk = made()
    data = content(disk, path)
    ways = {
        "header": flipped(data, 20),
        "footer": flipped(data, len(data) - 20),
        "cut": data[: len(data) // 2],
        "empty": b"",
        "text": b"no codes" * 100,
    }
    write(disk, path, ways[how])
    assert_made_again(disk)


@pytest.mark.parametrize("path", [CODES, EFFORT])
def test_a_file_that_is_missing_is_made_again(path: str) -> None:
    disk = made()
    disk.unlink(path)
    with open_database(disk) as db:
        assert recall_of(db, VECTORS[:10]) == 1.0
        db.build_index()
        assert searched(db) == ["clusters"]


def damage_codes(disk: Environment) -> None:
    """What is mapped: at both ends and in the middle."""
    data = content(disk, CODES)
    at, length = sections(data)["codes"]
    for place in (at, at + length // 2, at + length - 1):
        data = flipped(data, place)
    write(disk, CODES, data)


def test_damage_of_what_is_mapped_is_noticed_by_the_search_that_meets_it() -> None:
    disk = made()
    damage_codes(disk)
    with open_database(disk) as db:
        best = db.search_similar(VECTORS[0], exact=True)
        with pytest.warns(RuntimeWarning, match="built again"):
            assert db.search_similar(VECTORS[0]) == best
        assert db.stats()["index"]["damaged"] == 1 and searched(db) == ["scan"]
        assert db.search_many(VECTORS[:2])[0] == best and not disk.exists(CODES)
        db.build_index()
        assert searched(db) == ["clusters"] and db.stats()["index"]["built"] == 1
        assert recall_of(db, VECTORS[:10]) >= 0.98
        assert db.verify().ok


@pytest.mark.parametrize("way", ["many", "among", "built"])
def test_damage_is_noticed_on_every_way(way: str) -> None:
    with small_files_have_codes(EVERYTHING):  # which are said to take no time
        disk = made()
        damage_codes(disk)
        with open_database(disk) as db, pytest.warns(RuntimeWarning, match="built again"):
            if way == "many":
                assert len(db.search_many(VECTORS[:2], 10, -1.0)[1]) == 10
            elif way == "among":
                assert (
                    len(db.search_similar(VECTORS[0], 10, -1.0, where={"third": {"$lt": 2}})) == 10
                )
            else:
                db.build_index()
                assert searched(db) == ["clusters"]
            assert db.stats()["index"]["damaged"] == 1


@pytest.mark.parametrize("background", [False, True])
def test_a_reader_meets_damage_once(background: bool) -> None:
    disk = made()
    damage_codes(disk)
    with (
        warnings.catch_warnings(record=True) as caught,
        open_database(disk, read_only=True, background=background) as db,
    ):
        warnings.simplefilter("always")
        for query in VECTORS[:5]:
            assert db.search_similar(query) == db.search_similar(query, exact=True)
        db.build_index()
        with indexer_of(db)._working:
            met = db.stats()["index"]["damaged"]
        assert 1 <= met <= 3, "by a search, by its thread meanwhile, and when it was asked to build"
        for query in VECTORS[:5]:
            db.search_similar(query)
        assert db.stats()["index"]["damaged"] == met, "and never again"
    assert {warning.category for warning in caught} == {RuntimeWarning}
    assert len(caught) == met
    assert disk.exists(CODES), "a reader removes nothing"


def test_codes_of_another_file_are_refused() -> None:
    disk = MemoryEnvironment()
    with open_database(disk) as db:
        for first in (0, 1000):
            save_with_codes(db, VECTORS[first % 500 :][:1000], first)
        (one, other) = sorted(indexer_of(db)._codes)
    paths = [f"{PATH}/derived/codes-{number}.drv" for number in (one, other)]
    contents = [content(disk, path) for path in paths]
    for path, data in zip(paths, reversed(contents), strict=True):
        write(disk, path, data)
    with open_database(disk) as db:
        assert recall_of(db, VECTORS[:10]) == 1.0 and searched(db) == ["scan"] * 2
        assert db.stats()["derived_unusable"] == 2
        db.build_index()
        assert searched(db) == ["clusters"] * 2


def test_codes_of_the_same_number_in_another_database_are_refused() -> None:
    disk, other = made(), made(mixture(1500, 70, seed=5))
    for path in (CODES, EFFORT):
        write(disk, path, content(other, path))
    with open_database(disk) as db:
        assert recall_of(db, VECTORS[:10]) == 1.0 and searched(db) == ["scan"]
        assert db.stats()["derived_unusable"] >= 1


def test_sound_values_that_make_no_sense_are_refused() -> None:
    disk = made()
    with open_database(disk) as db:
        derived, file = db._engine.derived, db._engine.latest().version.vectors[0]
        stamp = Keeper(db._engine, file, lambda: None, db._engine.derived.erasures)._stamp
        values = derived.load("codes-3", stamp=stamp)
        assert values is not None
        plain = {name: getattr(value, "array", value) for name, value in values.items()}
        starts, order = plain["starts"].copy(), plain["order"].copy()
        starts[1], order[0] = 10**6, order[1]
        for wrong in (
            {"starts": starts},
            {"order": order},
            {"aside": plain["aside"].astype("i4")},
            {"aside": plain["order"][:1].astype("i8") + 1500},
            {"centres": plain["centres"][:-1]},
            {"axes": plain["axes"][:-1]},
            {"spread": b"bytes"},
            {"codes": plain["codes"][:-1]},
        ):
            erasures, unusable = derived.erasures, derived.unusable
            forged = {**plain, **wrong}
            derived.store("codes-3", forged, erasures=erasures, stamp=stamp, mapped=["codes"])
            assert (
                Keeper(db._engine, file, lambda: None, db._engine.derived.erasures).load() is None
            )
            assert derived.unusable == unusable + 1
        del values, plain


def test_a_calibration_of_other_codes_is_not_believed() -> None:
    """Codes were made again, for other queries, and the process was killed before they had been
    calibrated."""
    disk = made()
    old = content(disk, EFFORT)
    with open_database(disk) as db:
        db._engine.derived.remove("codes-3")
        db.search_similar(VECTORS[0])
        for query in questions(VECTORS, 200, likeness=0.2):
            indexer_of(db).asked("", query)
        db.build_index()
        assert db.stats()["index"]["built"] == 1
    write(disk, EFFORT, old)
    assert_made_again(disk)


def test_codes_go_with_their_files_and_strangers_stay() -> None:
    disk = made()
    with open_database(disk) as db:
        derived = db._engine.derived
        derived.store("other", {}, erasures=derived.erasures)
        save(db, VECTORS[:800], 2000)
        db.flush()
        db.compact()
        db.build_index()
        present = {file.number for file in db._engine.latest().version.vectors}
        names = derived.names()
        assert {int(name.split("-")[1]) for name in names if name.startswith("codes-")} == present
        assert "other" in names and set(indexer_of(db)._codes) == present
