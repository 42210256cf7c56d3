"""Whether a history of concurrent operations can be explained by doing them one after the other.

The search of J. Wing and C. Gong, Testing and Verifying Concurrent Objects (1993), with the memory
of G. Lowe, Testing for Linearizability (2017): never try the same set of done operations in the
same state twice. An operation may come next if no other one has returned before it was invoked.
Linearizability is local (Herlihy and Wing, 1990): a history is linearizable if that of every single
key is, as long as each operation concerns one key. For those that concern several, the state is
that of all keys, and what is found is strict serializability.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

Apply = Callable[[Any, Any, Any], tuple[bool, Any]]
"""(state, what was asked, what was answered) to whether that is right, and the state after it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a thread asked and was answered, and when: any clock that all threads share."""

    invoked: int
    returned: int
    asked: Any
    answered: Any
    thread: int = 0


def explain(history: Sequence[Operation], apply: Apply, first: Hashable) -> list[Operation] | None:
    """An order of the operations that explains all answers, or None."""
    pending = sorted(history, key=lambda each: each.invoked)
    tried: set[tuple[int, Hashable]] = set()
    # the operations done so far, as bits, with the states before them and who may come next
    done, state = 0, first
    path: list[tuple[int, Hashable, list[int]]] = []
    choices = _next(pending, done)
    while done != (1 << len(pending)) - 1:
        if not choices:
            if not path:
                return None
            done, state, choices = path.pop()
            choices.pop()
            continue
        index = choices[-1]
        right, after = apply(state, pending[index].asked, pending[index].answered)
        if not right or (done | 1 << index, after) in tried:
            choices.pop()
            continue
        tried.add((done | 1 << index, after))
        path.append((done, state, choices))
        done, state = done | 1 << index, after
        choices = _next(pending, done)
    return [pending[choices[-1]] for _, _, choices in path]


def _next(pending: list[Operation], done: int) -> list[int]:
    """Who may come next, the one that was invoked first at the end."""
    found: list[int] = []
    earliest: int | None = None  # return of those that are not done
    for index, each in enumerate(pending):
        if done >> index & 1:
            continue
        if earliest is not None and each.invoked > earliest:
            break  # sorted: nobody behind it may come either
        found.append(index)
        if earliest is None or each.returned < earliest:
            earliest = each.returned
    found.reverse()
    return [index for index in found if earliest is None or pending[index].invoked <= earliest]
