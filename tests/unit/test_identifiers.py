"""Ids: text outside, 16 bytes inside, and new ones that sort by the time they were made."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engramdb.errors import InvalidInputError
from engramdb.model import identifiers
from engramdb.model.identifiers import format_key, format_keys, new_key, new_keys, parse_id

KEY = bytes.fromhex("0190b6a47e1f7c3a9d2b5f0e8a6c1d42")
TEXT = "0190b6a4-7e1f-7c3a-9d2b-5f0e8a6c1d42"


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(identifiers, "_last", 0)
    yield


def _freeze_clock(monkeypatch: pytest.MonkeyPatch, at_ms: int) -> None:
    monkeypatch.setattr(identifiers.time, "time_ns", lambda: at_ms * 1_000_000)


def _timestamp_ms(key: bytes) -> int:
    return int.from_bytes(key[:6], "big")


@pytest.mark.parametrize(
    "given_id", [TEXT, TEXT.upper(), TEXT.replace("-", ""), uuid.UUID(TEXT)], ids=str
)
def test_an_id_may_be_canonical_text_hex_digits_or_a_uuid(given_id: object) -> None:
    assert parse_id(given_id) == KEY


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "memory-1",
        TEXT[:-1],
        TEXT + "0",
        "{" + TEXT + "}",
        "urn:uuid:" + TEXT,
        TEXT.replace("a", "g"),
        TEXT.replace("-", "_"),
        "0190b6a-47e1f-7c3a-9d2b-5f0e8a6c1d42",  # a hyphen in the wrong place
        "0190b6a4-7e1f-7c3a-9d2b-5f0e8a6c-d42",  # one hyphen too many
        "0190b6a4-7e1f-7c3a-9d2b-5f0e8a6c  42",
        " " + TEXT.replace("-", "")[:-1],
        "\u0660" * 32,  # digits, but not ASCII
        KEY,
        KEY.hex().encode(),
        int(KEY.hex(), 16),
        None,
    ],
    ids=repr,
)
def test_anything_else_is_refused_and_the_argument_is_named(wrong: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^source_id: expected a UUID") as caught:
        parse_id(wrong, "source_id")
    assert caught.value.argument == "source_id"


@given(st.uuids())
def test_formatting_gives_the_canonical_text_and_parsing_gives_the_key_back(
    any_id: uuid.UUID,
) -> None:
    assert format_key(any_id.bytes) == str(any_id)
    assert parse_id(str(any_id)) == any_id.bytes


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=60))
def test_formatting_many_is_formatting_each(keys: list[bytes]) -> None:
    assert format_keys(keys) == [format_key(key) for key in keys]


def test_a_new_key_is_a_uuid_of_version_7_made_now() -> None:
    before_ms = time.time_ns() // 1_000_000
    made = uuid.UUID(bytes=new_key())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before_ms <= _timestamp_ms(made.bytes) <= time.time_ns() // 1_000_000


def test_within_a_millisecond_keys_count_up_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _freeze_clock(monkeypatch, 1_700_000_000_000)
    keys = [new_key() for _ in range(100)]
    numbers = [int.from_bytes(key, "big") for key in keys]
    assert numbers == list(range(numbers[0], numbers[0] + 100))
    assert {_timestamp_ms(key) for key in keys} == {1_700_000_000_000}


def test_a_new_millisecond_gets_a_fresh_random_part(monkeypatch: pytest.MonkeyPatch) -> None:
    _freeze_clock(monkeypatch, 1_700_000_000_000)
    first = new_key()
    _freeze_clock(monkeypatch, 1_700_000_000_001)
    second = new_key()
    assert second > first
    assert second[6:] != first[6:]


def test_keys_keep_rising_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    _freeze_clock(monkeypatch, 1_700_000_000_000)
    first = new_key()
    _freeze_clock(monkeypatch, 1_600_000_000_000)
    assert new_key() > first


@pytest.mark.parametrize("lower_bits_left", [0, 1, 5])
@pytest.mark.parametrize("upper_bits", [0x123, 0xFFF])
def test_keys_keep_rising_when_the_random_part_runs_over(
    monkeypatch: pytest.MonkeyPatch, lower_bits_left: int, upper_bits: int
) -> None:
    _freeze_clock(monkeypatch, 1_000)
    last = 1_000 << 74 | upper_bits << 62 | (2**62 - 1 - lower_bits_left)
    monkeypatch.setattr(identifiers, "_last", last)
    one_by_one = [new_key() for _ in range(10)]
    monkeypatch.setattr(identifiers, "_last", last)
    assert [row.tobytes() for row in new_keys(10)] == one_by_one
    assert sorted(set(one_by_one)) == one_by_one
    assert {uuid.UUID(bytes=key).version for key in one_by_one} == {7}
    assert {uuid.UUID(bytes=key).variant for key in one_by_one} == {uuid.RFC_4122}
    assert _timestamp_ms(one_by_one[-1]) == (1_001 if upper_bits == 0xFFF else 1_000)


def test_keys_in_bulk_are_consecutive_and_the_next_one_follows_them() -> None:
    before = new_key()
    keys = new_keys(5_000)
    after = new_key()
    assert (keys.shape, keys.dtype) == ((5_000, 16), np.uint8)
    numbers = [int.from_bytes(row.tobytes(), "big") for row in keys]
    assert numbers == list(range(numbers[0], numbers[0] + 5_000))
    assert before < keys[0].tobytes() < keys[-1].tobytes() < after


def test_no_keys_in_bulk_are_an_empty_matrix_and_fewer_are_refused() -> None:
    assert new_keys(0).shape == (0, 16)
    with pytest.raises(InvalidInputError, match="count: cannot be negative, got -1"):
        new_keys(-1)


def test_threads_never_get_the_same_key_and_each_sees_rising_ones() -> None:
    made: list[list[bytes]] = [[] for _ in range(4)]
    start = threading.Barrier(4)

    def make(mine: list[bytes]) -> None:
        start.wait()
        for _ in range(500):
            mine.append(new_key())
            mine.extend(row.tobytes() for row in new_keys(3))

    threads = [threading.Thread(target=make, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key for mine in made for key in mine}) == 4 * 500 * 4
    assert all(mine == sorted(mine) for mine in made)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_counts_on_from_a_number_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _freeze_clock(monkeypatch, 1_700_000_000_000)
    parents = new_key()
    read_end, write_end = os.pipe()
    with identifiers._lock:  # as if another thread had been making a key
        child = os.fork()
    if child == 0:
        os.write(write_end, new_key())
        os._exit(0)
    os.close(write_end)
    childs = os.read(read_end, 16)
    os.close(read_end)
    assert os.waitpid(child, 0)[1] == 0
    assert childs > parents
    assert childs[6:] != (int.from_bytes(parents, "big") + 1).to_bytes(16, "big")[6:]
    assert childs != new_key()
