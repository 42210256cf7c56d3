"""The operations of a list that read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import engramdb
from tests.metamorphic.stage import Answer, Stage
from tests.metamorphic.texts import (
    commits_text,
    difference_text,
    hits_text,
    layer_text,
    node_text,
    state_text,
)

Moment = tuple[str, Any]


class Reads(Stage):
    """Each does what its name says."""

    def load(self, id: str) -> Answer:
        return Answer(node_text(self.db.load(id)), {})

    def everything(self) -> Answer:
        stats = self.db.stats()
        tags = {name: tag.seq for name, tag in self.db.tags().items()}
        counts = f"{stats['memories']} {stats['connections']} {self.db.dimension} {tags}"
        return Answer(f"{counts} {state_text(self.db)}", {})

    def search(
        self, vector: Any, limit: int, threshold: float, where: Any, moment: Moment | None
    ) -> Answer:
        at = None if moment is None else self.resolve(moment)

        def ask() -> str:
            found = self.db.search_similar(vector, limit, threshold, where=where, as_of=at)
            return hits_text(found)

        return Answer(ask(), {}) if at is None else self.asked(at, ask)

    def search_many(self, vectors: Any, limit: int, threshold: float, where: Any) -> Answer:
        found = self.db.search_many(vectors, limit, threshold, where=where)
        return Answer("; ".join(map(hits_text, found)), {})

    def query(
        self,
        vector: Any,
        where: Any,
        age_us: int | None,
        ids: list[str] | None,
        without: list[str],
        moment: Moment | None,
        limit: int | None,
    ) -> Answer:
        query = self.db.query().with_exclude_ids(without)
        if vector is not None:
            query.with_vector(vector)
        if where is not None:
            query.with_attribute_filter(where)
        if age_us is not None:
            age = timedelta(microseconds=age_us)
            query.with_temporal_filter(
                engramdb.TemporalFilter.within_last(age, last_modified=age_us > 10)
            )
        if ids is not None:
            query.with_ids(ids)
        if limit is not None:
            query.with_limit(limit)
        if moment is None:
            return Answer("\n".join(map(node_text, query.execute())), {})
        at = self.resolve(moment)
        query.as_of(at)
        return self.asked(at, lambda: "\n".join(map(node_text, query.execute())))

    def history(self, id: str) -> Answer:
        layers = self.db.history(id)
        told = {str(layer.seq): layer_text(layer) for layer in layers}
        if not self.keep:
            return Answer(str(told), {})
        last = [] if not layers or (self.keep == 1 and layers[-1].deleted) else layers[-self.keep :]
        return Answer(str([layer.seq for layer in last]), told)

    def as_of(self, moment: Moment, id: str, vector: Any) -> Answer:
        at = self.resolve(moment)

        def ask() -> str:
            with self.db.as_of(at) as past:
                node = past.get(id)
                return "none" if node is None else node_text(node)

        return self.asked(at, ask)

    def everything_as_of(self, moment: Moment) -> Answer:
        return self._state_of(self.db, moment)

    def _state_of(self, database: engramdb.Database, moment: Moment) -> Answer:
        at = self.resolve(moment)

        def ask() -> str:
            with database.as_of(at) as past:
                return f"{past.seq} {state_text(past)}"

        return self.asked(at, ask)

    def diff(self, a: Moment, b: Moment | None) -> Answer:
        one, other = self.resolve(a), None if b is None else self.resolve(b)
        both = one if other is None or not self.is_promised(one) else other
        return self.asked(both, lambda: difference_text(self.db.diff(one, other)))

    def changes(self, since: float) -> Answer:
        seq = round(since * self.db.last_seq)
        if not self.keep:
            return Answer(commits_text(self.db.changes(seq)), {})
        try:  # a tag keeps what was there, not the commits that led to it
            return Answer("", {"": commits_text(self.db.changes(seq))})
        except engramdb.HistoryUnavailableError:
            return Answer("", {})

    def hold(self, moment: Moment) -> Answer:
        if self.held is not None:
            self.held.close()
        seq = self.resolve(moment)
        assert isinstance(seq, int)
        self.held, self.held_seq = None, seq
        try:
            self.held = self.db.as_of(seq)
        except engramdb.HistoryUnavailableError:
            if self.is_promised(seq):
                raise
        return Answer(str(seq), {})

    def read_held(self, vector: Any) -> Answer:
        """A snapshot that has been held; opened again if the database was, meanwhile."""

        def ask() -> str:
            if self.held is None:
                self.held = self.db.as_of(self.held_seq)
            found = self.held.search_similar(vector, 5, -1.0)
            return f"{state_text(self.held)} {hits_text(found)}"

        return self.asked(self.held_seq, ask)

    def follow(self, moment: Moment) -> Answer:
        follower = self.follower()
        past = self._state_of(follower, moment)
        return Answer(f"{state_text(follower)} {past.required}", past.perhaps)
