"""What once went wrong while codes are made in the background: losses, leaks, and ends that were
none."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engramdb
from engramdb.errors import ClosedError, CorruptionError
from engramdb.indexing.asked import Asked
from engramdb.indexing.indexer import Indexer
from engramdb.indexing.keeper import Keeper
from engramdb.lsm.derived import Derived
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.unit.codes_support import (
    EVERYTHING,
    PATH,
    Floats32,
    gaussian,
    id_of,
    indexer_of,
    open_database,
    save,
    save_with_codes,
    searched,
    small_files_have_codes,
)
from tests.unit.lsm_support import run_python

VECTORS = gaussian(600, 16)


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_files_have_codes(EVERYTHING):
        yield


def stored(db: engramdb.Database) -> list[str]:
    """The names of stored codes."""
    return db._engine.derived.names("codes-")


def damage(disk: SimulatedDisk, name: str) -> None:
    """Of the codes themselves, which are mapped and come last: not noticed when they are loaded."""
    path = f"{PATH}/derived/{name}.drv"
    # the matrix lies before its sums, the directory and the footer
    disk.rot(path, 8 * (len(disk.content(path)) - 2048))


def with_damage(**options: Any) -> tuple[SimulatedDisk, engramdb.Database]:
    """A database that has just been opened, whose codes are damaged."""
    disk = SimulatedDisk()
    with open_database(disk) as db:
        save_with_codes(db, VECTORS)
        (name,) = {each.removesuffix("-effort") for each in stored(db)}
    damage(disk, name)
    return disk, open_database(disk, **options)


def test_a_filter_that_makes_exceptions_of_warnings_does_not_keep_damaged_codes() -> None:
    _, db = with_damage()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="built again"):
            db.search_similar(VECTORS[0], 3, -1.0)
        assert db.search_similar(VECTORS[0], 1, -1.0)[0][0] == id_of(0)
        db.build_index()
        assert db.stats()["index"]["damaged"] == 1 and searched(db) == ["clusters"]
    db.close()


def test_a_reader_is_told_of_damage_once() -> None:
    disk, writer = with_damage()
    reader = engramdb.Database.open(PATH, read_only=True, environment=disk)
    with pytest.warns(RuntimeWarning, match="built again"):
        reader.search_similar(VECTORS[0], 3, -1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):  # it cannot remove them, and does not load them again
            assert reader.search_similar(VECTORS[0], 1, -1.0)[0][0] == id_of(0)
        assert reader.stats()["index"]["damaged"] == 1
        assert searched(reader) == ["scan"]
    with pytest.warns(RuntimeWarning):
        writer.build_index()
    reader.refresh()
    reader.search_similar(VECTORS[0], 1, -1.0)
    assert searched(reader) == ["clusters"]
    reader.close()
    writer.close()


def test_damage_that_two_meet_at_once_is_told_once() -> None:
    """A search and the thread of the indexer, in the same codes: it was counted, and warned of, by
    both of them."""
    _, db = with_damage()
    with pytest.warns(RuntimeWarning, match="built again"):
        db.search_similar(VECTORS[0], 3, -1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (number,) = (each.number for each in db._engine.latest().version.vectors)
        late = CorruptionError(f"{PATH}/derived/codes-{number}.drv", 0, "a sum", "another")
        assert indexer_of(db).forget_damaged(late)
    assert db.stats()["index"]["damaged"] == 1
    db.close()


def test_a_reader_finds_what_its_writer_has_built_meanwhile() -> None:
    disk = SimulatedDisk()
    writer = open_database(disk)
    save(writer, VECTORS)
    writer.flush()
    reader = engramdb.Database.open(PATH, read_only=True, environment=disk)
    reader.search_similar(VECTORS[0], 1, -1.0)
    writer.build_index()
    reader.refresh()
    reader.search_similar(VECTORS[0], 1, -1.0)
    assert searched(reader) == ["clusters"]
    reader.close()
    writer.close()


def test_damaged_codes_that_cannot_be_removed_do_not_end_in_a_loop() -> None:
    _, db = with_damage()
    with pytest.MonkeyPatch.context() as patch, pytest.warns(RuntimeWarning):
        patch.setattr(Derived, "remove", lambda *_: False)
        db.build_index()
    assert db.stats()["index"]["damaged"] == 1 and searched(db) == ["clusters"]
    db.close()


def test_codes_that_are_damaged_each_time_are_given_up() -> None:
    disk = SimulatedDisk()
    db = open_database(disk)
    save(db, VECTORS)
    db.flush()
    store = Derived.store

    def spoilt(derived: Derived, name: str, *given: Any, **named: Any) -> bool:
        done = store(derived, name, *given, **named)
        if name.removeprefix("codes-").isdigit():
            damage(disk, name)
        return done

    with pytest.MonkeyPatch.context() as patch, pytest.warns(RuntimeWarning):
        patch.setattr(Derived, "store", spoilt)
        db.build_index()
    assert db.stats()["index"]["damaged"] == 3 and searched(db) == ["scan"]
    assert db.search_similar(VECTORS[0], 1, -1.0)[0][0] == id_of(0)
    db.close()


def test_damage_met_by_a_calibration_is_mended() -> None:
    _, db = with_damage(recall_target=0.9)
    with pytest.MonkeyPatch.context() as patch, pytest.warns(RuntimeWarning):

        def reading(keeper: Keeper, known: Any, *_: Any) -> Any:
            known.codes.check(lambda: None)
            return known

        patch.setattr(Keeper, "recalibrate", reading)
        db.build_index()
    assert db.stats()["index"]["damaged"] == 1 and searched(db) == ["clusters"]
    db.close()


def test_what_is_erased_while_codes_are_built_is_stored_in_none() -> None:
    disk = SimulatedDisk()
    db = open_database(disk)
    save(db, VECTORS[:200])
    db.flush()
    save(db, VECTORS[200:], first=200)
    db.flush()
    build, erased = Keeper.make, []

    def make(keeper: Keeper, queries: Floats32, target: float) -> Any:
        if not erased:  # meanwhile, in another thread; the files were listed before
            erased.append(db._engine.purge([bytes.fromhex(id_of(100).replace("-", ""))]))
        return build(keeper, queries, target)

    names: list[list[str]] = []
    drop = Indexer._drop

    def dropping(indexer: Indexer, present: set[int]) -> None:
        names.append(stored(db))
        drop(indexer, present)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "make", make)
        patch.setattr(Indexer, "_drop", dropping)
        db.build_index()
    numbers = {file.number for file in db._engine.latest().version.vectors}
    seen = {int(name.split("-")[1]) for some in names for name in some}
    assert erased and seen <= numbers, "codes of a file that was replaced hold what was erased"
    assert {int(name.split("-")[1]) for name in stored(db)} == numbers
    db.close()


def test_calibrations_belong_to_the_codes_that_they_were_made_with() -> None:
    disk = SimulatedDisk()
    db = open_database(disk)
    save_with_codes(db, VECTORS)
    (file,) = db._engine.latest().version.vectors
    derived = db._engine.derived
    efforts = derived.load(f"codes-{file.number}-effort", stamp=b"")
    assert efforts is None
    indexer = indexer_of(db)
    keeper = indexer._keeper(file)
    assert keeper.load() is not None

    def cut_short(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Keeper, "_trial", cut_short)  # the codes are stored by then
        keeper.make(gaussian(300, 16, seed=9), 0.99)
    assert keeper.load() is None, "other codes, and what was found out about those before"
    db.close()


def test_codes_of_files_that_are_gone_are_removed_after_opening(tmp_path: Path) -> None:
    """Also where no file is large enough for codes any more."""
    path = str(tmp_path / "db")
    with engramdb.Database.file_based(path, background=False, index="numpy") as db:
        save_with_codes(db, VECTORS)
        db.purge(id_of(0))
        db.build_index()
        assert len(stored(db)) == 2
    derived = tmp_path / "db" / "derived"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Indexer, "_files", lambda _: [])
        with engramdb.Database.file_based(path):
            until(lambda: not list(derived.glob("codes-*")))


def until(is_done: Any) -> None:
    """Wait for what happens in another thread; the test's own time limit ends what never does."""
    while not is_done():
        time.sleep(0.01)


