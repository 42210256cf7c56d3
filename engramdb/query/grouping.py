"""Counts and groups of an answer by the values of an attribute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engramdb.lsm.keys import to_list
from engramdb.model.memory_node import MemoryNode
from engramdb.query.attribute_filter import ABSENT, kind_of
from engramdb.query.selection import Selection
from engramdb.query.values import counts_of, values_of


@dataclass(frozen=True, slots=True)
class Group:
    """The best memories that have one value of an attribute; `count`: how many have it."""

    value: Any
    count: int
    memories: list[MemoryNode]


@dataclass(frozen=True, slots=True)
class Facet:
    """A value of an attribute, and how many memories have it."""

    value: Any
    count: int


def facets_of(selection: Selection, key: str, limit: int) -> list[Facet]:
    """The most frequent values, then by kind and value; a list counts each of its elements once."""
    totals: dict[tuple[str, Any], int] = {}
    for run, rows in selection.parts:
        for value, count in counts_of(run, rows, key).items():
            totals[value] = totals.get(value, 0) + count
    ordered = sorted(totals.items(), key=lambda item: (-item[1], *item[0]))
    return [Facet(value, count) for (_, value), count in ordered[:limit]]


def groups_of(
    selection: Selection, ranked: list[bytes], key: str, size: int
) -> list[tuple[Any, int, list[bytes]]]:
    """(value, how many, the first `size` keys), in the order in which the first of each comes.

    What has no such attribute, or a list or dict in it, is in no group.
    """
    by_key: dict[bytes, tuple[str, Any]] = {}
    for run, rows in selection.parts:
        values = values_of(run, rows, key)
        by_key.update(
            (each, (kind_of(value), value))
            for each, value in zip(to_list(run.keys(rows)), values, strict=True)
            if value is not ABSENT and not isinstance(value, list | dict)
        )
    groups: dict[tuple[str, Any], list[bytes]] = {}
    for each in ranked:
        if each in by_key:
            groups.setdefault(by_key[each], []).append(each)
    return [(value, len(keys), keys[:size]) for (_, value), keys in groups.items()]
