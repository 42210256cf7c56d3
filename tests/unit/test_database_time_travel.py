"""Past moments, differences, going back, tags, forks, erasure."""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engramdb import (
    MISSING,
    ConflictError,
    Database,
    HistoryUnavailableError,
    InvalidInputError,
    KeepAll,
    KeepFor,
    KeepLast,
    MemoryNode,
    MemoryNotFoundError,
    TemporalFilter,
)


@pytest.fixture
def db() -> Any:
    with Database.in_memory() as database:
        yield database


def believe(db: Database, node: MemoryNode, belief: str, *vector: float) -> datetime:
    """Save a belief; returns the moment."""
    node.set_attribute("belief", belief)
    if vector:
        node.embeddings = list(vector)
    return db.history(db.save(node))[-1].timestamp


def test_every_read_as_of_a_moment(db: Database) -> None:
    node, other = MemoryNode(), MemoryNode([0.0, 1.0])
    first = believe(db, node, "flat", 1.0, 0.0)
    second = believe(db, node, "round", 0.0, 1.0)
    db.save(other)
    db.connect(node.id, other.id)
    db.delete(node.id)
    for moment in (1, first, second - timedelta(microseconds=1)):
        past = db.as_of(moment)
        assert past.seq == 1 and len(past) == 1 and past.list_all() == [node.id]
        assert past.load(node.id).get_attribute("belief") == "flat"
        assert past.search_similar([1.0, 0.0]) == [(node.id, 1.0)]
        assert past.search_many([[1.0, 0.0]]) == [[(node.id, 1.0)]]
        assert past.query().with_vector([1.0, 0.0]).execute()[0].score == 1.0
        assert other.id not in past and past.get(other.id) is None
        with pytest.raises(MemoryNotFoundError):
            past.load(other.id)
        assert past.get_connections(node.id) == []
        assert [layer.seq for layer in past.history(node.id)] == [1]
        assert len(past.load(node.id).temporal_layers()) == 1
        assert db.search_similar([1.0, 0.0], as_of=moment) == [(node.id, 1.0)]
        assert db.query().as_of(moment).ids() == [node.id]
    with db.as_of(4) as past:
        assert len(past.get_connections(node.id)) == 1 == len(past.get_connected_to(other.id))
        assert past.search_similar([0.0, 1.0], 5) == [(id_, 1.0) for id_ in past.list_all()]
        assert past.search_similar([1.0, 0.0], as_of=1) == [(node.id, 1.0)]
        with pytest.raises(InvalidInputError):
            past.search_similar([1.0, 0.0], as_of=5)  # its future
    assert len(db.as_of(0)) == 0 and db.as_of(0).history(node.id) == []
    assert len(db.as_of(datetime(1990, 1, 1, tzinfo=UTC))) == 0
    assert db.as_of(datetime.now(UTC) + timedelta(days=1)).seq == 5
    with pytest.raises(InvalidInputError, match="timezone"):
        db.as_of(datetime(2024, 1, 1))


def test_a_past_moment_stays_as_it_is(db: Database) -> None:
    node = MemoryNode([1.0])
    db.save(node)
    past = db.as_of(1)
    for number in range(50):
        believe(db, node, str(number))
    db.set_history(KeepLast(1))
    db.compact()
    assert dict(past.load(node.id).attributes) == {}
    assert past.search_similar([1.0]) == [(node.id, 1.0)]


def test_a_temporal_filter_counts_back_from_the_moment(db: Database) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=30)
    node = MemoryNode(creation_timestamp=long_ago)
    db.save(node)
    recent = TemporalFilter.within_last(timedelta(days=7))
    assert db.query().with_temporal_filter(recent).ids() == []
    assert db.query().with_temporal_filter(TemporalFilter.before(datetime.now(UTC))).count() == 1
    saved = TemporalFilter.within_last(timedelta(days=7), last_modified=True)
    assert db.query().with_temporal_filter(saved).ids() == [node.id]


