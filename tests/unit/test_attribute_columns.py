"""Attribute columns as the engine stores, cuts and joins them; and as it reads forged ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.errors import CorruptionError
from engramdb.lsm import AttributeColumns
from engramdb.lsm.attribute_check import contradictions
from engramdb.lsm.attribute_columns import FIELDS_MAX
from engramdb.lsm.attribute_sections import FIELDS, StoredColumns, names_in, write
from engramdb.lsm.container import SEGMENT, ContainerReader, ContainerWriter
from engramdb.lsm.dictionary import CUT, HEAD_BYTES, Dictionary
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.field import (
    DICT,
    LIST,
    LIST_MAX,
    LONG_LIST,
    TEXT,
    from_floats,
    from_signed,
    to_floats,
    to_signed,
)
from engramdb.model.shredding import shred
from tests.unit.attribute_support import attributes, payload_of

heads = st.lists(st.binary(max_size=CUT + 1), max_size=12)


@settings(max_examples=200, deadline=None)
@given(heads, st.binary(max_size=CUT + 2))
def test_a_dictionary_is_sorted_and_finds(texts: list[bytes], wanted: bytes) -> None:
    dictionary, codes = Dictionary.of(texts)
    entries = [(dictionary.entry(code), int(dictionary.sizes[code])) for code in codes.tolist()]
    assert entries == [(text[:HEAD_BYTES], min(len(text), CUT)) for text in texts]
    listed = [(dictionary.entry(i), int(dictionary.sizes[i])) for i in range(len(dictionary))]
    assert listed == sorted(set(listed))
    here = [entry for entry, _ in listed]
    probe = (wanted[:HEAD_BYTES], min(len(wanted), CUT))
    first, last = dictionary.span(wanted)
    assert listed[first:last] == [entry for entry in listed if entry == probe]
    assert all(entry < probe for entry in listed[:first])
    assert all(entry > probe for entry in listed[last:])
    begin = wanted[:HEAD_BYTES]
    first, last = dictionary.prefixed(begin)
    assert here[first:last] == [entry for entry in here if entry.startswith(begin)]
    part = wanted[:2]
    assert dictionary.containing(part).tolist() == [part in entry for entry in here]
    assert dictionary.ending(part).tolist() == [entry.endswith(part) for entry in here]


@settings(max_examples=100, deadline=None)
@given(st.lists(heads, min_size=1, max_size=4))
def test_dictionaries_are_merged(parts: list[list[bytes]]) -> None:
    made = [Dictionary.of(part) for part in parts]
    whole, maps = Dictionary.merge([dictionary for dictionary, _ in made])
    for (dictionary, _), codes in zip(made, maps, strict=True):
        assert whole.entries(codes) == dictionary.entries(np.arange(len(dictionary)))
    assert len(whole) == len({entry for (each, _) in made for entry in each_of(each)})


def each_of(dictionary: Dictionary) -> list[tuple[bytes, int]]:
    return [(dictionary.entry(i), int(dictionary.sizes[i])) for i in range(len(dictionary))]


def test_stored_numbers_have_the_order_of_what_they_stand_for() -> None:
    whole = np.array([-(2**63), -2, -1, 0, 1, 2**63 - 1], np.int64)
    assert np.array_equal(np.sort(from_signed(whole)), from_signed(whole))
    assert np.array_equal(to_signed(from_signed(whole)), whole)
    floats = np.array([-np.inf, -1.5, -5e-324, -0.0, 0.0, 5e-324, 2.0, np.inf])
    assert np.array_equal(np.sort(from_floats(floats)), from_floats(floats))
    assert to_floats(from_floats(floats)).tobytes() == floats.tobytes()


# ---- Cutting and joining -------------------------------------------------------------------------

lists_of_payloads = st.lists(st.one_of(attributes.map(payload_of), st.just(b"")), max_size=10)


@settings(max_examples=50, deadline=None)
@given(lists_of_payloads, lists_of_payloads, st.data())
def test_rows_say_the_same_after_any_cutting_and_joining(
    one: list[bytes], other: list[bytes], data: st.DataObject
) -> None:
    payloads = one + other
    rows = data.draw(st.permutations(range(len(payloads))))[: data.draw(st.integers(0, 20))]
    whole = AttributeColumns.concatenate([shred(one), shred(other)])
    chosen = [payloads[row] for row in rows]
    assert contradictions(whole, shred(payloads)) == []
    assert contradictions(whole.take(np.array(rows, np.int64)), shred(chosen)) == []


def test_what_no_row_uses_is_dropped() -> None:
    said: list[dict[str, Any]] = [
        {"s": "secret", "tags": ["hidden", "b"], "n": 2**40, "own": 1, "d": {"own too": 1}},
        {"s": "plain", "tags": ["b"], "n": 5},
        {"n": 6},
    ]
    left = shred(list(map(payload_of, said))).take(np.array([1, 2]))
    assert list(left.fields) == [("n",), ("s",), ("tags",)]
    assert left.fields["s",].dictionary.data == b"plain"
    elements = left.fields["tags",].elements
    assert elements is not None
    assert elements.dictionary.data == b"b"
    assert left.fields["n",].values.extremes == (2**63 + 5, 2**63 + 6)


def test_long_texts_and_long_lists_are_not_kept_twice() -> None:
    lists = [["a"] * LIST_MAX, ["a"] * (LIST_MAX + 1), [["a"]], []]
    columns = shred([payload_of({"t": "é" * 40, "l": each}) for each in lists])
    dictionary = columns.fields["t",].dictionary
    assert len(dictionary.data) == HEAD_BYTES
    assert dictionary.cut.tolist() == [0]
    assert columns.fields["l",].kind_codes.tolist() == [LIST, LONG_LIST, LIST, LIST]
    assert columns.fields["l",].counts.tolist() == [LIST_MAX, 1, 0]
    elements = columns.fields["l",].elements
    assert elements is not None
    assert elements.present == (TEXT, LONG_LIST)


def test_the_most_frequent_attributes_are_columns() -> None:
    said = [{f"k{i % (80 + 1)}": i, "all": {"in": 1}} for i in range(400)]
    said += [{f"k{i}": i} for i in range(62)]
    columns = shred(list(map(payload_of, said)))
    assert len(columns.fields) == FIELDS_MAX
    assert columns.fields["all",].present == (0, DICT)
    assert ("all", "in") in columns.fields
    rest = columns.rest
    assert rest is not None
    named = {path[0] for path in columns.fields}
    assert rest.tolist() == [not named.issuperset(each) for each in said]
    joined = AttributeColumns.concatenate([columns, shred([payload_of({"fresh": 1})])])
    assert len(joined.fields) == FIELDS_MAX


# ---- In a file -----------------------------------------------------------------------------------

SAID: list[dict[str, Any]] = [
    {"s": f"text {i % 3}", "n": i, "x": i / 3, "b": bool(i % 2), "tags": ["a", i % 4], "y": b"\0"}
    for i in range(20)
] + [{"s": 1, "tags": "none", **{f"k{i}": None for i in range(70)}}]


def stored(columns: AttributeColumns, change: Callable[[Any], None] | None = None) -> Any:
    """Columns written to a file, after a change of its sections, and opened."""
    environment = MemoryEnvironment()
    writer = ContainerWriter(SEGMENT, bytes(16), 1)
    write(writer, columns)
    if change is not None:
        change(writer)
    size, fingerprint = writer.write(environment, "/file")
    reader = ContainerReader(
        environment,
        "/file",
        kind=SEGMENT,
        database=bytes(16),
        number=1,
        size=size,
        fingerprint=fingerprint,
    )
    assert names_in(reader) == reader.names()
    return StoredColumns(reader, len(columns))


@settings(max_examples=40, deadline=None)
@given(st.lists(attributes.map(payload_of), min_size=1, max_size=10))
def test_columns_come_back_from_a_file(payloads: list[bytes]) -> None:
    columns = shred(payloads)
    again = stored(columns)
    assert list(again.fields) == list(columns.fields)
    assert len(again.fields) == len(columns.fields)
    assert contradictions(again, columns) == []
    assert contradictions(columns, again) == []
    assert contradictions(again.take(np.arange(len(again))), columns) == []


def replaced(name: str, *fields: Any) -> Callable[[Any], None]:
    """Another section in the place of one: (encoding, base, count, data)."""

    def change(writer: Any) -> None:
        (place,) = [i for i, each in enumerate(writer._sections) if each[0] == name]
        writer._sections[place] = (name, *fields)

    return change


def number_of(path: str) -> str:
    return f"f{list(shred(list(map(payload_of, SAID))).fields).index((path,)):02d}"


S, TAGS, B = number_of("s"), number_of("tags"), number_of("b")
ROWS = len(SAID)


@pytest.mark.parametrize(
    "change",
    [
        replaced("attr.created", 0, 5, ROWS + 1, b""),
        replaced("attr.rest", 0, 2, ROWS, b""),
        replaced(FIELDS, 254, 0, 1, b"\xc1"),
        replaced(FIELDS, 254, 0, 3, msgspec.msgpack.encode([[1]])),
        replaced(FIELDS, 254, 0, 3, msgspec.msgpack.encode([[]])),
        replaced(FIELDS, 254, 0, 7, msgspec.msgpack.encode([["a"], ["a"]])),
        replaced(FIELDS, 254, 0, 0, msgspec.msgpack.encode([[str(i)] for i in range(65)])),
        replaced(f"{S}.kind", 0, 12, ROWS, b""),
        replaced(f"{S}.kind", 0, 5, 2**40, b""),
        replaced(f"{S}.value", 0, 2**40, ROWS, b""),
        replaced(f"{S}.value", 0, 7, ROWS, b""),
        replaced(f"{S}.text", 254, 0, 4, b"zstd"),
        replaced(f"{S}.text", 254, 0, 0, zstandard.compress(b"x" * 2**20)),
        replaced(f"{S}.size", 0, 33, 2**40, b""),
        replaced(f"{S}.size", 0, 34, 3, b""),
        replaced(f"{S}.size", 0, 7, 3, b""),
        replaced(f"{B}.value", 0, 2, ROWS, b""),
        replaced(f"{TAGS}.count", 254, 0, 3, b"\1\1\1"),
        replaced(f"{TAGS}.count", 254, 0, 20, b"\xff" * 20),
        replaced(f"{TAGS}.count", 254, 0, 20, b"\0" * 20),
        replaced(f"{TAGS}.e.kind", 0, LIST, 40, b""),
        replaced(f"{TAGS}.e.value", 0, 2**50, 40, b""),
    ],
)
def test_forged_sections_are_damage(change: Callable[[Any], None]) -> None:
    columns = shred(list(map(payload_of, SAID)))
    with pytest.raises(CorruptionError):
        forged = stored(columns, change)
        for path in forged.fields:
            _ = forged.fields[path]
        _ = forged.created, forged.rest


def test_a_text_that_no_row_has_is_still_a_dictionary() -> None:
    again = stored(shred([payload_of({"s": ""}), payload_of({"s": ""})]))
    assert again.fields["s",].dictionary.entry(0) == b""
