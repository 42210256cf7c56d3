"""A hundred writers are killed; and the same with bugs on purpose, each of which must be noticed.

Everything runs in a process of its own, which forks: the one that runs the tests has threads.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.lsm_support import run_python

KILLS = 100
KILLS_OF_A_MUTANT_MAX = 150

RUN = """
import json, tempfile
tempfile.tempdir = {place!r}
from tests.processes.directory import lives
tally, failures = lives({seed}, lambda tally: tally.kills >= {kills})
print(json.dumps([tally.kills, tally.acknowledged, tally.seen_by_readers, failures]))
"""


def run(
    place: Path, kills: int, *, bug: str = "", seed: int = 3
) -> tuple[int, int, int, list[str]]:
    code = RUN.format(place=str(place), seed=seed, kills=kills)
    found = json.loads(run_python(bug + code, timeout_s=600))
    return found[0], found[1], found[2], found[3]


def test_a_hundred_killed_writers_lose_nothing(tmp_path: Path) -> None:
    kills, acknowledged, seen, failures = run(tmp_path, KILLS)
    assert failures == []
    assert kills >= KILLS and acknowledged > 5 * KILLS and seen > KILLS


BUGS = {
    "acknowledged before it is written": (
        """
from engramdb.lsm.log_writer import LogWriter
real, kept = LogWriter.append, {}
def append(log, data):
    late = kept.pop(log.number, b"")
    kept[log.number] = data
    if late:
        real(log, late)
def sync(log):
    log.synced = log.size
LogWriter.append, LogWriter.sync = append, sync
"""
    ),
    "shown before it is written": (
        """
import time
from engramdb.lsm.log_writer import LogWriter
from engramdb.lsm import core
real, show, engines = LogWriter.append, core.Core.show, []
def note(self):
    engines[:] = [self]
    show(self)
def append(log, data):
    if engines and engines[0].log is log:
        log.size += len(data)
        show(engines[0])
        log.size -= len(data)
        time.sleep(0.001)
    real(log, data)
core.Core.show, LogWriter.append = note, append
"""
    ),
    "a transaction in two commits": (
        """
from engramdb.lsm import Batch, engine
real = engine.StorageEngine.commit
def commit(self, batch, **options):
    if len(batch.operations) == 2 and batch.rebuild is None:
        first, second = batch.operations.items()
        real(self, Batch({first[0]: first[1]}, dict(batch.expect), list(batch.guards)), **options)
        batch.operations, batch.expect = {second[0]: second[1]}, {}
    return real(self, batch, **options)
engine.StorageEngine.commit = commit
"""
    ),
    "recovery drops the last commit": (
        """
from engramdb.lsm import log_reader
real = log_reader.scan
def scan(data, seed, start, stop):
    records, end = real(data, seed, start, stop)
    if len(records) > 9 and len(records) % 5 == 0:
        return real(data, seed, start, int(records[len(records) - 1].offset))
    return records, end
log_reader.scan = scan
"""
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_noticed(name: str, tmp_path: Path) -> None:
    *_, failures = run(tmp_path, KILLS_OF_A_MUTANT_MAX, bug=BUGS[name])
    (failure,) = failures
    print(failure)
    assert "repeat(" in failure and "kept in" in failure
