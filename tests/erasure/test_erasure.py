"""After a purge no file holds a trace of the memory; nothing else has changed."""

from __future__ import annotations

import random

import pytest

import engramdb
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.erasure.crashes import OPTIONS, make
from tests.erasure.secret import Secret
from tests.erasure.states import NAMED


def check_erased(disk: SimulatedDisk, secret: Secret) -> None:
    """Erase it; then nothing of it may be in the files, now or after any power cut."""
    before = secret.other_states()
    was_there = secret.is_known()
    report = secret.db.purge(secret.id)
    if not secret.lossy:
        assert (report.versions + report.connection_versions > 0) == was_there
    assert not secret.is_known() and secret.id not in secret.db
    assert secret.traces() == []
    assert secret.other_states() == before
    for number in range(6):
        choice = [(), None, None, None, None, [-1] * 10_000][number]
        left = disk.crash(choice, rng=random.Random(number))
        assert secret.traces(left) == [], f"a power cut brought it back (crash {number})"
    assert secret.db.purge(secret.id).versions == 0
    assert secret.db.verify().ok
    secret.reopen()
    assert not secret.is_known() and secret.other_states() == before
    secret.db.save(engramdb.MemoryNode([0.0] * 8))
    secret.db.compact()
    assert secret.traces() == []
    secret.db.close()


@pytest.mark.parametrize("options", range(len(OPTIONS)))
@pytest.mark.parametrize("name", NAMED)
def test_no_trace_is_left(name: str, options: int) -> None:
    disk, secret = make(options, NAMED[name], options)
    if name not in ("dropped by retention", "dropped by retention at the flush"):
        assert secret.traces(), "what was never there cannot be erased"
    check_erased(disk, secret)


def test_the_scan_sees_through_every_encoding() -> None:
    _, secret = make(12, ("save", "connect", "save_columns", "flush"), 0)
    found = "\n".join(secret.traces())
    for name in ("key.high", "key.low", "source.high", "target.low"):
        assert f"half a key in the column {name} of /database/seg" in found
    assert "half a key in the column key.low of /database/vec" in found
    assert "in block 0 of /database/seg" in found and "in the bytes of /database/vec" in found
    secret.save()
    assert "in the bytes of /database/wal" in "\n".join(secret.traces())
    secret.db.close()


@pytest.mark.parametrize("seed", range(40))
def test_no_trace_is_left_of_random_lives(seed: int) -> None:
    check_erased(*make(seed, None, seed % len(OPTIONS)))


def test_what_was_erased_can_be_said_again() -> None:
    _, secret = make(7, ("save", "connect", "flush", "patch"), 0)
    secret.db.purge(secret.id)
    node = engramdb.MemoryNode([1.0] * 8, id=secret.id, attributes={"text": "something else"})
    seq = secret.db.last_seq
    secret.db.save(node, expected_seq=0)
    assert [layer.seq for layer in secret.db.history(secret.id)] == [seq + 1]
    assert secret.db.search_similar([1.0] * 8, 1)[0][0] == secret.id
    secret.db.close()


def test_nothing_brings_it_back() -> None:
    _, secret = make(8, ("save", "connect", "tag"), 0)
    seq = secret.db.last_seq
    loaded = secret.db.load(secret.id)
    secret.db.purge(secret.id)
    with pytest.raises(engramdb.MemoryNotFoundError):
        secret.db.restore(secret.id, seq)
    secret.db.undo(commit=seq)  # it wrote nothing that is left
    assert secret.db.last_seq == seq and not secret.is_known()
    assert all(secret.id not in str(commit) for commit in secret.db.changes(0))
    assert secret.id not in str(secret.db.diff(0))
    with pytest.raises(engramdb.ConflictError):
        secret.db.save(loaded, expected_seq=seq)
    assert secret.traces() == []
    secret.db.close()


@pytest.mark.parametrize("connects", [False, True])
def test_a_transaction_that_has_seen_it_cannot_commit(connects: bool) -> None:
    _, secret = make(9, ("save",), 0)
    with pytest.raises(engramdb.ConflictError), secret.db.transaction() as tx:
        node = tx.load(secret.id)
        if connects:
            tx.connect(secret.others[0], secret.id, "Knows")
        else:
            node.set_attribute("text", "again")
            tx.save(node)
        assert secret.db.purge(secret.id).versions == 1
    assert not secret.is_known() and secret.traces() == []
    secret.db.close()


def test_unknown_ids_and_ids_that_are_none() -> None:
    _, secret = make(10, ("save",), 0)
    before = secret.other_states()
    report = secret.db.purge(secret.new_id())
    assert (report.versions, report.vectors, report.files_rewritten) == (0, 0, 0)
    with pytest.raises(engramdb.InvalidInputError):
        secret.db.purge("no id")
    assert secret.is_known() and secret.other_states() == before
    secret.db.close()


def test_a_snapshot_that_is_open_keeps_what_it_saw() -> None:
    _, secret = make(11, ("save", "connect", "flush", "patch"), 0)
    past = secret.db.as_of(secret.db.last_seq)
    seen = past.load(secret.id)
    secret.db.purge(secret.id)
    assert past.load(secret.id).attributes == seen.attributes
    assert past.search_similar(seen.embeddings, 1)[0][0] == secret.id
    assert secret.traces() == [], "it keeps the files open; they have no names any more"
    past.close()
    secret.db.close()
