"""Attributes: what may be stored, that it comes back the same, and what a refusal says."""

from __future__ import annotations

import struct
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engramdb.errors import CorruptionError, InvalidInputError
from engramdb.model.attributes import (
    check_attributes,
    check_value,
    decode_edge,
    decode_memory,
    encode_edge,
    encode_memory,
)
from engramdb.model.relationship import RelationshipType

OFFSETS = st.timedeltas(
    min_value=timedelta(hours=-23, minutes=-59), max_value=timedelta(hours=23, minutes=59)
)
MOMENTS = st.datetimes(timezones=OFFSETS.map(timezone))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXTS
    | st.binary(max_size=40)
    | MOMENTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=6)


def _exactly(value: Any) -> Any:
    """The value with its types spelled out, so that 1, 1.0 and True, 0.0 and -0.0 differ."""
    if isinstance(value, dict):
        return [dict, [(_exactly(key), _exactly(item)) for key, item in value.items()]]
    if isinstance(value, list):
        return [list, [_exactly(item) for item in value]]
    if isinstance(value, datetime):
        return [type(value), value.replace(tzinfo=None), value.utcoffset()]
    if isinstance(value, float):
        return [type(value), struct.pack("<d", value)]
    return [type(value), value]


def _stored(value: Any) -> Any:
    return decode_memory(encode_memory(0, None, {"k": value}))[2]["k"]


@given(
    ATTRIBUTES,
    st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
    st.none() | TEXTS,
)
def test_a_memory_comes_back_with_every_type_as_it_was(
    attributes: dict[str, Any], creation_us: int, reason: str | None
) -> None:
    restored = decode_memory(encode_memory(creation_us, reason, attributes))
    assert restored[:2] == (creation_us, reason)
    assert _exactly(restored[2]) == _exactly(attributes)


@given(ATTRIBUTES)
def test_a_connection_comes_back_too(attributes: dict[str, Any]) -> None:
    creation_us, restored = decode_edge(encode_edge(17, attributes))
    assert creation_us == 17
    assert _exactly(restored) == _exactly(attributes)


@given(ATTRIBUTES)
def test_a_checked_copy_is_what_would_come_back_from_the_log(attributes: dict[str, Any]) -> None:
    restored = decode_memory(encode_memory(0, None, attributes))[2]
    assert _exactly(check_attributes(attributes)) == _exactly(restored)


