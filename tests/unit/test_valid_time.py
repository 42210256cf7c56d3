"""When a fact holds in the world: saved, loaded, shown in the history, restored."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from engramdb import Database, InvalidInputError, MemoryNode
from engramdb.lsm import Batch, Options, StorageEngine
from engramdb.model.attributes import encode_memory

MARCH = datetime(2025, 3, 1, tzinfo=UTC)
JUNE = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("valid_from", "valid_to"), [(None, None), (MARCH, None), (None, JUNE), (MARCH, JUNE)]
)
def test_it_comes_back(valid_from: datetime | None, valid_to: datetime | None) -> None:
    with Database.in_memory() as db:
        memory_id = db.save(MemoryNode([1.0, 2.0], valid_from=valid_from, valid_to=valid_to))
        db.flush()
        loaded = db.load(memory_id)
        assert (loaded.valid_from, loaded.valid_to) == (valid_from, valid_to)
        layer = db.history(memory_id)[0]
        assert (layer.valid_from, layer.valid_to) == (valid_from, valid_to)


def test_a_fact_cannot_end_before_it_begins_and_nothing_is_written() -> None:
    with Database.in_memory() as db:
        node = MemoryNode([1.0], valid_from=JUNE, valid_to=MARCH)
        for save in (db.save, lambda wrong: db.save_many([wrong])):
            with pytest.raises(InvalidInputError, match=r"valid_to: .* is not after valid_from"):
                save(node)
        with pytest.raises(InvalidInputError):
            db.save(MemoryNode([1.0], valid_from=JUNE, valid_to=JUNE))
        assert len(db) == db.last_seq == 0


def test_its_end_is_a_change_that_diff_shows_and_undo_and_restore_take_back() -> None:
    with Database.in_memory() as db:
        memory_id = db.save(MemoryNode([1.0], valid_from=MARCH))
        node = db.load(memory_id)
        node.valid_to = JUNE
        db.save(node)
        (change,) = db.diff(1).changed
        assert change.validity_changed
        assert not change.attributes
        assert not change.embeddings_changed
        db.undo()
        assert db.load(memory_id).valid_to is None
        db.restore(memory_id, 2)
        assert db.load(memory_id).valid_to == JUNE
        with db.as_of(1) as past:
            assert past.load(memory_id).valid_to is None


def test_it_counts_in_a_database_whose_files_were_written_without_columns(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db", background=False) as db:
        over = db.save(MemoryNode([1.0, 0.0], valid_to=MARCH))
        now = db.save(MemoryNode([0.0, 1.0], valid_from=MARCH))
    options = Options(background=False)
    with StorageEngine.open(str(tmp_path / "db"), options) as engine:  # knows nothing of columns
        batch = Batch()
        batch.put(b"k" * 16, encode_memory(1, None, {}), np.ones(2, np.float32))
        engine.commit(batch)
        engine.compact()
    with Database.open(tmp_path / "db") as db:
        found = [memory_id for memory_id, _ in db.search_similar([1.0, 1.0])]
        assert now in found and over not in found and len(found) == 2
        assert over in [memory_id for memory_id, _ in db.search_similar([1, 1], valid_at="any")]
        assert over not in db.query().ids()
