"""Puts attribute values of any kind in order: kind by kind, and what has no order last."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from engramdb.lsm.keys import Rows
from engramdb.query.attribute_filter import kind_of

_KINDS: Final = ("bool", "number", "datetime", "str", "bytes")


def sorted_by_value(values: list[Any], keys: list[bytes], descending: bool) -> Rows:
    """The positions by value, equal ones by key; None, lists, dicts and what is absent come last,
    whichever way."""
    groups: dict[str, list[int]] = {kind: [] for kind in _KINDS}
    last: list[int] = []
    for position in sorted(range(len(keys)), key=keys.__getitem__):
        groups.get(kind_of(values[position]), last).append(position)
    ordered: list[int] = []
    for kind in reversed(_KINDS) if descending else _KINDS:
        ordered += sorted(groups[kind], key=values.__getitem__, reverse=descending)
    return np.array(ordered + last, np.int64)