def test_diff_says_what_became_of_a_moment(db: Database) -> None:
    kept, changed, gone = (MemoryNode([1.0], attributes={"a": 1, "b": None}) for _ in range(3))
    db.save_many([kept, changed, gone])
    db.connect(kept.id, gone.id, "x")
    db.connect(kept.id, changed.id, "y", 0.5)
    before = db.tag("before").seq
    db.delete(gone.id)
    added = db.save(MemoryNode())
    changed.set_attribute("a", 1.0)
    changed.remove_attribute("b")
    changed.set_attribute("c", [True])
    changed.embeddings = [2.0]
    db.save(changed)
    db.save(kept, reason="the same again")
    db.connect(kept.id, changed.id, "y", 0.75)
    db.connect(added, added, "z")

    difference = db.diff("before")
    assert difference.added == [added] and difference.removed == [gone.id]
    (change,) = difference.changed
    assert change.id == changed.id and change.embeddings_changed
    shown = {name: (each.old, each.new) for name, each in change.attributes.items()}
    assert shown == {"a": (1, 1.0), "b": (None, MISSING), "c": (MISSING, [True])}
    assert isinstance(change.attributes["a"].new, float) and not MISSING
    connections = difference.connections
    assert [each.relationship_type for each in connections.added] == ["z"]
    assert [each.relationship_type for each in connections.removed] == ["x"]
    (moved,) = connections.changed
    assert (moved.old.strength, moved.new.strength) == (0.5, 0.75)

    back = db.diff(db.last_seq, "before")
    assert back.added == [gone.id] and back.removed == [added]
    assert back.changed[0].attributes["c"].new is MISSING
    assert difference and not db.diff(before, before) and not db.diff(db.last_seq)


def test_restore_makes_a_new_version(db: Database) -> None:
    node = MemoryNode()
    believe(db, node, "flat", 1.0)
    believe(db, node, "round", 2.0)
    db.delete(node.id)
    db.restore(node.id, 1)
    assert db.load(node.id).get_attribute("belief") == "flat"
    assert db.search_similar([1.0]) == [(node.id, 1.0)]
    layers = db.history(node.id)
    assert [layer.deleted for layer in layers] == [False, False, True, False]
    assert layers[-1].reason == "restored as of commit 1"
    db.restore(node.id, 2, reason="made up my mind")
    assert db.history(node.id)[-1].reason == "made up my mind"
    assert db.load(node.id).creation_timestamp == node.creation_timestamp
    for moment in (0, 3):
        with pytest.raises(MemoryNotFoundError, match=f"as of {moment}"):
            db.restore(node.id, moment)


def test_undo_is_a_commit_like_any_other(db: Database) -> None:
    node = MemoryNode()
    believe(db, node, "flat")
    believe(db, node, "round")
    assert db.undo() == 3
    assert db.load(node.id).get_attribute("belief") == "flat"
    assert db.undo() == 4  # the undo is undone
    assert db.load(node.id).get_attribute("belief") == "round"
    assert db.undo(4) == 5
    assert node.id not in db
    assert db.undo(commit=5) == 6
    assert db.load(node.id).get_attribute("belief") == "round"
    assert [layer.reason for layer in db.history(node.id)][2:] == [
        "undo of commit 2",
        "undo of commit 3",
        None,
        "undo of commit 5",
    ]


def test_undo_of_one_commit_leaves_the_others_alone(db: Database) -> None:
    one, other = MemoryNode(), MemoryNode()
    believe(db, one, "first")
    believe(db, other, "second")
    believe(db, one, "third")
    (commit,) = [each for each in db.changes(0) if each.seq == 2]
    db.undo(commit)
    assert other.id not in db and db.load(one.id).get_attribute("belief") == "third"
    with pytest.raises(ConflictError, match="commit 3"):
        db.undo(commit=1)
    assert db.last_seq == 4


def test_undo_never_leaves_a_connection_without_an_end(db: Database) -> None:
    a, b = db.save(MemoryNode()), db.save(MemoryNode())
    db.connect(a, b)
    with pytest.raises(ConflictError, match="connection"):
        db.undo(commit=2)  # b, which commit 3 has connected
    db.delete(a)
    db.delete(b)
    with pytest.raises(ConflictError, match="connection"):
        db.undo(commit=4)  # the connection to b, which is gone
    db.undo(2)
    assert len(db.get_connections(a)) == 1


