"""One writer at a time; whoever comes second is told who has it, and a kill lets go of it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from engramdb.errors import DatabaseLockedError, InvalidInputError
from engramdb.lsm.environment import Environment, MemoryEnvironment
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.unit.lsm_support import PATH, contents, open_engine, put, run_python, start_python

HOLD = """
import sys
from engramdb.lsm import Batch, StorageEngine
engine = StorageEngine.open(sys.argv[1])
batch = Batch()
batch.put(bytes(16), b"theirs")
engine.commit(batch)
print("open", flush=True)
sys.stdin.readline()
engine.close()
"""
TRY = """
import sys
from engramdb.errors import DatabaseLockedError
from engramdb.lsm import StorageEngine
try:
    StorageEngine.open(sys.argv[1]).close()
    print("open")
except DatabaseLockedError as error:
    print(error.pid)
"""


@pytest.mark.parametrize(
    "environment", [MemoryEnvironment(), SimulatedDisk()], ids=["memory", "simulated"]
)
def test_a_second_writer_in_this_process(environment: Environment) -> None:
    first = open_engine(environment)
    with pytest.raises(DatabaseLockedError, match=str(os.getpid())) as caught:
        open_engine(environment)
    assert (caught.value.pid, caught.value.path) == (os.getpid(), PATH)
    put(first, 1, b"still fine")
    first.close()
    open_engine(environment).close()


def test_a_second_writer_in_this_process_by_another_name(tmp_path: Path) -> None:
    real, other = tmp_path / "real", tmp_path / "link"
    with open_engine(None, str(real)):
        other.symlink_to(real)
        with pytest.raises(DatabaseLockedError):
            open_engine(None, str(other))


def test_a_writer_in_another_process_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with start_python(HOLD, path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        with pytest.raises(DatabaseLockedError, match=f"process {holder.pid}") as caught:
            open_engine(None, path)
        assert caught.value.pid == holder.pid
        holder.communicate("\n", timeout=20)
    with open_engine(None, path) as engine:
        assert engine.last_seq == 1


def test_this_process_is_named_to_another(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with open_engine(None, path):
        assert run_python(TRY, path) == f"{os.getpid()}\n"
    assert run_python(TRY, path) == "open\n"


def test_a_killed_writer_lets_go_and_what_it_acknowledged_is_there(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with start_python(HOLD, path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(timeout=20)
        with open_engine(None, path) as engine:
            assert [payload for payload, _, _ in contents(engine.latest()).values()] == [b"theirs"]


def test_of_many_at_once_one_gets_it() -> None:
    disk = SimulatedDisk()
    outcomes: list[str] = []

    def work() -> None:
        try:
            engine = open_engine(disk)
            outcomes.append("open")
            barrier.wait()
            engine.close()
        except DatabaseLockedError:
            outcomes.append("locked")
            barrier.wait()

    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["locked"] * 7 + ["open"]


def test_a_failed_opening_lets_go_of_the_lock() -> None:
    disk = SimulatedDisk()
    open_engine(disk, dimension=3).close()
    for _ in range(2):
        with pytest.raises(InvalidInputError):
            open_engine(disk, dimension=4)
    open_engine(disk).close()
