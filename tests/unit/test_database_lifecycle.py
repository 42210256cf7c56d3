"""Opening, closing, and everything that must be refused in between."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engramdb
from engramdb import Database, DatabaseConfig, InvalidInputError, MemoryNode


def test_all_is_complete() -> None:
    """Every public name that the package has is in __all__, and nothing else is."""
    modules = {"annotations"}
    public = {
        name
        for name, value in vars(engramdb).items()
        if not name.startswith("_") and name not in modules and not is_module(value)
    }
    assert public | {"__version__"} == set(engramdb.__all__)
    assert len(engramdb.__all__) == len(set(engramdb.__all__))


def is_module(value: object) -> bool:
    return type(value) is type(sys)


def test_in_memory_is_ready_at_once() -> None:
    db = Database.in_memory()
    assert len(db) == 0 and db.last_seq == 0 and db.dimension is None
    memory_id = db.save(MemoryNode([1.0, 2.0]))
    assert len(db) == 1 and memory_id in db and db.last_seq == 1 and db.dimension == 2
    db.close()


def test_two_databases_in_memory_know_nothing_of_each_other() -> None:
    with Database.in_memory() as one, Database.in_memory() as other:
        one.save(MemoryNode([1.0]))
        assert len(other) == 0


def test_initialize_is_harmless() -> None:
    with Database.in_memory() as db:
        memory_id = db.save(MemoryNode([1.0]))
        db.initialize()
        assert memory_id in db


def test_file_based_creates_and_reopens(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down"
    with Database.file_based(path) as db:
        node = MemoryNode(
            np.array([0.1, -0.0, 1e-30], np.float32), attributes={"a": [1, {"b": b"x"}]}
        )
        db.save(node, reason="first")
    with Database.file_based(str(path)) as db:
        again = db.load(node.id)
        assert again.embeddings is not None and node.embeddings is not None
        assert again.embeddings.tobytes() == node.embeddings.tobytes()
        assert again.attributes == node.attributes
        assert again.creation_timestamp == node.creation_timestamp
        assert [layer.reason for layer in again.temporal_layers()] == ["first"]


def test_the_seeds_config_opens_a_database(tmp_path: Path) -> None:
    config = DatabaseConfig(
        use_memory_storage=False, storage_dir=tmp_path / "my_database", cache_size=100
    )
    with Database(config) as db:
        db.initialize()
        db.save(MemoryNode([1.0]))
        assert db.config is config


def test_open_wants_a_database_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(engramdb.EngramError):
        Database.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    Database.file_based(tmp_path / "db").close()
    Database.open(tmp_path / "db").close()


def test_a_second_writer_is_refused_at_once_and_told_who_holds_it(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db"):
        with pytest.raises(engramdb.DatabaseLockedError) as caught:
            Database.file_based(tmp_path / "db")
        assert caught.value.pid == os.getpid()
        program = (
            "import engramdb, sys\n"
            "try: engramdb.Database.file_based(sys.argv[1])\n"
            "except engramdb.DatabaseLockedError as error: print(error.pid)"
        )
        shown = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "db")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout.strip() == str(os.getpid()), shown.stderr
    Database.file_based(tmp_path / "db").close()


def test_a_database_that_was_dropped_lets_go_of_its_directory(tmp_path: Path) -> None:
    db = Database.file_based(tmp_path / "db")
    memory_id = db.save(MemoryNode([1.0]))
    del db
    gc.collect()
    with Database.file_based(tmp_path / "db") as again:
        assert memory_id in again


def test_a_reader_follows_the_writer(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db") as writer:
        first = writer.save(MemoryNode([1.0]))
        with Database.open(tmp_path / "db", read_only=True) as reader:
            assert reader.list_all() == [first]
            second = writer.save(MemoryNode([2.0]))
            assert reader.refresh() == 2
            assert reader.list_all() == [first, second]
            with pytest.raises(engramdb.ReadOnlyError):
                reader.save(MemoryNode([3.0]))
            with pytest.raises(engramdb.ReadOnlyError), reader.transaction() as tx:
                tx.save(MemoryNode([3.0]))
            for write in (
                lambda: reader.delete(first),
                lambda: reader.connect(first, second),
                lambda: reader.undo(),
                lambda: reader.clear_all(),
                lambda: reader.save_columns(embeddings=[[1.0]]),
            ):
                with pytest.raises(engramdb.ReadOnlyError):
                    write()
            with reader.transaction() as tx:
                assert tx.load(first).id == first


MEMORY_ID = str(MemoryNode().id)
USES: dict[str, Callable[[Database], Any]] = {
    "save": lambda db: db.save(MemoryNode([1.0])),
    "save_many": lambda db: db.save_many([MemoryNode([1.0])]),
    "save_many of none": lambda db: db.save_many([]),
    "save_columns": lambda db: db.save_columns(embeddings=[[1.0]]),
    "transaction": lambda db: db.transaction(),
    "load": lambda db: db.load(MEMORY_ID),
    "get": lambda db: db.get(MEMORY_ID),
    "delete": lambda db: db.delete(MEMORY_ID),
    "connect": lambda db: db.connect(MEMORY_ID, MEMORY_ID),
    "disconnect": lambda db: db.disconnect(MEMORY_ID, MEMORY_ID),
    "get_connections": lambda db: db.get_connections(MEMORY_ID),
    "get_connected_to": lambda db: db.get_connected_to(MEMORY_ID),
    "list_all": lambda db: db.list_all(),
    "len": lambda db: len(db),
    "in": lambda db: MEMORY_ID in db,
    "clear_all": lambda db: db.clear_all(),
    "search_similar": lambda db: db.search_similar([1.0]),
    "search_many": lambda db: db.search_many([[1.0]]),
    "query": lambda db: db.query().execute(),
    "history": lambda db: db.history(MEMORY_ID),
    "as_of": lambda db: db.as_of(0),
    "diff": lambda db: db.diff(0),
    "restore": lambda db: db.restore(MEMORY_ID, 0),
    "undo": lambda db: db.undo(),
    "undo a commit": lambda db: db.undo(commit=1),
    "tag": lambda db: db.tag("x"),
    "tags": lambda db: db.tags(),
    "untag": lambda db: db.untag("x"),
    "refresh": lambda db: db.refresh(),
    "fork": lambda db: db.fork("/nowhere"),
    "checkpoint": lambda db: db.checkpoint("/nowhere"),
    "changes": lambda db: db.changes(0),
    "purge": lambda db: db.purge(MEMORY_ID),
    "compact": lambda db: db.compact(),
    "flush": lambda db: db.flush(),
    "verify": lambda db: db.verify(),
    "stats": lambda db: db.stats(),
    "set_history": lambda db: db.set_history(engramdb.KeepAll()),
    "initialize": lambda db: db.initialize(),
    "last_seq": lambda db: db.last_seq,
}


@pytest.mark.parametrize("use", USES)
def test_every_use_after_close_is_refused(use: str) -> None:
    db = Database.in_memory()
    db.save(MemoryNode([1.0]))
    db.close()
    db.close()
    with pytest.raises(engramdb.ClosedError):
        USES[use](db)


def test_what_was_taken_from_a_database_is_refused_after_close() -> None:
    db = Database.in_memory()
    node = MemoryNode([1.0])
    db.save(node)
    past, query, tx = db.as_of(1), db.query().with_vector([1.0]), db.transaction()
    tx.__enter__()
    db.close()
    for use in (
        lambda: past.load(node.id),
        lambda: past.search_similar([1.0]),
        query.execute,
        lambda: tx.load(node.id),
        node.temporal_layers,
    ):
        with pytest.raises(engramdb.ClosedError):
            use()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_use_in_a_forked_child_is_refused(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db", background=False) as db:
        db.save(MemoryNode([1.0]))
        past = db.as_of(1)
        child = os.fork()
        if child == 0:
            wrong = [use for use in USES if not raises_closed(lambda use=use: USES[use](db))]
            wrong += [] if raises_closed(lambda: past.list_all()) else ["past"]
            if not raises_nothing(db.close):
                wrong.append("close")
            os.write(2, repr(wrong).encode() if wrong else b"")
            os._exit(min(len(wrong), 100))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        db.save(MemoryNode([2.0]))  # the parent goes on as if nothing had been
    with Database.file_based(tmp_path / "db") as db:
        assert len(db) == 2


def raises_closed(call: Callable[[], Any]) -> bool:
    try:
        call()
    except engramdb.ClosedError:
        return True
    except Exception:
        return False
    return False


def raises_nothing(call: Callable[[], Any]) -> bool:
    try:
        call()
    except Exception:
        return False
    return True


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({}, "storage_dir"),
        ({"storage_dir": ""}, "storage_dir"),
        ({"storage_dir": 3}, "storage_dir"),
        ({"storage_dir": "a\0b"}, "storage_dir"),
        ({"storage_dir": "x", "use_memory_storage": True}, "storage_dir"),
        ({"use_memory_storage": True, "read_only": True}, "read_only"),
        ({"use_memory_storage": 1}, "use_memory_storage"),
        ({"storage_dir": "x", "read_only": "yes"}, "read_only"),
        ({"storage_dir": "x", "background": None}, "background"),
        ({"storage_dir": "x", "cache_size": 0}, "cache_size"),
        ({"storage_dir": "x", "cache_size": True}, "cache_size"),
        ({"storage_dir": "x", "cache_size": 2.0}, "cache_size"),
        ({"storage_dir": "x", "durability": "none"}, "durability"),
        ({"storage_dir": "x", "durability": None}, "durability"),
        ({"storage_dir": "x", "sync_interval": 0}, "sync_interval"),
        ({"storage_dir": "x", "sync_interval": float("nan")}, "sync_interval"),
        ({"storage_dir": "x", "sync_interval": "1"}, "sync_interval"),
        ({"storage_dir": "x", "history": "all"}, "history"),
        ({"storage_dir": "x", "dimension": 0}, "dimension"),
        ({"storage_dir": "x", "dimension": 65_537}, "dimension"),
        ({"storage_dir": "x", "dimension": True}, "dimension"),
        ({"storage_dir": "x", "memtable_bytes": 10}, "memtable_bytes"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        DatabaseConfig(**settings)
    assert caught.value.argument == argument


def test_wrong_arguments_of_policies_are_refused() -> None:
    for make in (lambda: engramdb.KeepLast(0), lambda: engramdb.KeepFor(timedelta(-1))):
        with pytest.raises(InvalidInputError):
            make()


def test_a_database_wants_a_config() -> None:
    with pytest.raises(InvalidInputError, match="config"):
        Database("./path")  # type: ignore[arg-type]


@pytest.mark.parametrize("durability", ["sync", "interval", "os"])
def test_every_durability_keeps_what_close_has_seen(tmp_path: Path, durability: str) -> None:
    with Database.file_based(tmp_path / "db", durability=durability, sync_interval=0.01) as db:
        ids = [db.save(MemoryNode([float(number)])) for number in range(5)]
        db.save(MemoryNode([9.0]), sync=True)
        db.save(MemoryNode([9.0]), sync=False)
    with Database.file_based(tmp_path / "db") as db:
        assert len(db) == 7 and all(each in db for each in ids)