def test_changes_tell_who_wrote_what(db: Database) -> None:
    a, b = db.save_many([MemoryNode(), MemoryNode()])
    db.connect(a, b, "x")
    db.disconnect(a, b)
    db.connect(a, b, "y")
    db.delete(b)
    commits = db.changes(0)
    assert [each.seq for each in commits] == [1, 2, 3, 4, 5]
    assert sorted(commits[0].saved) == sorted([a, b]) and commits[0].deleted == []
    assert commits[1].connected == [(a, b, "x")] == commits[2].disconnected
    assert commits[4].deleted == [b] and commits[4].disconnected == [(a, b, "y")]
    assert all(x.timestamp < y.timestamp for x, y in itertools.pairwise(commits))
    assert db.changes(3) == commits[3:] and db.changes(5) == []


def test_a_flush_changes_no_order_and_no_message(db: Database) -> None:
    first, second, third = sorted(str(uuid.UUID(int=n)) for n in (1, 2, 3))
    db.save_many([MemoryNode(id=each) for each in (second, third, first)])
    with db.transaction() as tx:
        for ends in ((third, first), (first, third), (second, first)):
            tx.connect(*ends)
    db.save_many([MemoryNode(id=each) for each in (third, second)])

    def told() -> tuple[object, ...]:
        with pytest.raises(ConflictError) as caught:
            db.undo(commit=1)
        return db.changes(0), str(caught.value)

    before = told()
    assert db.changes(0)[0].saved == [first, second, third]
    assert [ends[:2] for ends in db.changes(0)[1].connected] == sorted(
        [(third, first), (first, third), (second, first)]
    )
    assert second in before[1]  # type: ignore[operator]
    db.flush()
    assert told() == before


def test_tags_name_moments_and_keep_them(db: Database) -> None:
    node = MemoryNode()
    believe(db, node, "flat", 1.0)
    tag = db.tag("old days")
    believe(db, node, "round", 2.0)
    assert db.tag("middle", as_of=2).seq == 2
    believe(db, node, "an ellipsoid", 3.0)
    assert list(db.tags()) == ["old days", "middle"] and db.tags()["old days"] == tag
    assert tag.seq == 1 and tag.timestamp == db.history(node.id)[0].timestamp
    with pytest.raises(InvalidInputError, match="name"):
        db.tag("middle")
    assert db.untag("middle") and not db.untag("middle")
    db.set_history(KeepLast(1))
    db.compact()
    assert db.as_of("old days").load(node.id).get_attribute("belief") == "flat"
    assert db.search_similar([1.0], as_of="old days") == [(node.id, 1.0)]
    for read in (
        lambda: db.search_similar([1.0], as_of=2),
        lambda: db.as_of(2).list_all(),
        lambda: db.as_of(2).load(node.id),
        lambda: db.diff(2),
        lambda: db.restore(node.id, 2),
        lambda: db.tag("too late", as_of=2),
        lambda: db.changes(0),
    ):
        with pytest.raises(HistoryUnavailableError):
            read()
    assert [layer.seq for layer in db.history(node.id)] == [1, 3]
    assert db.diff("old days").changed[0].id == node.id


def test_a_time_whose_commits_were_dropped_is_not_taken_for_an_earlier_one(db: Database) -> None:
    """The tag's moment is the last of which anything is left, but it is not the one asked for."""
    node, stays, late = MemoryNode(), MemoryNode(), MemoryNode()
    db.save(stays)
    tagged = believe(db, node, "flat")
    db.tag("old days")
    between = believe(db, node, "round")
    after = believe(db, late, "a disc")
    believe(db, late, "a ball")
    gone = believe(db, node, "an ellipsoid")
    db.set_history(KeepLast(1))
    db.compact()
    assert db.as_of(tagged).load(node.id).get_attribute("belief") == "flat"
    assert db.as_of(gone).load(node.id).get_attribute("belief") == "an ellipsoid"
    for moment in (between, after, gone - timedelta(microseconds=1)):
        past = db.as_of(moment)
        assert past.load(stays.id).id == stays.id
        for read in (
            lambda past=past: past.load(node.id),
            lambda past=past: past.list_all(),
            lambda moment=moment: db.diff(moment),
            lambda moment=moment: db.tag("too late", as_of=moment),
            lambda moment=moment: db.restore(node.id, moment),
            lambda moment=moment: db.search_similar([1.0], as_of=moment),
        ):
            with pytest.raises(HistoryUnavailableError):
                read()