def test_the_bytes_of_a_memory_are_these() -> None:
    moment = datetime(1970, 1, 1, 1, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    assert encode_memory(2, "why", {"a": moment, "b": b"x"}).hex(" ") == (
        "93 02 a3 77 68 79 82 a1 61 d8 01"  # array of 3, 2, "why", map of 2, "a", extension 1
        " 05 00 00 00 00 00 00 00"  # 5 us after the epoch
        " 00 a4 93 d6 00 00 00 00"  # 3,600,000,000 us ahead of UTC
        " a1 62 c4 01 78"  # "b", one byte
    )


def test_a_copy_shares_nothing_with_what_was_given() -> None:
    given_attributes: dict[str, Any] = {"tags": ["a"], "source": {"tool": "search"}}
    copy = check_attributes(given_attributes)
    given_attributes["tags"].append("b")
    given_attributes["source"]["tool"] = "other"
    assert copy == {"tags": ["a"], "source": {"tool": "search"}}


class Priority(IntEnum):
    HIGH = 3


class Text(str):
    pass


class Ratio(float):
    pass


class Blob(bytes):
    pass


class Moment(datetime):
    pass


class Names(list[str]):
    pass


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (RelationshipType.PART_OF, "PartOf"),
        (Priority.HIGH, 3),
        (Text("plain"), "plain"),
        (Ratio(0.5), 0.5),
        (Blob(b"ab"), b"ab"),
        (Names(["a"]), ["a"]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        ({Text("key"): 1}, {"key": 1}),
        (Moment(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_is_stored_as_its_base_value(value: Any, base: Any) -> None:
    assert _exactly(_stored(value)) == _exactly(base)
    assert _exactly(_stored([value])) == _exactly([base])
    assert _exactly(check_attributes({"k": value})) == _exactly({"k": base})


def test_a_datetime_keeps_the_offset_that_its_zone_had() -> None:
    summer = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    second_time_round = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    assert _stored(summer).isoformat() == "2024-07-01T12:00:00+02:00"
    assert _stored(second_time_round).isoformat() == "2024-10-27T02:30:00+01:00"
    for moment in (summer, second_time_round):
        assert check_value(moment, "k").isoformat() == _stored(moment).isoformat()


class Nanoseconds(datetime):
    nanosecond = 7


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (float("nan"), "NaN equals nothing, not even itself; use None"),
        (2**63, "has to fit in 64 bits"),
        (-(2**63) - 1, "has to fit in 64 bits"),
        ("\ud800", "lone surrogate"),
        (datetime(2024, 5, 1), "attach one"),
        (Nanoseconds(2024, 5, 1, tzinfo=UTC), "nanoseconds"),
        (date(2024, 5, 1), "use an aware datetime"),
        (timedelta(1), "total_seconds"),
        (np.float64(0.5), r"value\.item\(\)"),
        (np.float32(0.5), r"value\.item\(\)"),
        (np.int64(3), r"value\.item\(\)"),
        (np.bool_(True), r"value\.item\(\)"),
        (np.str_("a"), r"value\.item\(\)"),
        (np.zeros(3), r"value\.tolist\(\)"),
        ((1, 2), "use a list"),
        (namedtuple("Pair", "a b")(1, 2), "use a list"),
        ({1, 2}, "use a sorted list"),
        (frozenset(), "use a sorted list"),
        (Decimal("0.1"), r"use str\(value\)"),
        (1j, "two floats"),
        (bytearray(b"a"), r"use bytes\(value\)"),
        (memoryview(b"a"), r"use bytes\(value\)"),
        (uuid.UUID(int=1), r"use str\(value\)"),
        (Enum("Color", "RED")["RED"], r"use its \.value"),
        (object(), "use None, bool, int"),
        (len, "use None, bool, int"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("check", [check_attributes, lambda a: encode_memory(0, None, a)])
def test_what_cannot_be_stored_is_refused_by_its_path_with_advice(
    check: Any, value: Any, advice: str
) -> None:
    with pytest.raises(InvalidInputError, match=advice) as caught:
        check({"fine": 1, "wrong": value})
    assert caught.value.argument == "attributes['wrong']"
    with pytest.raises(InvalidInputError, match=advice) as caught:
        check({"a": [1, {"b": [None, value]}]})
    assert caught.value.argument == "attributes['a'][1]['b'][1]"


@pytest.mark.parametrize("key", [1, None, b"key", ("a",), np.str_("key"), "", "\ud800"], ids=repr)
def test_a_key_is_text(key: Any) -> None:
    for wrong, argument in [({key: 1}, "attributes"), ({"a": [{key: 1}]}, "attributes['a'][0]")]:
        with pytest.raises(InvalidInputError, match="key") as caught:
            encode_memory(0, None, wrong)
        assert caught.value.argument == argument


@pytest.mark.parametrize("wrong", [None, [("a", 1)], "a", {"a"}])
def test_attributes_are_a_mapping(wrong: Any) -> None:
    for check in (check_attributes, lambda a: encode_memory(0, None, a)):
        with pytest.raises(InvalidInputError, match=r"^attributes: expected a mapping"):
            check(wrong)


def test_a_list_that_was_changed_after_the_check_is_checked_again() -> None:
    attributes = check_attributes({"tags": ["a"]})
    attributes["tags"].append(("not", "a list"))
    with pytest.raises(InvalidInputError, match=r"^attributes\['tags'\]\[1\]: "):
        encode_memory(0, None, attributes)


@pytest.mark.parametrize("wrong", [7, b"why", "\udfff"])
def test_a_reason_is_text(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^reason: "):
        encode_memory(0, wrong, {})


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc0",
        encode_memory(1, None, {"a": 1})[:-1],
        encode_memory(1, None, {"a": 1}) + b"\x00",
        encode_edge(1, {"a": 1}),
        msgspec.msgpack.encode([1, None, {1: 2}]),
        msgspec.msgpack.encode([1, None, {"a": msgspec.msgpack.Ext(2, bytes(16))}]),
        msgspec.msgpack.encode([1, None, {"a": msgspec.msgpack.Ext(1, bytes(15))}]),
        msgspec.msgpack.encode([1, None, {"a": msgspec.msgpack.Ext(1, b"\x7f" * 16)}]),
        msgspec.msgpack.encode(
            [1, None, {"a": msgspec.msgpack.Ext(1, struct.pack("<qq", 0, 86_400_000_000))}]
        ),
        b"\x93\x01\xc0\x81\xa1a\xa2\xff\xfe",  # a str that is not UTF-8
        b"\x93\x01\xc0\x81\xa1a" + b"\x91" * 100_000,  # nested without an end
        b"\x93\x01\xc0\x81\xa1a\x81\x80\x01",  # a map as a key of a map
        b"\x93\x01\xc0\x81\xa1a\xdd\xff\xff\xff\xff",  # four thousand million values
        msgspec.msgpack.encode([2**62, None, {}]),  # made in a year that there is not
        msgspec.msgpack.encode([-(2**62), None, {}]),
    ],
    ids=lambda payload: f"{len(payload)}-{payload.hex()[-20:]}",
)
def test_bytes_that_are_no_memory_are_damage(payload: bytes) -> None:
    with pytest.raises(CorruptionError, match="the payload of a memory"):
        decode_memory(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        encode_memory(1, None, {}),
        b"\x92\x01\x81\xa1a\xa1\xff",
        b"\x92\xcf" + b"\x7f" * 8 + b"\x80",
    ],
    ids=bytes.hex,
)
def test_bytes_that_are_no_connection_are_damage(payload: bytes) -> None:
    with pytest.raises(CorruptionError, match="the payload of a connection"):
        decode_edge(payload)
