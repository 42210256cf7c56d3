"""The machine without its rules: the database, its disk, its oracle, and what rules need."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

import engramdb
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.model.checks import assert_same_state, edge_of, ends_of, memory_of
from tests.model.oracle import Name, Oracle, State

PATH = "/database"
DIMENSION = 3
TYPES = ("Association", "Causation")

numbers = st.integers(-2, 2).map(float)
vectors = st.lists(numbers, min_size=DIMENSION, max_size=DIMENSION).map(tuple)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.binary(max_size=8),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=2),
)
attributes = st.dictionaries(st.sampled_from("abcd"), values, max_size=3)
contents = st.tuples(attributes, st.none() | vectors)
syncs = st.sampled_from([None, None, True, False])
policies = st.sampled_from(
    [engramdb.KeepAll(), engramdb.KeepLast(1), engramdb.KeepLast(2), engramdb.KeepLast(5)]
)


class Machine(RuleBasedStateMachine):
    """A database on a simulated disk, and what it must answer."""

    def __init__(self) -> None:
        super().__init__()
        self.oracle = Oracle()
        self.durable_seq = 0
        self.lossy = False  # a policy other than KeepAll was in force: old moments may be gone
        self.held: list[tuple[engramdb.Past, Oracle]] = []
        self.forks = 0
        self.times: list[tuple[datetime, int]] = []  # of all commits, ascending
        self.background = False

    @initialize(
        seed=st.integers(0, 2**16),
        memtable_bytes=st.sampled_from([1024, 4096, 2**20]),
        background=st.booleans(),
        policy=policies,
        first=st.lists(contents, min_size=2, max_size=8),
    )
    def begin(
        self, seed: int, memtable_bytes: int, background: bool, policy: Any, first: Any
    ) -> None:
        self.disk = SimulatedDisk(seed)
        self.background = background
        if background:  # what depends on when a thread has run cannot be replayed
            policy = engramdb.KeepAll()
        self.path = PATH
        self.config: dict[str, Any] = {
            "memtable_bytes": memtable_bytes,
            "background": background,
            "history": policy,
        }
        self.lossy = policy != engramdb.KeepAll()
        self.open()
        for attributes, vector in first:
            node = engramdb.MemoryNode(vector, attributes=attributes)
            self.db.save(node)
            self.committed({("memory", node.id): memory_of(node)})
        ids = self.db.list_all()
        for source, target in itertools.pairwise(ids):
            self.db.connect(source, target)
            (made,) = self.db.get_connections(source)
            self.committed({("edge", ends_of(made)): edge_of(made)})

    def open(self) -> None:
        config = engramdb.DatabaseConfig(storage_dir=self.path, **self.config)
        self.db = engramdb.Database(config, self.disk)

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()

    # What a rule does around its call

    def committed(self, changes: dict[Name, State], sync: bool | None = None) -> None:
        """The database has just committed this."""
        self.oracle.commit(self.db.last_seq, changes)
        self.times.append((self.db.as_of(self.oracle.seq).timestamp, self.oracle.seq))
        if sync is not False:
            self.durable_seq = self.oracle.seq

    def known(self, data: st.DataObject) -> str:
        """An id: mostly of a memory that is there, or was; sometimes of none that ever was."""
        ever = sorted(name[1] for name in self.oracle.versions if name[0] == "memory")
        there = sorted(self.oracle.memories())
        which = data.draw(st.integers(0, 9))
        if there and which > 2:
            return data.draw(st.sampled_from(there))
        if ever and which:
            return data.draw(st.sampled_from(ever))
        return str(uuid.UUID(int=data.draw(st.integers(0, 3))))

    def moment(self, data: st.DataObject) -> int:
        """The number of a commit; if there are tags, often one beside a tag."""
        last = self.oracle.seq
        near = sorted({min(seq + 1, last) for seq in self.oracle.tags.values()})
        if near and data.draw(st.booleans()):
            return data.draw(st.sampled_from(near))
        return data.draw(st.integers(0, last))

    @contextmanager
    def maybe_dropped(self, *seqs: int, commits: bool = False) -> Iterator[None]:
        """Moments that nothing protects may be gone, if there is a policy that drops any; a tag
        protects what was visible then, not the commits that led to it or away from it."""
        try:
            yield
        except engramdb.HistoryUnavailableError:
            assert self.lossy
            protected = () if commits else self.oracle.tags.values()
            assert any(seq < self.oracle.seq and seq not in protected for seq in seqs)

    def let_go(self) -> None:
        for past, _ in self.held:
            past.close()
        self.held.clear()

    @invariant()
    def the_present_is_right(self) -> None:
        if hasattr(self, "db"):
            assert self.db.last_seq == self.oracle.seq
            assert_same_state(self.db, self.oracle, None)
