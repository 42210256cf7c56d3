"""Database.repair() on real files: what is intact comes back; the rest is named and kept."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import engramdb
from engramdb import Database, MemoryNode
from engramdb.errors import (
    CorruptionError,
    DatabaseLockedError,
    HistoryUnavailableError,
    InvalidInputError,
)

ROWS = 300


def make(path: Path) -> list[str]:
    """300 memories in one segment, each connected to the next one; five of them changed later."""
    rng = np.random.default_rng(1)
    with Database.file_based(path) as db:
        vectors = rng.standard_normal((ROWS, 96)).astype(np.float32)
        ids = db.save_columns(
            embeddings=vectors, attributes=[{"n": n, "text": f"text {n} " * 9} for n in range(ROWS)]
        )
        with db.transaction() as tx:
            for one, two in itertools.pairwise(ids):
                tx.connect(one, two)
        db.flush()
        db.tag("first")
        for n in range(5):
            node = db.load(ids[n])
            node.set_attribute("n", -n)
            db.save(node)
        db.flush()
        db.tag("second")
    return ids


def places(path: Path, section: str, which: int) -> tuple[Path, int]:
    """The file and the offset of a section of a segment (or of a vector file)."""
    with Database.open(path, read_only=True) as db:
        version = db._engine._core.state.version
        files = version.vectors if section == "matrix" else version.segments
        reader = files[which].reader
        return Path(reader.path), reader.section(section).offset


def zero(file: Path, at: int, length: int = 4096) -> bytes:
    """Zero a stretch of a file. Returns what the file was before."""
    before = file.read_bytes()
    file.write_bytes(before[:at] + bytes(length) + before[at + length :])
    return before


def test_a_damaged_block_costs_what_is_in_it(tmp_path: Path) -> None:
    ids = make(tmp_path)
    file, at = places(tmp_path, "blocks", 0)
    zero(file, at + 10, 600)
    damaged = file.read_bytes()
    looked = Database.repair(tmp_path, dry_run=True)
    assert looked.problems and not looked.moved and file.read_bytes() == damaged
    report = Database.repair(tmp_path)
    assert not report.is_complete and report.versions_lost > 0
    assert 0 < len(report.memories) <= 128
    assert any(Path(name).read_bytes() == damaged for name in report.moved)
    with Database.open(tmp_path) as db:
        assert db.verify().ok
        changed = set(ids[:5])
        for n, memory_id in enumerate(ids):
            node = db.get(memory_id)
            if memory_id in changed:
                assert node is not None and node.get_attribute("n") == -n
            elif memory_id in report.memories:
                assert node is None
            else:
                assert node is not None and node.get_attribute("n") == n
        for memory_id in db.list_all():
            assert all(c.target_id in db for c in db.get_connections(memory_id))
        assert db.tags() == {} and report.tags_lost == ("first", "second")
        with pytest.raises(HistoryUnavailableError):
            db.as_of(1).list_all()
        db.save(MemoryNode(np.ones(96), attributes={"n": "new"}))
        db.compact()
        assert db.verify().ok


def test_lost_vectors_cost_no_text(tmp_path: Path) -> None:
    ids = make(tmp_path)
    file, at = places(tmp_path, "matrix", 0)
    zero(file, at)
    report = Database.repair(tmp_path)
    assert report.vectors_lost > 0 and report.versions_lost == 0
    with Database.open(tmp_path) as db:
        assert db.verify().ok and len(db) == ROWS
        for n, memory_id in enumerate(ids[5:], 5):
            node = db.load(memory_id)
            assert node.get_attribute("n") == n
            assert (node.embeddings is None) == (memory_id in report.memories)
        found = db.search_similar(np.ones(96), limit=ROWS, threshold=-1.0)
        assert not {memory_id for memory_id, _ in found} & set(report.memories)


def test_a_newer_version_that_is_lost_gives_way_to_the_older_one(tmp_path: Path) -> None:
    ids = make(tmp_path)
    file, at = places(tmp_path, "blocks", -1)
    zero(file, at, 64)
    report = Database.repair(tmp_path)
    assert report.restored == 5 and set(report.memories) == set(ids[:5])
    with Database.open(tmp_path) as db:
        for n, memory_id in enumerate(ids[:5]):
            assert db.load(memory_id).get_attribute("n") == n
            assert [layer.seq for layer in db.history(memory_id)] == [1, report.seq]
        assert db.tags() == {"first": db.tags()["first"]}
        assert db.as_of("first").load(ids[0]).get_attribute("n") == 0
        assert db.verify().ok


def test_a_flipped_bit_costs_nothing(tmp_path: Path) -> None:
    ids = make(tmp_path)
    with Database.open(tmp_path, read_only=True) as db:
        expected = {each: db.load(each).attributes for each in ids}
    for path in sorted(tmp_path.rglob("*.seg")):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    with pytest.raises(CorruptionError, match="repair"), Database.open(tmp_path) as db:
        assert {each: db.load(each).attributes for each in ids} == expected
    report = Database.repair(tmp_path)
    assert report.problems and report.is_complete and not report.commits_lost
    with Database.open(tmp_path) as db:
        assert {each: db.load(each).attributes for each in ids} == expected
        assert db.tags().keys() == {"first", "second"} and db.verify().ok


def test_a_sound_database_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    report = Database.repair(tmp_path)
    assert isinstance(report, engramdb.RepairReport)
    assert report.problems == () and report.is_complete and report.versions > ROWS
    assert {p: t for p, t in before.items() if p.name != "LOCK"} == {
        p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and p.name != "LOCK"
    }


def test_a_purge_names_what_a_repair_has_kept(tmp_path: Path) -> None:
    ids = make(tmp_path)
    file, at = places(tmp_path, "blocks", 0)
    zero(file, at + 10, 100)
    Database.repair(tmp_path)
    with Database.open(tmp_path) as db:
        assert str(tmp_path / "lost") in db.purge(ids[-1]).copies


def test_who_has_it_open_is_told(tmp_path: Path) -> None:
    make(tmp_path)
    with Database.open(tmp_path), pytest.raises(DatabaseLockedError):
        Database.repair(tmp_path)
    with pytest.raises(InvalidInputError):
        Database.repair(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