def test_what_was_not_dropped_can_be_loaded_below_the_floor(db: Database) -> None:
    stays, moves = MemoryNode(), MemoryNode()
    believe(db, stays, "for good")
    for number in range(5):
        believe(db, moves, str(number))
    db.set_history(KeepLast(1))
    db.compact()
    past = db.as_of(2)
    assert past.load(stays.id).get_attribute("belief") == "for good"
    with pytest.raises(HistoryUnavailableError):
        past.load(moves.id)
    with pytest.raises(HistoryUnavailableError):
        past.list_all()


def test_history_policies_are_kept_with_the_database(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db", history=KeepLast(2)) as db:
        node = MemoryNode()
        for number in range(4):
            believe(db, node, str(number))
        db.compact()
        assert len(db.history(node.id)) == 2
        db.set_history(KeepFor(timedelta(days=1)))
    with Database.file_based(tmp_path / "db", history=KeepAll()) as db:
        for number in range(4):
            believe(db, node, str(number))
        db.compact()
        assert len(db.history(node.id)) == 6


def test_a_fork_lives_its_own_life(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db") as db:
        node = MemoryNode()
        believe(db, node, "flat", 1.0, 0.0)
        believe(db, node, "round", 0.0, 1.0)
        with db.fork(tmp_path / "fork") as fork:
            assert fork.as_of(1).load(node.id).get_attribute("belief") == "flat"
            believe(fork, fork.load(node.id), "hollow", 1.0, 1.0)
            db.delete(node.id)
            assert fork.load(node.id).get_attribute("belief") == "hollow"
            assert node.id not in db and len(fork) == 1
    with Database.open(tmp_path / "fork") as fork:
        assert fork.search_similar([1.0, 1.0])[0][0] == node.id
        assert len(fork.history(node.id)) == 3


def test_a_fork_in_memory(db: Database) -> None:
    node = MemoryNode([1.0])
    db.save(node)
    with db.fork("/fork") as fork:
        fork.delete(node.id)
        assert node.id in db and node.id not in fork
        with pytest.raises(InvalidInputError):
            db.fork("/fork")


def test_a_checkpoint_is_a_database(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db") as db:
        kept = db.save(MemoryNode([1.0]))
        db.checkpoint(tmp_path / "checkpoint")
        later = db.save(MemoryNode([2.0]))
    with Database.open(tmp_path / "checkpoint") as copy:
        assert kept in copy and later not in copy and copy.last_seq == 1


def test_purge_erases_every_trace(tmp_path: Path) -> None:
    secret = f"secret-{uuid.uuid4()}"
    with Database.file_based(tmp_path / "db") as db:
        node, other = MemoryNode([1.0], attributes={"text": secret}), MemoryNode([2.0])
        db.save_many([node, other])
        db.connect(node.id, other.id, "knows", attributes={"text": secret})
        db.tag("then")
        db.flush()
        believe(db, node, secret)
        db.purge(node.id)
        assert node.id not in db and db.history(node.id) == []
        assert db.get_connected_to(other.id) == []
        assert db.list_all() == [other.id] == db.as_of("then").list_all()
        assert db.search_similar([1.0], as_of="then") == [(other.id, 1.0)]
        assert node.id not in {each for commit in db.changes(0) for each in commit.saved}
        db.purge(node.id)  # harmless when repeated
        for path in sorted((tmp_path / "db").rglob("*")):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
    with Database.file_based(tmp_path / "db") as db:
        assert db.list_all() == [other.id]


def test_stats_and_verify(db: Database) -> None:
    a, b = db.save_many([MemoryNode([1.0]), MemoryNode([2.0])])
    db.connect(a, b)
    db.flush()
    stats = db.stats()
    assert stats["memories"] == 2 and stats["connections"] == 1
    assert db.verify().ok
    db.compact()
    assert db.verify().ok
