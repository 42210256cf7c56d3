"""Attributes: which values a memory or a connection may carry, and their bytes in the log.

Values: None, bool, int (signed 64-bit), float (NaN refused), str, bytes, aware datetime, and lists
and dicts (str keys) of these. The exact type comes back. A subclass of one of them (an enum that is
a str, an IntEnum, a defaultdict) is stored as its base value.

Bytes (MessagePack):

    memory       [creation_us: int, reason: str | nil, attributes: map], or with two more:
                 [..., valid_from_us: int | nil, valid_to_us: int | nil], or with a third:
                 [..., spaces: map of name to rows, 0 for a single vector]
    connection   [creation_us: int, attributes: map]
    datetime     extension type 1, 16 bytes, little-endian:
                 int64 microseconds since the epoch (UTC), int64 offset from UTC in microseconds

Everything is checked when it is encoded, even if it was checked when it was set: a list inside may
have been changed since. Flat attributes of plain types, nearly all there are, pass through one loop
and are encoded without a copy.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import struct
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

import msgspec
import numpy as np

from engramdb.errors import CorruptionError, InvalidInputError
from engramdb.lsm.records import is_space_name
from engramdb.model.limits import (
    ATTRIBUTE_KEY_BYTES_MAX,
    INTEGER_MAX,
    INTEGER_MIN,
    NESTING_DEPTH_MAX,
    PAYLOAD_BYTES_MAX,
    VECTOR_ROWS_MAX,
)
from engramdb.model.moments import duration_us, from_microseconds, to_microseconds

AttributeValue = (
    bool | int | float | str | bytes | datetime.datetime | list[Any] | dict[str, Any] | None
)

MOMENT_EXTENSION: Final = 1

_MOMENT: Final = struct.Struct("<qq")
assert _MOMENT.size == 16

# A character is at most four bytes of UTF-8: up to this many need no counting.
_KEY_CHARACTERS_SAFE: Final = ATTRIBUTE_KEY_BYTES_MAX // 4
_PLAIN: Final = frozenset({str, bool, bytes, type(None)})  # no further check but for surrogates

_MomentForm = Callable[[datetime.datetime], object]


def check_attributes(attributes: object, argument: str = "attributes") -> dict[str, Any]:
    """A deep copy of the mapping, every value in its base type.

    Raises InvalidInputError naming the path of the first value that cannot be stored, such as
    attributes['a'][3].
    """
    if not isinstance(attributes, Mapping):
        raise InvalidInputError(
            argument, f"expected a mapping of str to values, got {type(attributes).__name__}"
        )
    return _checked_mapping(attributes, argument, _same_moment)


def check_key(key: object, argument: str = "attributes") -> str:
    """The key of an attribute as a plain str of 1 to 512 bytes, or InvalidInputError."""
    try:
        return _checked_key(key)
    except _Refused as refused:
        raise refused.at(argument) from None


def check_value(value: object, argument: str) -> Any:
    """A deep copy of one value in its base type, or InvalidInputError naming the path."""
    try:
        return _checked(value, 0, _same_moment)
    except _Refused as refused:
        raise refused.at(argument) from None


class Validity(NamedTuple):
    """When a fact holds in the world: from_us <= t < to_us, in microseconds since the epoch; None
    where there is no bound."""

    from_us: int | None = None
    to_us: int | None = None


ALWAYS: Final = Validity()


class MemoryPayload(NamedTuple):
    """What the payload of a memory says."""

    creation_us: int
    reason: str | None
    attributes: dict[str, Any]
    valid_from_us: int | None = None
    valid_to_us: int | None = None
    spaces: dict[str, int] | None = None  # named ones with a vector of it: rows, 0 for a single one

    @property
    def validity(self) -> Validity:
        """When the fact holds."""
        return Validity(self.valid_from_us, self.valid_to_us)


def encode_memory(
    creation_us: int,
    reason: str | None,
    attributes: Mapping[str, Any],
    validity: Validity = ALWAYS,
    spaces: Mapping[str, int] | None = None,
) -> bytes:
    """The payload of a memory; for `spaces` see MemoryPayload. Raises InvalidInputError if anything
    in it cannot be stored."""
    if reason is not None:
        reason = _checked_reason(reason)
    fields: tuple[object, ...] = (creation_us, reason, _storable(attributes))
    if validity is not ALWAYS:
        fields += _checked_validity(validity)
    if spaces:
        fields = (*fields[:3], validity.from_us, validity.to_us, dict(spaces))
    try:
        payload = _encode(fields)
    except UnicodeEncodeError:
        _refuse_surrogates(attributes)
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise _too_large(len(payload))
    return payload


def decode_memory(payload: bytes) -> MemoryPayload:
    """What a memory's payload says. Raises CorruptionError."""
    try:
        decoded = _decode_memory(payload)
    except DECODING_ERRORS as error:
        raise _damaged("a memory", "[creation time, reason, attributes]", error) from error
    if not MOMENT_US_MIN <= decoded.creation_us <= MOMENT_US_MAX:
        raise _damaged("a memory", "the time of its creation", decoded.creation_us)
    for bound in decoded[3:5]:
        if bound is not None and not MOMENT_US_MIN <= bound <= MOMENT_US_MAX:
            raise _damaged("a memory", "a moment from or until which it is valid", bound)
    if decoded.spaces:
        for name, rows in decoded.spaces.items():
            if not is_space_name(name) or not 0 <= rows <= VECTOR_ROWS_MAX:
                raise _damaged("a memory", "the spaces of its vectors", f"{rows} rows in {name!r}")
    return decoded