def test_closing_while_another_thread_builds_is_a_closed_error() -> None:
    db = open_database(SimulatedDisk())
    save(db, VECTORS)
    db.flush()
    errors: list[BaseException] = []
    building, closed = threading.Event(), threading.Event()

    def paused(indexer: Indexer) -> None:
        building.set()
        closed.wait()
        pause(indexer)

    def build() -> None:
        try:
            db.build_index()
        except BaseException as error:
            errors.append(error)

    pause = Indexer._pause
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Indexer, "_pause", paused)
        thread = threading.Thread(target=build)
        thread.start()
        building.wait()
        db.close()
        closed.set()
        thread.join()
    assert [type(error) for error in errors] == [ClosedError]


def test_closing_in_the_middle_of_a_build_of_the_same_thread_does_not_wait_for_ever() -> None:
    """As from a signal handler."""
    db = open_database(SimulatedDisk(), background=True)
    pause, closed = Indexer._pause, []

    def closing(indexer: Indexer) -> None:
        if threading.current_thread() is threading.main_thread() and not closed:
            closed.append(True)
            db.close()
        pause(indexer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Indexer, "_pause", closing)
        save(db, VECTORS)
        with indexer_of(db)._working:
            db.flush()  # the thread wants to work, too
            with pytest.raises(ClosedError):
                db.build_index()
    assert closed


