"""What an erasure cannot reach is named: copies, readers, what a repair has put aside."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

import engramdb
from engramdb.lsm.environment import PosixEnvironment
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.erasure.secret import Secret


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    made = Secret(PosixEnvironment(), 1, str(tmp_path / "db"))
    made.fill()
    made.save()
    made.connect()
    made.db.flush()
    made.patch()
    return made


def purge(secret: Secret) -> engramdb.lsm.PurgeReport:
    report = secret.db.purge(secret.id)
    assert secret.traces() == []
    return report


def test_copies_are_named_as_long_as_they_are_where_they_were_made(
    secret: Secret, tmp_path: Path
) -> None:
    places = [str(tmp_path / name) for name in ("fork", "checkpoint", "second fork")]
    secret.db.fork(places[0]).close()
    secret.db.checkpoint(places[1])
    secret.db.fork(places[2]).close()
    secret.reopen()  # they are remembered
    assert purge(secret).copies == tuple(places)
    for place in places:
        assert secret.traces(path=place), "a copy is not touched"
    os.rename(places[0], tmp_path / "moved")
    assert purge(secret).copies == tuple(places[1:]), "one that was moved is not known any more"
    assert secret.traces(path=str(tmp_path / "moved"))
    with secret.open(str(tmp_path / "moved")) as moved:
        assert moved.purge(secret.id).versions == 2
    assert secret.traces(path=str(tmp_path / "moved")) == []
    with secret.open(places[1]) as checkpoint:
        assert checkpoint.purge(secret.id).copies == ()
    assert secret.traces(path=places[1]) == []
    secret.db.close()


def test_what_was_made_of_a_copy_is_known_to_the_copy(secret: Secret, tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    with secret.db.fork(first) as fork:
        fork.checkpoint(second)
        assert purge(secret).copies == (first,)
        assert fork.purge(secret.id).copies == (second,)
    secret.db.close()


def test_a_copy_that_failed_halfway_is_named() -> None:
    disk = SimulatedDisk()
    secret = Secret(disk, 2)
    secret.fill()
    secret.save()
    secret.db.flush()
    disk.fail("link", 3, error=errno.EIO)  # the first one publishes a manifest
    with pytest.raises(engramdb.EngramError):
        secret.db.checkpoint("/copy")
    disk.heal()
    assert secret.traces(path="/copy")
    assert purge(secret).copies == ("/copy",)
    secret.db.close()


def test_lost_is_named_if_a_repair_has_put_anything_there(secret: Secret, tmp_path: Path) -> None:
    lost = tmp_path / "db" / "lost"
    lost.mkdir()
    assert purge(secret).copies == ()
    (lost / "000001.wal").write_bytes(b"torn")
    assert purge(secret).copies == (str(lost),)
    secret.db.close()


def test_readers_are_named(secret: Secret, tmp_path: Path) -> None:
    reader = engramdb.Database.open(tmp_path / "db", read_only=True)
    assert purge(secret).readers == (os.getpid(),)
    assert secret.id in reader, "it goes on reading the files that it has open"
    reader.refresh()
    assert secret.id not in reader and reader.history(secret.id) == []
    reader.close()
    assert purge(secret).readers == ()
    secret.db.close()


def test_a_place_that_is_used_again_is_named_once(secret: Secret, tmp_path: Path) -> None:
    place = tmp_path / "checkpoint"
    for _ in range(3):
        shutil.rmtree(place, ignore_errors=True)
        secret.db.checkpoint(place)
    assert secret.db.stats()["copies"] == [str(place)]
    assert purge(secret).copies == (str(place),)
    secret.db.close()
