"""What the writer has asked for and what was acknowledged: the states that may be seen follow.

A commit that was asked for when the process was killed may be there or not. Which of them became
which commit is found by trying: there are at most as many as the writer had threads.
"""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

from tests.processes.contents import VICTIMS, State, Violation


class Ask(NamedTuple):
    """One atomic operation: memories (value None: deleted) and connections (False: removed)."""

    operation: int
    memories: list[tuple[int, int | None]]
    connections: list[tuple[int, int, str, bool]]

    def apply(self, state: State) -> None:
        """To the state before it."""
        for number, value in self.memories:
            if number in VICTIMS:
                continue
            if value is None:
                state.memories.pop(number, None)
                ends = state.connections
                state.connections = {name: ends[name] for name in ends if number not in name[:2]}
            else:
                state.memories[number] = (self.operation, value)
        for source, target, type_, is_there in self.connections:
            if source in VICTIMS or target in VICTIMS:
                continue
            if not is_there:
                state.connections.pop((source, target, type_), None)
                continue
            for end in (source, target):
                if end not in state.memories:
                    raise Violation(f"{end} was connected, but it is not there")
            state.connections[source, target, type_] = self.operation


class Ledger:
    """Of one directory, over all its writers."""

    def __init__(self) -> None:
        self.states = [State()]  # after each commit
        self.digests = [State().digest()]
        self.acknowledged = 0
        self.tags: dict[str, int | None] = {}  # None: not acknowledged
        self.may_forget = False  # a policy was asked for that drops old versions
        self._pending: dict[int, Ask] = {}
        self._order: dict[int, Ask] = {}  # commits since the last settlement
        self._seen: dict[int, set[int]] = {}

    @property
    def last_seq(self) -> int:
        """The last commit of which the state is known."""
        return len(self.states) - 1

    def ask(self, ask: Ask) -> None:
        """The writer is about to do this."""
        self._pending[ask.operation] = ask

    def answer(self, operation: int, seq: int) -> None:
        """It is acknowledged: as commit `seq`, or there was nothing to write (0)."""
        ask = self._pending.pop(operation)
        if not seq:
            return
        if seq in self._order or seq <= self.last_seq:
            raise Violation(f"commit {seq} was acknowledged twice")
        self._order[seq] = ask
        self.acknowledged += 1

    def see(self, seq: int, digest: int) -> None:
        """A reader has seen this state."""
        if seq > self.last_seq:
            self._seen.setdefault(seq, set()).add(digest)
        elif self.digests[seq] != digest:
            raise Violation(f"a reader saw a state of commit {seq} that never was")

    def unknown(self, last_seq: int) -> list[int]:
        """The commits that nobody has acknowledged, although they may be there."""
        return [seq for seq in range(self.last_seq + 1, last_seq + 1) if seq not in self._order]

    def settle(self, last_seq: int, found: State) -> None:
        """The writer is gone, and this is what is there. Raises Violation."""
        lost = [seq for seq in self._order if seq > last_seq]
        if lost or last_seq < self.last_seq:
            raise Violation(
                f"the last commit is {last_seq}; acknowledged, or seen before, are "
                f"{sorted(lost) or self.last_seq}"
            )
        unknown = self.unknown(last_seq)
        pending = list(self._pending.values())
        if len(unknown) > len(pending):
            raise Violation(f"commits that nobody has asked for: {unknown}")
        problem: Violation | None = None
        for chosen in permutations(pending, len(unknown)):
            try:
                self._take(last_seq, found, dict(zip(unknown, chosen, strict=True)))
            except Violation as violation:
                problem = violation
            else:
                self._pending, self._order = {}, {}
                return
        raise problem or Violation("no order of the commits explains what is there")

    def _take(self, last_seq: int, found: State, chosen: dict[int, Ask]) -> None:
        state = self.states[-1].copy()
        states, digests = [], []
        for seq in range(self.last_seq + 1, last_seq + 1):
            (chosen.get(seq) or self._order[seq]).apply(state)
            states.append(state.copy())
            digests.append(state.digest())
            if self._seen.get(seq, set()) - {digests[-1]}:
                raise Violation(f"a reader saw a state of commit {seq} that never was")
        if difference := found.difference(state):
            raise Violation(f"commit {last_seq} is there, but its state is another: {difference}")
        if self._seen and max(self._seen) > last_seq:
            raise Violation(f"a reader saw commit {max(self._seen)}, the last one is {last_seq}")
        self.states += states
        self.digests += digests
        self._seen = {}
