"""Damaged columns of attributes are noticed when they are read; a repair brings back all that they
said, for it is in the payloads too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engramdb import CorruptionError, Database, MemoryNode
from engramdb.lsm import AttributeColumns
from engramdb.query.attribute_filter import AttributeFilter as F
from engramdb.query.masks import matching

COUNT = 300


def found(db: Database) -> int:
    runs = db._source().memory_runs()
    return sum(len(matching(run, run.rows, F.equals("n", 3))) for run in runs)


@pytest.mark.parametrize("name", ["attr.created", "attr.fields", "f00.value", "f01.text"])
def test_damaged_columns(name: str, tmp_path: Path) -> None:
    path = tmp_path / "db"
    with Database.file_based(path) as db:
        said: list[dict[str, Any]] = [{"n": i % 7, "s": f"text {i}"} for i in range(COUNT)]
        db.save_many([MemoryNode([1.0], attributes=each) for each in said])
        db.flush()
        section = db._engine._core.state.version.segments[0].reader.section(name)
    (file,) = (path / "seg").iterdir()
    data = bytearray(file.read_bytes())
    for at in range(section.offset, section.offset + section.length):
        data[at] ^= 0x55
    file.write_bytes(data)
    with Database.file_based(path) as db:
        assert str(file) in db.verify().problems[0]
        (run,) = db._source().memory_runs()
        with pytest.raises(CorruptionError):
            read_all(run.columns())
        assert len(db.list_all()) == COUNT
    report = Database.repair(path)
    assert report.is_complete
    assert report.versions_lost == 0
    with Database.file_based(path) as db:
        assert db.verify().ok
        assert len(db) == COUNT
        assert found(db) == 43
        db.save(MemoryNode([1.0], attributes={"n": 3}))
        db.compact()
        assert db._engine._core.state.version.segments[0].has_attributes
        assert found(db) == 44


def read_all(columns: AttributeColumns) -> None:
    _ = columns.created
    for path in columns.fields:
        _ = columns.fields[path]
