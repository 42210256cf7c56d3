"""Vectors in named spaces, as callers use them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engramdb import (
    ConflictError,
    Database,
    HistoryUnavailableError,
    InvalidInputError,
    KeepLast,
    MemoryNode,
)
from engramdb.lsm import limits as engine_limits
from engramdb.lsm.records import vector_type
from engramdb.model import limits

TITLE = [1.0, 0.0, 0.0]
TOKENS = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.float32)


@pytest.fixture
def db() -> Iterator[Database]:
    with Database.in_memory(background=False) as opened:
        yield opened


def node(**changes: Any) -> MemoryNode:
    """A memory with a vector of its own, a title and some tokens."""
    settings: dict[str, Any] = {"vectors": {"title": TITLE, "tokens": TOKENS}}
    return MemoryNode([1.0, 2.0], **settings | changes)


def shown(vectors: Any) -> dict[str, Any]:
    return {name: values.tolist() for name, values in vectors.items()}


BOTH = {"title": TITLE, "tokens": TOKENS.tolist()}


# The node


def test_what_is_set_is_there() -> None:
    made = MemoryNode(vectors={"title": TITLE})
    made.set_vector("tokens", TOKENS)
    assert shown(made.vectors) == BOTH
    title, tokens = made.get_vector("title"), made.get_vector("tokens")
    assert title is not None and title.dtype == np.float32 and not title.flags.writeable
    assert tokens is not None and tokens.shape == (2, 5) and not tokens.flags.writeable
    assert tokens is not TOKENS and made.get_vector("other") is None
    made.set_vector("title", None)
    made.set_vector("title", None)
    assert list(made.vectors) == ["tokens"]
    with pytest.raises(TypeError):
        made.vectors["title"] = title  # type: ignore[index]
    assert "'tokens': 2x5-d" in repr(made)


@pytest.mark.parametrize(
    ("name", "values", "argument"),
    [
        ("", TITLE, "name"),
        (7, TITLE, "name"),
        ("a\0b", TITLE, "name"),
        ("\ud800", TITLE, "name"),
        ("x" * 65, TITLE, "name"),
        ("a", [], "vectors['a']"),
        ("a", [[]], "vectors['a']"),
        ("a", np.empty((0, 3)), "vectors['a']"),
        ("a", np.zeros((2, 2, 2)), "vectors['a']"),
        ("a", 1.0, "vectors['a']"),
        ("a", "text", "vectors['a']"),
        ("a", [1.0, float("nan")], "vectors['a']"),
        ("a", [[1.0, 2.0], [float("inf"), 0.0]], "vectors['a'][1]"),
        ("a", np.zeros((limits.VECTOR_ROWS_MAX + 1, 1)), "vectors['a']"),
        ("a", [[1.0], [1.0, 2.0]], "vectors['a']"),
    ],
)
def test_bad_input_is_refused_by_name(name: Any, values: Any, argument: str) -> None:
    made = node()
    with pytest.raises(InvalidInputError) as error:
        made.set_vector(name, values)
    assert error.value.argument == argument
    assert shown(made.vectors) == BOTH
    with pytest.raises(InvalidInputError):
        MemoryNode(vectors={name: values})


def test_the_limits_are_those_of_the_engine(db: Database) -> None:
    assert limits.VECTOR_ROWS_MAX == engine_limits.SLOTS_MAX
    assert limits.SPACE_NAME_BYTES_MAX == engine_limits.SPACE_NAME_BYTES_MAX
    rows = np.arange(limits.VECTOR_ROWS_MAX, dtype=np.float32)[:, None] - 7
    name = "ä" * 32
    memory_id = db.save(MemoryNode(vectors={name: rows}))
    db.flush()
    assert np.array_equal(db.load(memory_id).vectors[name], rows)
    with pytest.raises(InvalidInputError, match="vectors"):
        MemoryNode(vectors=[TITLE])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))]
)
def test_copies_keep_them(db: Database, again: Callable[[MemoryNode], MemoryNode]) -> None:
    memory_id = db.save(node())
    other = again(db.load(memory_id))
    assert shown(other.vectors) == BOTH
    assert not any(values.flags.writeable for values in other.vectors.values())
    other.set_vector("title", [0, 1, 0])
    db.save(other)
    assert shown(db.load(memory_id).vectors)["title"] == [0, 1, 0]
    pickle.dumps(db.history(memory_id))


# Saving and loading


@pytest.mark.parametrize("flushed", [False, True])
def test_saved_and_loaded(db: Database, flushed: bool) -> None:
    memory_id = db.save(node())
    if flushed:
        db.flush()
    loaded = db.load(memory_id)
    assert shown(loaded.vectors) == BOTH
    assert all(not values.flags.writeable for values in loaded.vectors.values())
    assert db.spaces == {"": 2, "title": 3, "tokens": 5} == db.stats()["spaces"]
    assert db.stats()["connections"] == 0 and db.get_connections(memory_id) == []
    assert db.get_connected_to(memory_id) == [] and db.verify().ok
    assert db.changes(0)[0].saved == [memory_id] and db.changes(0)[0].connected == []
    assert db.disconnect(memory_id, memory_id) is False


def test_one_row_of_a_matrix_is_not_a_vector(db: Database) -> None:
    memory_id = db.save(MemoryNode(vectors={"a": [[1.0, 2.0]], "b": [1.0, 2.0]}))
    assert shown(db.load(memory_id).vectors) == {"a": [[1, 2]], "b": [1, 2]}
    loaded = db.load(memory_id)
    loaded.set_vector("a", [1.0, 2.0])
    db.save(loaded)
    assert shown(db.load(memory_id).vectors) == {"a": [1, 2], "b": [1, 2]}
    assert db.diff(1).changed[0].vectors_changed == ("a",)


def test_only_what_changed_is_written(db: Database) -> None:
    memory_id = db.save(node())
    written = db.stats()["versions"]
    loaded = db.load(memory_id)
    loaded.set_attribute("n", 1)
    db.save(loaded)
    loaded.set_vector("title", TITLE)  # the same, bit for bit
    db.save(loaded)
    assert db.stats()["versions"] == written + 2
    loaded.set_vector("tokens", TOKENS[:1])
    db.save(loaded)
    assert db.stats()["versions"] == written + 3 + 2  # a row, and one that is gone
    loaded.set_vector("tokens", None)
    db.save(loaded)
    assert shown(db.load(memory_id).vectors) == {"title": TITLE}
    db.flush()
    fresh = MemoryNode(id=memory_id)
    db.save(fresh)
    assert shown(db.load(memory_id).vectors) == {} and db.verify().ok
    assert db.search_similar(TITLE, space="title") == []


def test_a_memory_given_twice(db: Database) -> None:
    memory_id = db.save(node())
    one, other = db.load(memory_id), db.load(memory_id)
    one.set_vector("title", [0, 0, 1])
    one.set_vector("tokens", None)
    db.save_many([one, other])
    assert shown(db.load(memory_id).vectors) == BOTH and db.verify().ok


def test_columns_replace_a_memory_as_a_whole(db: Database) -> None:
    kept, replaced = db.save(node()), db.save(node())
    db.save_columns(ids=[replaced], attributes=[{"n": 1}])
    assert shown(db.load(kept).vectors) == BOTH and shown(db.load(replaced).vectors) == {}
    assert [found for found, _ in db.search_similar(TITLE, space="title")] == [kept]
    assert db.verify().ok


def test_a_wrong_length_names_the_space_and_both(db: Database) -> None:
    db.save(node())
    before = db.last_seq
    for write in (db.save, lambda bad: db.save_many([bad])):
        with pytest.raises(InvalidInputError, match=r"has 2 numbers.*'title' have 3") as error:
            write(MemoryNode(vectors={"title": [1.0, 2.0]}))
        assert error.value.argument.endswith("vectors['title']")
    with pytest.raises(InvalidInputError, match=r"nodes\[1\].vectors\['new'\].* 2 .* 1"):
        db.save_many([MemoryNode(vectors={"new": [1]}), MemoryNode(vectors={"new": [1, 2]})])
    assert db.last_seq == before and "new" not in db.spaces


def test_reserved_types_are_nobodys(db: Database) -> None:
    memory_id = db.save(node())
    with pytest.raises(InvalidInputError, match="relationship_type"):
        db.connect(memory_id, memory_id, vector_type("title", 0))
    with pytest.raises(InvalidInputError, match="relationship_type"):
        db.get_connections(memory_id, "\0")


def test_somebody_saves_in_between(db: Database) -> None:
    memory_id = db.save(node())
    mine, others = db.load(memory_id), db.load(memory_id)
    others.set_vector("title", [0, 0, 1])
    others.set_vector("more", [5])
    engine = db._engine
    latest = engine.latest

    def late() -> Any:  # what is looked at is old when the commit gets its number
        snapshot = latest()
        engine.latest = latest  # type: ignore[method-assign]
        db.save(others)
        return snapshot

    engine.latest = late  # type: ignore[method-assign]
    db.save(mine)
    assert shown(db.load(memory_id).vectors) == BOTH and db.verify().ok
    assert shown(db.history(memory_id)[1].vectors)["more"] == [5]


def test_the_first_space_comes_in_between(db: Database) -> None:
    memory_id = db.save(MemoryNode([1, 2]))
    mine, others = db.load(memory_id), db.load(memory_id)
    others.set_vector("title", TITLE)
    engine = db._engine
    commit = engine.commit

    def late(*arguments: Any, **named: Any) -> Any:
        engine.commit = commit  # type: ignore[method-assign]
        db.save(others)
        return commit(*arguments, **named)

    for save in (db.save, lambda each: db.save_many([each])):
        engine.commit = late  # type: ignore[method-assign]
        save(mine)
        assert shown(db.load(memory_id).vectors) == {}
        assert db.search_similar(TITLE, space="title") == []


# Time


def three_versions(db: Database) -> str:
    """A memory that changed its title, lost its tokens, and was deleted."""
    made = node()
    memory_id = db.save(made)
    made.set_vector("title", [0, 1, 0])
    db.save(made)
    made.set_vector("tokens", None)
    db.save(made)
    db.delete(memory_id)
    return memory_id


THREE = [BOTH, BOTH | {"title": [0, 1, 0]}, {"title": [0, 1, 0]}, {}]


@pytest.mark.parametrize("settle", [lambda _: None, Database.flush, Database.compact])
def test_history_and_past(db: Database, settle: Callable[[Database], None]) -> None:
    memory_id = three_versions(db)
    settle(db)
    layers = db.history(memory_id)
    assert [shown(layer.vectors) for layer in layers] == THREE
    assert layers[1].vectors["title"] is layers[2].vectors["title"]
    for seq in (1, 2, 3):
        with db.as_of(seq) as past:
            assert shown(past.load(memory_id).vectors) == THREE[seq - 1]
            found = past.search_similar([0, 1, 0], space="title", threshold=0.5)
            assert len(found) == (seq > 1)
    assert db.search_similar([0, 1, 0], space="title", threshold=0.5, as_of=2) != []
    assert db.search_similar([0, 1, 0], space="title") == []
    assert db.as_of(0).search_similar(TITLE, space="title") == []


def test_a_node_stays_what_it_was(db: Database) -> None:
    memory_id = db.save(node())
    early = db.load(memory_id)
    later = db.load(memory_id)
    later.set_vector("title", [0, 1, 0])
    db.save(later)
    db.compact()
    assert shown(early.vectors) == BOTH


def test_diff(db: Database) -> None:
    memory_id = three_versions(db)
    changed = db.diff(1, 2).changed
    assert [(each.id, each.vectors_changed) for each in changed] == [(memory_id, ("title",))]
    assert not changed[0].embeddings_changed and not changed[0].attributes
    assert db.diff(1, 3).changed[0].vectors_changed == ("title", "tokens")
    assert db.diff(3, 1).changed[0].vectors_changed == ("title", "tokens")
    difference = db.diff(3, 4)
    assert difference.removed == [memory_id] and not difference.connections


def test_undo_and_restore(db: Database) -> None:
    memory_id = three_versions(db)
    for n, expected in ((1, THREE[2]), (1, THREE[3]), (1, THREE[2]), (4, THREE[2]), (6, THREE[1])):
        db.undo(n)
        assert (shown(db.load(memory_id).vectors) if memory_id in db else {}) == expected
        assert db.verify().ok
    db.flush()
    for seq in (1, 3, 2):
        db.restore(memory_id, seq)
        assert shown(db.load(memory_id).vectors) == THREE[seq - 1]
        assert [found for found, _ in db.search_similar([0, 1, 0], space="title")] == [memory_id]
    before = db.last_seq
    made = db.load(memory_id)
    made.set_vector("title", [0, 0, 1])
    db.save(made)
    with pytest.raises(ConflictError):
        db.undo(commit=before)
    db.undo()
    assert shown(db.load(memory_id).vectors) == THREE[1] and db.verify().ok


def test_a_conflict_names_the_vector(db: Database) -> None:
    memory_id = db.save(node())
    made = db.load(memory_id)
    made.set_vector("title", [0, 0, 1])
    db.save(made)
    with pytest.raises(ConflictError, match="memory"):
        db.undo(commit=1)


def test_retention(db: Database) -> None:
    memory_id = three_versions(db)
    db.restore(memory_id, 2)
    db.tag("then", 1)
    db.set_history(KeepLast(2))
    db.compact()
    assert [shown(each.vectors) for each in db.history(memory_id)] == [THREE[0], {}, THREE[1]]
    assert shown(db.as_of("then").load(memory_id).vectors) == THREE[0]
    with pytest.raises(HistoryUnavailableError):
        db.as_of(2).load(memory_id)
    assert db.verify().ok
    db.untag("then")
    db.set_history(KeepLast(1))
    db.compact()
    assert db.stats()["vectors"] == 1 + 1 + 2


def test_a_single_version_below_the_floor(db: Database) -> None:
    made = node()
    memory_id = db.save(made)
    other = db.save(MemoryNode())
    for n in range(3):
        db.save(MemoryNode(id=other, attributes={"n": n}))
    db.set_history(KeepLast(1))
    db.compact()
    assert shown(db.as_of(1).load(memory_id).vectors) == BOTH


# Transactions


def test_a_transaction_sees_its_own(db: Database) -> None:
    first = db.save(node())
    with db.transaction() as tx:
        mine = tx.load(first)
        mine.set_vector("title", [0, 1, 0])
        mine.set_vector("new", [[1.0], [2.0]])
        tx.save(mine)
        second = tx.save(MemoryNode(vectors={"title": [0, 0, 1]}))
        loaded = tx.load(first)
        assert shown(loaded.vectors) == BOTH | {"title": [0, 1, 0], "new": [[1], [2]]}
        assert tx.search_similar([0, 1, 0], 1, space="title") == [(first, 1.0)]
        assert tx.search_similar([0, 0, 1], 1, space="title") == [(second, 1.0)]
        found = tx.search_similar([[1.0], [1.0]], space="new")
        assert found == [(first, 1.0)] and "new" not in db.spaces
        with pytest.raises(InvalidInputError, match="new"):
            tx.save(MemoryNode(vectors={"new": [1, 2]}))
        loaded.set_vector("title", None)
        loaded.set_vector("tokens", TOKENS[1:])
        tx.save_many([loaded])
        tx.delete(second)
        assert tx.search_similar([1, 0, 0], 3, -1.0, space="title") == []
    assert shown(db.load(first).vectors) == {"tokens": TOKENS[1:].tolist(), "new": [[1], [2]]}
    assert db.verify().ok and second not in db


def test_deleted_and_saved_again_in_a_transaction(db: Database) -> None:
    first = db.save(node())
    with db.transaction() as tx:
        mine = tx.load(first)
        tx.delete(first)
        assert tx.search_similar(TITLE, space="title") == []
        mine.set_vector("tokens", None)
        tx.save(mine)
        assert shown(tx.load(first).vectors) == {"title": TITLE}
    assert shown(db.load(first).vectors) == {"title": TITLE} and db.verify().ok


def test_a_transaction_conflicts_with_another_vector(db: Database) -> None:
    first = db.save(node())
    with pytest.raises(ConflictError), db.transaction() as tx:
        mine = tx.load(first)
        other = db.load(first)
        other.set_vector("title", [0, 1, 0])
        db.save(other)
        mine.set_vector("tokens", None)
        tx.save(mine)
    assert shown(db.load(first).vectors) == BOTH | {"title": [0, 1, 0]}


# Files


def test_reopened_followed_forked_and_purged(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db") as db:
        first, second = db.save(node()), db.save(node())
        with Database.open(tmp_path / "db", read_only=True) as reader:
            assert shown(reader.load(first).vectors) == BOTH
            more = db.load(first)
            more.set_vector("later", [1, 2, 3, 4])
            db.save(more)
            reader.refresh()
            assert reader.spaces["later"] == 4
            assert shown(reader.load(first).vectors)["later"] == [1, 2, 3, 4]
        with db.fork(tmp_path / "fork") as fork:
            fork.purge(first)
            assert [each for each, _ in fork.search_similar(TITLE, space="title")] == [second]
            assert fork.verify().ok and fork.history(first) == []
        db.checkpoint(tmp_path / "copy")
    for place in ("db", "copy"):
        with Database.open(tmp_path / place) as again:
            assert shown(again.load(first).vectors) == BOTH | {"later": [1, 2, 3, 4]}
            assert shown(again.load(second).vectors) == BOTH
            assert again.verify().ok and len(again.search_similar(TITLE, space="title")) == 2


def test_repair_of_a_lost_row_shows_the_others(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db", background=False) as db:
        memory_id = db.save(node())
        db.flush()
        files = db._engine._core.state.version.vectors
        title = next(file for file in files if file.space == "title")
        path, at = Path(title.reader.path), title.reader.section("matrix").offset
    content = bytearray(path.read_bytes())
    content[at : at + 12] = b"\x55" * 12
    path.write_bytes(content)
    report = Database.repair(tmp_path / "db")
    assert report.vectors_lost == 1
    with Database.open(tmp_path / "db") as db:
        loaded = db.load(memory_id)
        assert shown(loaded.vectors) == {"tokens": TOKENS.tolist()} and db.verify().ok
        loaded.set_vector("title", TITLE)
        db.save(loaded)
        assert shown(db.load(memory_id).vectors) == BOTH
        assert shown(db.history(memory_id)[0].vectors) == {"tokens": TOKENS.tolist()}