def may_say_when(payload: bytes) -> bool:
    """Whether a memory's payload may have bounds of validity: a look at its first byte."""
    return payload[:1] in _WITH_BOUNDS


def encode_edge(creation_us: int, attributes: Mapping[str, Any]) -> bytes:
    """The payload of a connection. Raises InvalidInputError if anything cannot be stored."""
    try:
        payload = _encode((creation_us, _storable(attributes)))
    except UnicodeEncodeError:
        _refuse_surrogates(attributes)
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise _too_large(len(payload))
    return payload


def decode_edge(payload: bytes) -> tuple[int, dict[str, Any]]:
    """(creation_us, attributes) of a connection's payload. Raises CorruptionError."""
    try:
        decoded = _decode_edge(payload)
    except DECODING_ERRORS as error:
        raise _damaged("a connection", "[creation time, attributes]", error) from error
    if not MOMENT_US_MIN <= decoded[0] <= MOMENT_US_MAX:
        raise _damaged("a connection", "the time of its creation", decoded[0])
    return decoded


# ---- The check -----------------------------------------------------------------------------------


class _Refused(Exception):
    """A value that cannot be stored. Collects its path on the way out, innermost step first."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        self.steps: list[str | int] = []

    def at(self, argument: str) -> InvalidInputError:
        path = "".join(f"[{_short(step)}]" for step in reversed(self.steps))
        return InvalidInputError(argument + path, self.problem)


def _storable(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The attributes as the encoder may have them: themselves if all are plain scalars."""
    if type(attributes) is dict:
        for key, value in attributes.items():
            if type(key) is not str or not 0 < len(key) <= _KEY_CHARACTERS_SAFE:
                break
            kind = type(value)
            if kind in _PLAIN:
                continue
            if kind is float:
                if value == value:
                    continue
            elif kind is int and INTEGER_MIN <= value <= INTEGER_MAX:
                continue
            break
        else:
            return attributes
    elif not isinstance(attributes, Mapping):
        check_attributes(attributes)
    return _checked_mapping(attributes, "attributes", _moment_extension)


def _checked_mapping(
    attributes: Mapping[Any, Any], argument: str, moment_form: _MomentForm
) -> dict[str, Any]:
    try:
        return _checked_dict(attributes, 0, moment_form)
    except _Refused as refused:
        raise refused.at(argument) from None


