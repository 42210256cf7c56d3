"""Rules that read, now and as of then."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from tests.model.checks import assert_same_hits, assert_same_state, ends_of, memory_of, same
from tests.model.machine import Machine, vectors
from tests.model.oracle import Name


class ReadRules(Machine):
    """Every read, compared with the oracle's."""

    @precondition(lambda self: len(self.held) < 3)
    @rule(data=st.data())
    def hold_a_snapshot(self, data: st.DataObject) -> None:
        seq = self.moment(data)
        with self.maybe_dropped(seq):
            past = self.db.as_of(seq)
            len(past)  # what is below the history floor is not complete, and says so
            oracle = self.oracle.copy()
            oracle.crash(seq)
            self.held.append((past, oracle))

    @invariant()
    def held_snapshots_never_change(self) -> None:
        for past, oracle in self.held:
            assert_same_state(past, oracle, None)

    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        memory_id = self.known(data)
        node = self.db.get(memory_id)
        assert same(
            None if node is None else memory_of(node), self.oracle.get(("memory", memory_id))
        )

    @rule(data=st.data())
    def get_as_of(self, data: st.DataObject) -> None:
        memory_id, seq = self.known(data), self.moment(data)
        with self.maybe_dropped(seq), self.db.as_of(seq) as past:
            node = past.get(memory_id)
            assert same(
                None if node is None else memory_of(node),
                self.oracle.get(("memory", memory_id), seq),
            )

    @rule(data=st.data(), later_us=st.integers(-1, 1))
    def everything_as_of_a_time(self, data: st.DataObject, later_us: int) -> None:
        wanted = self.moment(data)
        times = [time for time, seq in self.times if seq <= wanted]
        if not times:
            return
        moment = times[-1] + timedelta(microseconds=later_us)
        seq = max((seq for time, seq in self.times if time <= moment), default=0)
        memory_id = self.known(data)
        state = self.oracle.get(("memory", memory_id), seq)
        with self.maybe_dropped(seq, commits=True), self.db.as_of(moment) as past:
            node = past.get(memory_id)
            assert same(None if node is None else memory_of(node), state)
        with self.maybe_dropped(seq, commits=True), self.db.as_of(moment) as past:
            assert_same_state(past, self.oracle, seq)

    @rule(data=st.data())
    def everything_as_of(self, data: st.DataObject) -> None:
        seq = self.moment(data)
        with self.maybe_dropped(seq), self.db.as_of(seq) as past:
            assert_same_state(past, self.oracle, seq)

    @rule(data=st.data())
    def everything_as_of_a_tag(self, data: st.DataObject) -> None:
        assert {name: tag.seq for name, tag in self.db.tags().items()} == self.oracle.tags
        if self.oracle.tags:
            name = data.draw(st.sampled_from(sorted(self.oracle.tags)))
            with self.db.as_of(name) as past:
                assert_same_state(past, self.oracle, self.oracle.tags[name])

    @rule(data=st.data())
    def history(self, data: st.DataObject) -> None:
        memory_id = self.known(data)
        layers = self.db.history(memory_id)
        versions = self.oracle.versions.get(("memory", memory_id), [])
        expected = dict(versions)
        assert [layer.seq for layer in layers] == sorted({layer.seq for layer in layers})
        if self.lossy:
            assert {layer.seq for layer in layers} <= expected.keys()
            if versions and versions[-1][1] is not None:
                assert layers[-1].seq == versions[-1][0]
        else:
            assert [layer.seq for layer in layers] == [seq for seq, _ in versions]
        for layer in layers:
            state = expected[layer.seq]
            assert layer.deleted is (state is None)
            if state is not None:
                assert same(dict(layer.attributes), state.attributes)
                vector = layer.embeddings
                assert (None if vector is None else tuple(vector.tolist())) == state.vector

    @rule(query=vectors, limit=st.integers(1, 6), threshold=st.sampled_from([-1.0, 0.0, 0.5]))
    def search(self, query: tuple[float, ...], limit: int, threshold: float) -> None:
        if self.db.dimension is not None:
            hits = self.db.search_similar(query, limit, threshold)
            assert_same_hits(hits, self.oracle.search(query, limit, threshold))
            (many,) = self.db.search_many([query], limit, threshold)
            assert many == hits

    @rule(data=st.data(), query=vectors, limit=st.integers(1, 6))
    def search_as_of(self, data: st.DataObject, query: tuple[float, ...], limit: int) -> None:
        seq = self.moment(data)
        with self.maybe_dropped(seq):
            hits = self.db.search_similar(query, limit, -1.0, as_of=seq)
            assert_same_hits(hits, self.oracle.search(query, limit, -1.0, seq))

    @rule(data=st.data())
    def diff(self, data: st.DataObject) -> None:
        a, b = self.moment(data), self.moment(data)
        with self.maybe_dropped(a, b):
            difference = self.db.diff(a, b)
            was, is_ = self.oracle.memories(a), self.oracle.memories(b)
            assert difference.added == sorted(is_.keys() - was.keys())
            assert difference.removed == sorted(was.keys() - is_.keys())
            changed = [
                key
                for key in sorted(was.keys() & is_.keys())
                if not same(was[key].attributes, is_[key].attributes)
                or was[key].vector != is_[key].vector
            ]
            assert [change.id for change in difference.changed] == changed
            edges_before, edges_after = self.oracle.edges(a), self.oracle.edges(b)
            added = edges_after.keys() - edges_before.keys()
            removed = edges_before.keys() - edges_after.keys()
            assert {ends_of(each) for each in difference.connections.added} == added
            assert {ends_of(each) for each in difference.connections.removed} == removed

    @rule(data=st.data())
    def changes(self, data: st.DataObject) -> None:
        since = self.moment(data)
        with self.maybe_dropped(since, commits=True):
            told: list[Name] = []
            commits = self.db.changes(since)
            for commit in commits:
                told += [("memory", each) for each in commit.saved + commit.deleted]
                told += [("edge", ends) for ends in commit.connected + commit.disconnected]
            assert set(told) == set(self.oracle.touched(since, self.oracle.seq))
            assert [c.seq for c in commits] == sorted({c.seq for c in commits})

    @rule()
    def verify(self) -> None:
        assert self.db.verify().ok