def test_no_thread_to_be_had_is_no_reason_to_fail() -> None:
    disk = SimulatedDisk()
    start = threading.Thread.start

    def none_left(thread: threading.Thread) -> None:
        if thread.name == "engramdb-index":
            raise RuntimeError("can't start new thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        db = open_database(disk, background=True)
        save(db, VECTORS)
        db.flush()
        assert "thread" in db.stats()["index"]["failure"]
        db.close()
        open_database(disk, background=True).close()


def test_the_thread_outlives_what_nobody_expected() -> None:
    db = open_database(SimulatedDisk(), background=True)

    def failing(*_: Any) -> Any:
        raise ArithmeticError("nobody expected it")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "make", failing)
        save(db, VECTORS)
        db.flush()
        until(lambda: "nobody" in db.stats()["index"]["failure"])
    assert searched(db) == ["scan"]
    db.build_index()
    assert searched(db) == ["clusters"] and indexer_of(db)._thread is not None
    assert indexer_of(db)._thread.is_alive()
    db.close()


def test_new_spaces_may_be_asked_in_while_statistics_are_made() -> None:
    db = open_database(SimulatedDisk())
    indexer = indexer_of(db)
    indexer.asked("a", VECTORS[0])
    indexer.asked("b", VECTORS[0])
    queries = Asked.queries

    def meanwhile(asked: Asked) -> Floats32:
        indexer.asked(f"c{len(indexer._asked)}", VECTORS[0])
        return queries(asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Asked, "queries", meanwhile)
        assert db.stats()["index"]["queries_kept"] == 2
    db.close()


def test_a_search_that_is_interrupted_while_it_loads_codes_leaves_them_to_the_next() -> None:
    disk = SimulatedDisk()
    with open_database(disk) as db:
        save_with_codes(db, VECTORS)
    db = open_database(disk)

    def interrupted(_: Keeper) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Keeper, "load", interrupted)
        db.search_similar(VECTORS[0], 1, -1.0)
    db.search_similar(VECTORS[0], 1, -1.0)
    assert searched(db) == ["clusters"]
    db.close()


def test_a_dropped_database_is_closed_whatever_its_thread_is_doing(tmp_path: Path) -> None:
    """The collector may run in that thread, in the middle of a store."""
    path = str(tmp_path / "db")
    kept: list[Any] = []
    welcome = Derived._is_welcome

    def collecting(derived: Derived, erasures: int) -> bool:
        if kept and threading.current_thread().name == "engramdb-index":
            kept.clear()
            gc.collect()
        return welcome(derived, erasures)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Derived, "_is_welcome", collecting)
        kept.append(engramdb.Database.file_based(path, index="numpy"))
        engine = kept[0]._engine
        save(kept[0], VECTORS)
        engine.flush()
        until(lambda: not kept)
        until(lambda: not engine.is_open)
    engramdb.Database.file_based(path).close()


def test_no_thread_is_in_the_middle_of_a_product_when_the_interpreter_ends() -> None:
    code = """
import atexit, threading
def names():
    print("engramdb-index" in [thread.name for thread in threading.enumerate()])
atexit.register(names)
from tests.unit.codes_support import engramdb, gaussian, save, small_files_have_codes
with small_files_have_codes():
    db = engramdb.Database.in_memory(index="numpy")
    save(db, gaussian(20_000, 64))
    db.flush()
    names()
"""
    assert run_python(code).split() == ["True", "False"]
