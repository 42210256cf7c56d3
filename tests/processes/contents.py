"""What the writer puts into a database, and how a state of it is read back and judged by itself.

Every memory says which operation wrote it; its vector and its padding follow from what it says, so
that a torn one is noticed. Some memories belong together: a pair is only written in one commit, and
the accounts change hands of a constant sum. All reads are those of any user.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from engramdb import MemoryNode
from engramdb.reading import Reading

ACCOUNTS = range(4)
PAIRS = ((4, 5), (6, 7), (8, 9))
FREE = range(10, 22)
VICTIMS = range(22, 26)
"""Memories that are purged now and then, from every moment: they are in no state."""

SUM = 400
TYPES = ("Knows", "Follows")
DIMENSION = 4

Memory = tuple[int, int]
"""The number of the operation that wrote it, and a value."""
End = tuple[int, int, str]
"""A connection: source, target, type."""


class Violation(Exception):
    """A promise is broken. Says what was seen."""


class State:
    """Memories and connections, victims left out."""

    def __init__(self) -> None:
        self.memories: dict[int, Memory] = {}
        self.connections: dict[End, int] = {}

    def copy(self) -> State:
        """Another one, to be changed."""
        made = State()
        made.memories, made.connections = dict(self.memories), dict(self.connections)
        return made

    def difference(self, other: State) -> str:
        """What of it is not as in the other one."""
        pairs = ((self.memories, other.memories), (self.connections, other.connections))
        unlike = [
            f"{name}: {mine.get(name)}, not {theirs.get(name)}"
            for mine, theirs in pairs
            for name in {**mine, **theirs}
            if mine.get(name) != theirs.get(name)
        ]
        return "; ".join(unlike)

    def digest(self) -> int:
        """One number for all of it, the same in every process."""
        listed = sorted(self.memories.items()), sorted(self.connections.items())
        return zlib.crc32(repr(listed).encode())


def id_of(number: int) -> str:
    """The id of a memory; neighbours lie far apart."""
    return f"{number * 2654435761 % 2**32:08x}-0000-4000-8000-{number:012x}"


_NUMBERS = {id_of(number): number for number in range(VICTIMS.stop)}


def vector_of(number: int, value: int) -> list[float]:
    """The vector; saving a value that is larger by 3 leaves it as it is."""
    return [float(number + 1), float(value % 3 + 1), 1.0, 2.0]


def padding_of(operation: int) -> str:
    """Mostly little; now and then more than a small memtable takes."""
    return "x" * (3000 if operation % 13 == 0 else operation * 7 % 50)


def node_of(number: int, operation: int, value: int) -> MemoryNode:
    """A memory as this operation writes it."""
    return MemoryNode(
        vector_of(number, value),
        id=id_of(number),
        attributes={"op": operation, "n": value, "pad": padding_of(operation)},
    )


def state_of(reading: Reading) -> State:
    """What a database, or a past moment of it, holds. Raises Violation if it cannot be."""
    state = State()
    for node in reading.query().execute():
        number = _NUMBERS.get(node.id)
        operation, value = node.get_attribute("op"), node.get_attribute("n")
        if number is None or node.get_attribute("pad") != padding_of(operation):
            raise Violation(f"memory {node.id} is torn")
        if node.embeddings is None or node.embeddings.tolist() != vector_of(number, value):
            raise Violation(f"memory {number} has the vector {node.embeddings}")
        if number not in VICTIMS:
            state.memories[number] = (operation, value)
    for number in state.memories:
        for each in reading.get_connections(id_of(number)):
            target = _NUMBERS[each.target_id]
            if target in VICTIMS:
                continue
            if target not in state.memories:
                raise Violation(f"a connection from {number} to {target}, which is not there")
            name = number, target, str(each.relationship_type)
            state.connections[name] = each.attributes["op"]
    _check_whole(state)
    _check_search(reading, state.memories)
    return state


def _check_whole(state: State) -> None:
    memories = state.memories
    for pair in PAIRS:
        if len({memories.get(number) for number in pair}) != 1:
            raise Violation(f"half of a pair: {[memories.get(number) for number in pair]}")
    held = [memories[number][1] for number in ACCOUNTS if number in memories]
    if held and (len(held) != len(ACCOUNTS) or sum(held) != SUM):
        raise Violation(f"the accounts hold {held}")


def _check_search(reading: Reading, memories: Iterable[int]) -> None:
    if not memories:
        return
    hits = reading.search_similar([1.0, 1.0, 1.0, 1.0], 100, -1.0)
    found = [_NUMBERS[memory_id] for memory_id, _ in hits]
    if sorted(number for number in found if number not in VICTIMS) != sorted(memories):
        raise Violation(f"a search finds {sorted(found)}, there are {sorted(memories)}")