def _checked(value: Any, depth: int, moment_form: _MomentForm) -> Any:
    """The value in its base type; `depth` lists and dicts are around it."""
    kind = type(value)
    if kind is str:
        return _checked_text(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        if INTEGER_MIN <= value <= INTEGER_MAX:
            return value
        raise _Refused("an integer has to fit in 64 bits, signed; store a larger one as str")
    if kind is float:
        if value == value:
            return value
        raise _Refused("NaN equals nothing, not even itself; use None")
    if kind is list:
        return _checked_list(value, depth + 1, moment_form)
    if kind is dict:
        return _checked_dict(value, depth + 1, moment_form)
    if kind is datetime.datetime:
        if value.utcoffset() is None:
            raise _Refused(
                "a datetime without a timezone names no moment; attach one, such as "
                "tzinfo=datetime.timezone.utc"
            )
        return moment_form(value)
    return _checked(_base_value(value), depth, moment_form)


def _checked_list(values: list[Any], depth: int, moment_form: _MomentForm) -> list[Any]:
    _check_depth(depth)
    position = 0
    checked = []
    try:
        for position, value in enumerate(values):  # noqa: B007  (named in the except clause)
            checked.append(_checked(value, depth, moment_form))
    except _Refused as refused:
        refused.steps.append(position)
        raise
    return checked


def _checked_dict(
    values: Mapping[Any, Any], depth: int, moment_form: _MomentForm
) -> dict[str, Any]:
    _check_depth(depth)
    checked = {}
    for key, value in values.items():
        key = _checked_key(key)
        try:
            checked[key] = _checked(value, depth, moment_form)
        except _Refused as refused:
            refused.steps.append(key)
            raise
    return checked


def _check_depth(depth: int) -> None:
    if depth > NESTING_DEPTH_MAX:
        raise _Refused(
            f"more than {NESTING_DEPTH_MAX} lists and dicts are inside each other (or one contains "
            "itself); flatten it, or store it as str or bytes"
        )


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or isinstance(key, np.generic):
        raise _Refused(f"a key has to be str, got {_short(key)} of type {type(key).__name__}")
    try:
        size = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        raise _Refused(f"the key {_short(key)} has a lone surrogate, so it is not text") from None
    if not 0 < size <= ATTRIBUTE_KEY_BYTES_MAX:
        raise _Refused(
            f"the key {_short(key)} has {size} bytes of UTF-8; "
            f"a key has 1 to {ATTRIBUTE_KEY_BYTES_MAX}"
        )
    return str.__str__(key)


def _checked_text(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _Refused(
                "the text has a lone surrogate, so it cannot be written as UTF-8; "
                "store it as bytes, or encode with errors='replace' first"
            ) from None
    return text


def _checked_reason(reason: object) -> str:
    if not isinstance(reason, str):
        raise InvalidInputError("reason", f"expected str or None, got {type(reason).__name__}")
    try:
        return _checked_text(str.__str__(reason))
    except _Refused as refused:
        raise refused.at("reason") from None


def _checked_validity(validity: Validity) -> tuple[int | None, ...]:
    """What the payload says of it: nothing, if it holds always."""
    start_us, end_us = validity
    if start_us is not None and end_us is not None and start_us >= end_us:
        raise InvalidInputError(
            "valid_to",
            f"{from_microseconds(end_us).isoformat()} is not after valid_from, "
            f"{from_microseconds(start_us).isoformat()}",
        )
    return () if start_us is end_us is None else (start_us, end_us)


def _base_value(value: Any) -> Any:
    """The base value of an instance of a subclass; everything else is refused with advice."""
    if not isinstance(value, np.generic):  # numpy's float64 and str_ are subclasses too
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, bytes):
            return bytes.__bytes__(value)
        if isinstance(value, list):
            return list(value)
        if isinstance(value, dict):
            return dict(value)
        if isinstance(value, datetime.datetime) and not getattr(value, "nanosecond", 0):
            return datetime.datetime.combine(value.date(), value.timetz())
    advice = next(advice for kind, advice in _ADVICE if isinstance(value, kind))
    raise _Refused(f"a value of type {type(value).__name__} cannot be stored; {advice}")


_ADVICE: Final[tuple[tuple[type, str], ...]] = (
    (np.generic, "use value.item()"),
    (np.ndarray, "use value.tolist()"),
    (tuple, "use a list"),
    (set, "use a sorted list"),
    (frozenset, "use a sorted list"),
    (decimal.Decimal, "use str(value) or float(value)"),
    (complex, "use a list of two floats"),
    (bytearray, "use bytes(value)"),
    (memoryview, "use bytes(value)"),
    (uuid.UUID, "use str(value)"),
    (enum.Enum, "use its .value"),
    (datetime.datetime, "it has nanoseconds; round it to a datetime of microseconds"),
    (datetime.date, "use an aware datetime, or value.isoformat()"),
    (datetime.timedelta, "use value.total_seconds()"),
    (object, "use None, bool, int, float, str, bytes, aware datetime, or a list or dict of these"),
)


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _too_large(size: int) -> InvalidInputError:
    return InvalidInputError(
        "attributes",
        f"they take {size} bytes when encoded, at most {PAYLOAD_BYTES_MAX} fit; keep large "
        "content in a file and its path here",
    )


def _refuse_surrogates(attributes: Mapping[str, Any]) -> NoReturn:
    """The encoder met a lone surrogate; the full check says where."""
    check_attributes(attributes)
    raise InvalidInputError("attributes", "they changed while they were being encoded")


# ---- The bytes -----------------------------------------------------------------------------------


def _same_moment(moment: datetime.datetime) -> datetime.datetime:
    """The moment at its fixed offset, which is what comes back from the log."""
    offset = moment.utcoffset()
    assert offset is not None
    return moment.replace(tzinfo=datetime.timezone(offset), fold=0)


def _moment_extension(moment: datetime.datetime) -> msgspec.msgpack.Ext:
    offset = moment.utcoffset()
    assert offset is not None
    return msgspec.msgpack.Ext(
        MOMENT_EXTENSION,
        _MOMENT.pack(to_microseconds(moment, "attributes"), duration_us(offset)),
    )


_WITH_BOUNDS: Final = (b"\x95", b"\x96")  # an array of five, or of six


def _damaged(what: str, expected: str, got: object) -> CorruptionError:
    return CorruptionError(f"the payload of {what}", 0, expected, got)


def from_extension(code: int, data: memoryview) -> object:
    if code != MOMENT_EXTENSION or len(data) != _MOMENT.size:
        raise msgspec.DecodeError(
            f"expected extension type {MOMENT_EXTENSION} of {_MOMENT.size} bytes, "
            f"got type {code} of {len(data)} bytes"
        )
    try:
        return from_microseconds(*_MOMENT.unpack(data))
    except (OverflowError, ValueError) as error:
        raise msgspec.DecodeError(f"not a moment: {error}") from None


# Too deeply nested, no text, a key of a map that cannot be one: each is an error of its own.
DECODING_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError)
MOMENT_US_MIN: Final = to_microseconds(datetime.datetime.min.replace(tzinfo=datetime.UTC), "")
MOMENT_US_MAX: Final = to_microseconds(datetime.datetime.max.replace(tzinfo=datetime.UTC), "")

# Encoders and decoders keep no state between calls, so all threads share these.
_encode: Final = msgspec.msgpack.Encoder().encode
_decode_memory: Final = msgspec.msgpack.Decoder(MemoryPayload, ext_hook=from_extension).decode
_decode_edge: Final = msgspec.msgpack.Decoder(
    tuple[int, dict[str, Any]], ext_hook=from_extension
).decode
