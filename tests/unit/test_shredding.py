"""Payloads, and attributes that were just encoded, as attribute columns."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb import Database
from engramdb.lsm.attribute_check import contradictions
from engramdb.lsm.attribute_columns import UNTOLD
from engramdb.lsm.field import INT, UNKNOWN, from_signed, to_signed
from engramdb.model.attributes import Validity, decode_memory, encode_memory
from engramdb.model.shredding import shred, shred_attributes
from engramdb.query.attribute_filter import AttributeFilter as F
from engramdb.query.masks import matching
from tests.unit.attribute_support import NOON, attributes, payload_of


@settings(max_examples=60, deadline=None)
@given(st.lists(attributes, max_size=8))
def test_what_was_just_encoded_need_not_be_decoded(said: list[dict[str, Any]]) -> None:
    made = shred_attributes(7, said)
    assert made is not None
    again = shred(list(map(payload_of, said)))
    assert len(made) == len(again)
    assert list(made.fields) == list(again.fields)
    assert contradictions(made, again) == []


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize("said", [{"a": Colour.RED}, {Colour.RED: 1}, {"d": {"a": [Colour.RED]}}])
def test_values_of_subclasses_are_read_from_the_payload(said: Any, tmp_path: Any) -> None:
    assert shred_attributes(7, [said, {}]) is None
    with Database.file_based(tmp_path / "db") as db:
        db.save_columns(embeddings=np.ones((3000, 1024), np.float32), attributes=[said] * 3000)
        (run,) = db._source().memory_runs()
        key = next(iter(decode_memory(payload_of(said)).attributes))
        assert len(matching(run, run.rows, F.exists(key))) == 3000
        assert db.verify().ok


def test_a_bulk_load_in_any_order_has_columns(tmp_path: Any) -> None:
    ids = [f"{i * 2654435761 % 2**32:08x}-0000-4000-8000-000000000000" for i in range(3000)]
    with Database.file_based(tmp_path / "db") as db:
        rows = [{"n": i, "when": NOON} for i in range(3000)]
        db.save_columns(ids, np.ones((3000, 1024), np.float32), rows)
        (run,) = db._source().memory_runs()
        (row,) = matching(run, run.rows, F.equals("n", 1234) & F.equals("when", NOON)).tolist()
        assert run.keys(np.array([row])).tobytes()[:4].hex() == ids[1234][:8]
        assert db.verify().ok


def test_times_and_tombstones() -> None:
    payloads = [encode_memory(5, None, {}, Validity(None, 9)), b"", encode_memory(6, "why", {})]
    columns = shred(payloads)
    assert to_signed(columns.created.array()).tolist() == [5, 0, 6]
    assert columns.valid_from is None
    assert columns.valid_to is not None
    assert to_signed(columns.valid_to.array()).tolist() == [9, 2**63 - 1, 2**63 - 1]
    assert columns.rest is None
    assert len(shred([])) == 0


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        b"\x93\x01\xc0",
        msgspec.msgpack.encode([1, None, [1]]),
        msgspec.msgpack.encode([2**63 - 1, None, {}]),
        msgspec.msgpack.encode([2**64 - 1, None, {}]),
        msgspec.msgpack.encode([1, None, {}, 2**63 - 1, None]),
        msgspec.msgpack.encode([1, None, {}, None, -(2**63)]),
        msgspec.msgpack.encode([1, None, {"when": msgspec.msgpack.Ext(2, b"")}]),
    ],
    ids=repr,
)
def test_a_row_that_cannot_be_read_is_left_to_its_payload(payload: bytes) -> None:
    columns = shred([payload_of({"n": 1}), payload, payload_of({"n": 2})])
    untold = from_signed(np.array([UNTOLD]))[0]
    assert columns.created.array()[1] == untold
    assert columns.rest is not None
    assert columns.rest.tolist() == [False, True, False]
    assert columns.fields["n",].kind_codes.tolist() == [INT, UNKNOWN, INT]


def test_numbers_that_nobody_could_have_saved_are_left_to_the_payload() -> None:
    said = [{"n": 2**64 - 1}, {"n": float("nan")}, {"n": 1}]
    columns = shred([msgspec.msgpack.encode([1, None, each]) for each in said])
    assert columns.fields["n",].kind_codes.tolist() == [UNKNOWN, UNKNOWN, INT]


def test_keys_that_are_no_text_are_left_to_the_payload() -> None:
    columns = shred([msgspec.msgpack.encode([1, None, {"d": {1: 2, "in": 3}}])])
    assert list(columns.fields) == [("d",), ("d", "in")]
    assert columns.rest is not None
