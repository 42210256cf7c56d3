"""Rules about files: flush, compaction, retention, tags, forks, reopening, power cuts."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import engramdb
from tests.model.machine import Machine, policies


class FileRules(Machine):
    """What must not change any answer, but for what a policy or a power cut may take."""

    @rule()
    def flush(self) -> None:
        self.db.flush()
        self.durable_seq = self.oracle.seq

    @rule()
    def compact(self) -> None:
        self.db.compact()
        self.durable_seq = self.oracle.seq

    @precondition(lambda self: not self.background)
    @rule(policy=policies)
    def set_history(self, policy: Any) -> None:
        self.db.set_history(policy)
        self.lossy |= policy != engramdb.KeepAll()

    @rule(data=st.data(), name=st.sampled_from("xyz"))
    def tag(self, data: st.DataObject, name: str) -> None:
        if name in self.oracle.tags:
            assert self.db.untag(name)
            del self.oracle.tags[name]
        seq = None if data.draw(st.booleans()) else self.moment(data)
        with self.maybe_dropped(self.oracle.seq if seq is None else seq):
            tag = self.db.tag(name, seq)
            assert tag.seq == (self.oracle.seq if seq is None else seq)
            self.oracle.tags[name] = tag.seq
            self.durable_seq = max(self.durable_seq, tag.seq)

    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        self.let_go()
        self.db.close()
        self.durable_seq = self.oracle.seq
        self.open()
        assert self.db.last_seq == self.oracle.seq

    @rule(seed=st.integers(0, 2**16))
    def crash(self, seed: int) -> None:
        self.let_go()
        if self.background:
            self.db.flush()
        self.disk = self.disk.crash(rng=random.Random(seed))
        self.db.close()  # the process that ran on the disk before
        self.open()
        recovered = self.db.last_seq
        note(f"recovered commit {recovered} of {self.oracle.seq}")
        assert self.durable_seq <= recovered <= self.oracle.seq
        self.oracle.crash(recovered)
        self.times = [each for each in self.times if each[1] <= recovered]
        self.durable_seq = recovered

    @precondition(lambda self: self.forks < 3)
    @rule(move=st.booleans())
    def fork(self, move: bool) -> None:
        self.forks += 1
        path = f"/fork-{self.forks}"
        fork = self.db.fork(path)
        assert fork.last_seq == self.oracle.seq
        other = engramdb.MemoryNode([1.0, 1.0, 1.0])
        if move:
            self.let_go()
            self.db.close()
            self.db, self.path = fork, path
            self.durable_seq = self.oracle.seq
        else:
            fork.save(other)
            assert other.id in fork and other.id not in self.db
            fork.close()
