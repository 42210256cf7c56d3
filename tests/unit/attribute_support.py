"""What the tests of attribute columns share: arbitrary attributes and filters, and runs of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
from hypothesis import strategies as st

from engramdb.errors import InvalidInputError
from engramdb.lsm import AttributeColumns
from engramdb.lsm.keys import U64, KeyMatrix, Rows
from engramdb.lsm.memory_run import MemoryRun
from engramdb.model.attributes import encode_memory
from engramdb.query.attribute_filter import AttributeFilter

KEYS = ["a", "b", "c", "a.b", "b.c", "a.b.c"]
MANY_KEYS = [f"k{number}" for number in range(100)]
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)

numbers = st.one_of(
    st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]),
    st.integers(-4, 4),
    st.sampled_from([0.0, -0.0, 1.0, 0.5, float(2**53), 9.223372036854775807e18, 5e-324, 1e300]),
    st.sampled_from([float("inf"), float("-inf"), -5e-324]),
)
texts = st.one_of(
    st.sampled_from(["", "a", "ab", "a\0", "\0", "é", "𝄞x", "zebra", "ab" * 20]),
    st.builds(
        lambda head, tail: "x" * head + tail,
        st.integers(28, 33),
        st.sampled_from(["", "é", "𝄞", "y", "\0"]),
    ),
    st.text(st.characters(codec="utf-8"), max_size=3),
)
blobs = st.sampled_from([b"", b"a", b"\xff", b"\xff\xff", b"x" * 32, b"x" * 33, b"\0"])
moments = st.builds(
    lambda us, hours: (NOON + timedelta(microseconds=us)).astimezone(
        timezone(timedelta(hours=hours))
    ),
    st.integers(0, 2),
    st.integers(-3, 3),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts, blobs, moments)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.builds(lambda value, count: [value] * count, scalars, st.integers(31, 34)),
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=2),
    ),
    max_leaves=5,
)
attributes = st.one_of(
    st.dictionaries(st.sampled_from(KEYS), values, max_size=3),
    st.builds(
        lambda first, count, value: {MANY_KEYS[first - i]: value for i in range(count)},
        st.integers(0, 99),
        st.integers(20, 40),
        scalars,
    ),
)


def _condition(operator: str, key: str, value: Any, other: Any) -> AttributeFilter | None:
    if operator in ("exists", "not_exists"):
        return getattr(AttributeFilter, operator)(key)  # type: ignore[no-any-return]
    given = {"between": (value, other), "is_in": ([value, other, *range(9)],)}.get(
        operator, (value,)
    )
    if operator == "is_in" and value is None:
        given = ([value, other],)
    try:
        return getattr(AttributeFilter, operator)(key, *given)  # type: ignore[no-any-return]
    except InvalidInputError:
        return None


OPERATORS = (
    *("equals", "not_equals", "greater_than", "greater_or_equal", "less_than", "less_or_equal"),
    *("between", "is_in", "contains", "starts_with", "ends_with", "exists", "not_exists"),
)
conditions = st.builds(
    _condition,
    st.sampled_from(OPERATORS),
    st.sampled_from([*KEYS, "a.c", "a.b.c.a", "k1", "k50"]),
    values,
    values,
).filter(lambda made: made is not None)
filters = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.builds(lambda one: ~one, inner),
        st.builds(lambda one, other: one & other, inner, inner),
        st.builds(lambda one, other: one | other, inner, inner),
    ),
    max_leaves=4,
)


def payload_of(said: dict[str, Any], created: int = 7) -> bytes:
    """The payload of a memory."""
    return encode_memory(created, None, said)


class ListedRun:
    """A run of payloads, an empty one for a tombstone, with the columns that are given."""

    def __init__(self, columns: AttributeColumns, payloads: list[bytes]) -> None:
        self._columns, self._payloads = columns, payloads
        self.rows: Rows = np.flatnonzero([bool(payload) for payload in payloads])
        self.asked: list[int] = []  # the rows of which payloads were read

    def columns(self) -> AttributeColumns:
        return self._columns

    def keys(self, rows: Rows) -> KeyMatrix:
        return np.zeros((len(rows), 16), np.uint8)

    def seqs(self, rows: Rows) -> U64:
        return rows.astype(np.uint64)

    def times(self, rows: Rows) -> U64:
        return rows.astype(np.uint64)

    def vectors(self, rows: Rows) -> U64:
        return np.zeros(len(rows), np.uint64)

    def payloads(self, rows: Rows) -> list[bytes]:
        self.asked += rows.tolist()
        return [self._payloads[row] for row in rows.tolist()]

    def without(self, keys: Iterable[bytes]) -> MemoryRun:
        return self
