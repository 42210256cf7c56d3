"""The operations of a list that write, and those about the files."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np

import engramdb
from tests.metamorphic.operations import Row
from tests.metamorphic.stage import Answer, Stage
from tests.metamorphic.texts import hits_text, state_text


class GivenUp(Exception):
    """Ends a transaction."""


def node_of(row: Row) -> engramdb.MemoryNode:
    memory_id, attributes, vector = row
    return engramdb.MemoryNode(vector, id=memory_id, attributes=attributes)


class Writes(Stage):
    """Each does what its name says, and returns what the caller was told."""

    def save(self, row: Row, reason: str | None, sync: bool | None, expected: str | None) -> Answer:
        node = node_of(row)
        newest = self.db.history(node.id)[-1].seq if node.id in self.db else 0
        expected_seq = {None: None, "newest": newest, "wrong": newest + 1}[expected]
        told = self.db.save(node, reason=reason, sync=sync, expected_seq=expected_seq)
        return self.wrote(told, sync)

    def patch(self, id: str, value: Any, sync: bool | None) -> Answer:
        node = self.db.load(id)
        node.set_attribute("patched", value)
        return self.wrote(self.db.save(node, sync=sync), sync)

    def save_many(self, rows: list[Row], sync: bool | None) -> Answer:
        return self.wrote(str(self.db.save_many([node_of(row) for row in rows], sync=sync)), sync)

    def save_columns(
        self, ids: list[str], vectors: Any, attributes: list[dict[str, Any]]
    ) -> Answer:
        matrix = None if vectors is None else np.array(vectors, np.float32)
        return self.wrote(str(self.db.save_columns(ids, matrix, attributes)))

    def transaction(
        self, steps: list[tuple[str, Any]], meanwhile: Row | None, fails: bool
    ) -> Answer:
        told = []
        try:
            with self.db.transaction() as tx:
                for name, arguments in steps:
                    try:
                        told.append(self._step(tx, name, arguments))
                    except engramdb.MemoryNotFoundError:
                        told.append("not there")
                if meanwhile is not None:
                    told.append(self.db.save(node_of(meanwhile)))
                if fails:
                    raise GivenUp
        except (engramdb.ConflictError, GivenUp) as error:
            told.append(type(error).__name__)
        return self.wrote("; ".join(told))

    def _step(self, tx: engramdb.Transaction, name: str, arguments: Any) -> str:
        if name == "save":
            return tx.save(node_of(arguments))
        if name == "patch":
            node = tx.load(arguments[0])
            node.set_attribute("in", arguments[1])
            return tx.save(node)
        if name == "delete":
            return str(tx.delete(arguments))
        if name == "connect":
            return str(tx.connect(*arguments))
        if name == "disconnect":
            return str(tx.disconnect(*arguments))
        if name == "search":
            return hits_text(tx.search_similar(arguments, 5, -1.0))
        return state_text(tx)

    def delete(self, id: str, sync: bool | None) -> Answer:
        return self.wrote(str(self.db.delete(id, sync=sync)), sync)

    def clear_all(self) -> Answer:
        return self.wrote(str(self.db.clear_all()))

    def connect(
        self, ends: tuple[str, str], type: str, strength: float, attributes: Any, sync: bool | None
    ) -> Answer:
        self.db.connect(*ends, type, strength, attributes, sync=sync)
        return self.wrote("", sync)

    def disconnect(self, ends: tuple[str, str], type: str | None, sync: bool | None) -> Answer:
        return self.wrote(str(self.db.disconnect(*ends, type, sync=sync)), sync)

    def restore(self, id: str, moment: tuple[str, Any]) -> Answer:
        self.db.restore(id, self.resolve(moment))
        return self.wrote("")

    def undo(self, count: int, commit: float | None) -> Answer:
        if commit is not None:
            return self.wrote(str(self.db.undo(commit=round(commit * self.db.last_seq))))
        return self.wrote(str(self.db.undo(count)))

    def wrote(self, told: str, sync: bool | None = None) -> Answer:
        """After a write: the number and the time of the last commit belong to the answer."""
        last = self.db.last_seq
        if last not in self.times:
            self.times[last] = self.db.as_of(last).timestamp
            self.unsynced = sync is False
        return Answer(f"{told} -> {last} at {self.times[last].isoformat()}", {})

    # Tags, retention, erasure

    def tag(self, name: str, moment: tuple[str, Any] | None) -> Answer:
        tag = self.db.tag(name, None if moment is None else self.resolve(moment))
        self.tags[name] = tag.seq
        return Answer(f"{tag.seq} {tag.timestamp.isoformat()}", {})

    def untag(self, name: str) -> Answer:
        self.tags.pop(name, None)
        return Answer(str(self.db.untag(name)), {})

    def set_history(self, policy: tuple[str, int]) -> Answer:
        kind, amount = policy
        keep = amount if kind == "last" else 1
        self.keep = min(self.keep or keep, keep)
        if kind == "last":
            self.db.set_history(engramdb.KeepLast(amount))
        else:
            self.db.set_history(engramdb.KeepFor(timedelta(microseconds=amount)))
        return Answer("", {})

    def purge(self, id: str) -> Answer:
        if self.held is not None:
            self.held.close()  # it would go on showing what is erased
        self.held = None
        report = self.db.purge(id)
        counts = f"{report.versions} {report.connection_versions}"
        if self.keep:
            return Answer(str(len(report.copies)), {})
        return Answer(f"{counts} {report.vectors} {len(report.copies)}", {})

    # Files

    def flush(self) -> Answer:
        self.db.flush()
        return Answer("", {})

    def compact(self) -> Answer:
        self.db.compact()
        return Answer("", {})

    def fork(self, row: Row, purged: str) -> Answer:
        path = f"{self.directory}/fork-{len(self.forks)}"
        self.forks.append(path)
        with self.db.fork(path) as fork:
            told = state_text(fork)
            fork.save(node_of(row))
            fork.purge(purged)
            return Answer(f"{told}\n---\n{state_text(fork)} {fork.last_seq}", {})

    def read_fork(self) -> Answer:
        if not self.forks:
            return Answer("none", {})
        with self.open(self.forks[-1]) as fork:
            return Answer(f"{state_text(fork)} {fork.last_seq}", {})

    def checkpoint(self) -> Answer:
        path = f"{self.directory}/checkpoint-{len(self.forks)}"
        self.forks.append(path)
        self.db.checkpoint(path)
        return self.read_fork()
