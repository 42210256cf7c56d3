"""The manifest: what it holds comes back, its number is given once, and damage is never skipped."""

from __future__ import annotations

import struct
from datetime import timedelta
from threading import Thread
from typing import Any

import msgspec
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from engramdb.errors import CorruptionError, EngramError, IncompatibleFormatError
from engramdb.lsm import manifest as manifests
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.limits import (
    MANIFESTS_KEPT,
    NUMBER_MAX,
    SPACES_MAX,
    TIME_MAX,
    VECTOR_NUMBER_MAX,
)
from engramdb.lsm.manifest import (
    Manifest,
    SegmentEntry,
    Space,
    VectorEntry,
    decode,
    encode,
    encode_policy,
    load_latest,
    name_of,
    numbers_in,
    publish,
)
from engramdb.lsm.retention import KeepAll, KeepFor, KeepLast
from tests.unit.lsm_support import PATH, open_engine, put

seqs, times = st.integers(0, NUMBER_MAX), st.integers(0, TIME_MAX)


def make(number: int = 1, **changes: Any) -> Manifest:
    settings: dict[str, Any] = {
        "database": "ab" * 16,
        "number": number,
        "epoch": 1,
        "next_file": 5,
        "next_vector": 1,
        "last_seq": 0,
        "last_time": 0,
        "log_floor": 1,
    }
    return Manifest(**{**settings, **changes})


@pytest.fixture
def environment() -> MemoryEnvironment:
    made = MemoryEnvironment()
    made.make_directory("/d/tmp")
    return made


def sealed(body: bytes, version: int = 1) -> bytes:
    """A manifest file with these contents and a sound checksum."""
    head = struct.pack("<8sII", b"ENGRAMMF", version, len(body))
    return head + xxhash.xxh3_128_digest(head + body) + body


def write(environment: MemoryEnvironment, number: int, data: bytes) -> None:
    path = f"/d/{name_of(number)}"
    if environment.exists(path):
        environment.unlink(path)
    environment.open(path, "x").write_at(0, data)


@given(
    st.integers(3, NUMBER_MAX),
    st.integers(1, VECTOR_NUMBER_MAX),
    st.dictionaries(st.text(max_size=5), st.tuples(seqs, times)),
)
def test_it_comes_back(last_seq: int, next_vector: int, pins: dict[str, tuple[int, int]]) -> None:
    file: dict[str, Any] = {"origin": "cd" * 16, "size": 10, "fingerprint": "ef" * 16, "rows": 3}
    manifest = make(
        last_seq=last_seq,
        next_vector=next_vector,
        pins=pins,
        spaces=[Space("", 4)],
        history=("last", 3),
        copies=["/é"],
        segments=[
            SegmentEntry(
                number=2, seq_min=1, seq_max=3, time_min=4, time_max=5, live=(1, 2, 0), **file
            )
        ],
        vectors=[VectorEntry(number=3, dimension=4, space=0, number_min=1, number_max=3, **file)],
    )
    assert decode(encode(manifest), "file") == manifest


FILE = {"origin": "cd" * 16, "size": 10, "fingerprint": "ef" * 16, "rows": 3}
SEGMENT = {
    **FILE,
    "number": 2,
    "seq_min": 1,
    "seq_max": 3,
    "time_min": 4,
    "time_max": 5,
    "live": [1, 2, 0],
}
VECTORS = {"number": 3, "dimension": 4, "space": 0, "number_min": 1, "number_max": 3, **FILE}
MARKS = {"marks": 4, "marks_origin": "cd" * 16, "marks_size": 5, "marks_fingerprint": "ef" * 16}


@pytest.mark.parametrize(
    "wrong",
    [
        {"database": "zz" * 16},
        {"database": "ab" * 15},
        {"epoch": 2**32 - 1},
        {"epoch": -1},
        {"next_file": 2**63},
        {"next_file": 3},
        {"next_vector": 0},
        {"next_vector": 2**64 - 1},
        {"log_floor": -1},
        {"last_seq": 2**64},
        {"last_seq": 2},
        {"last_time": 2**60},
        {"history": ["last", 0]},
        {"history": ["for", 2**70]},
        {"history_floor": -1},
        {"history_floor": 4},
        {"pins": {"a": [-1, 0]}},
        {"pins": {"a": [1, 2**62]}},
        {"copies": ["a\0b"]},
        {"spaces": []},
        {"spaces": [{"name": "", "dimension": 0}]},
        {"spaces": [{"name": "", "dimension": 65_537}]},
        {"spaces": [{"name": "", "dimension": 5}]},
        {"segments": [SEGMENT, SEGMENT]},
        {"segments": [{**SEGMENT, "number": 3}]},
        {"segments": [{**SEGMENT, "origin": "x"}]},
        {"segments": [{**SEGMENT, "fingerprint": " " * 32}]},
        {"segments": [{**SEGMENT, "rows": 0}]},
        {"segments": [{**SEGMENT, "rows": 2**40}]},
        {"segments": [{**SEGMENT, "size": -1}]},
        {"segments": [{**SEGMENT, "seq_min": 4}]},
        {"segments": [{**SEGMENT, "time_max": 2**62}]},
        {"segments": [{**SEGMENT, "live": [4, 0, 0]}]},
        {"segments": [{**SEGMENT, "commit_seq": 2, "commit_time": 4}]},
        {"segments": [{**SEGMENT, "commit_seq": 2**63}]},
        {"segments": [{**SEGMENT, **MARKS, "marks": 2**63}]},
        {"segments": [{**SEGMENT, **MARKS, "marks_fingerprint": ""}]},
        {"segments": [{**SEGMENT, **MARKS, "marks_size": -1}]},
        {"vectors": [{**VECTORS, "dimension": 0}]},
        {"vectors": [{**VECTORS, "space": 1}]},
        {"vectors": [{**VECTORS, "space": -1}]},
        {"vectors": [{**VECTORS, "number_max": 2**64}]},
        {"vectors": [{**VECTORS, "unreferenced": 4}]},
    ],
    ids=str,
)
def test_a_sound_checksum_over_what_cannot_be(wrong: dict[str, Any]) -> None:
    right = {
        **msgspec.to_builtins(make(last_seq=3, spaces=[Space("", 4)])),
        "segments": [SEGMENT],
        "vectors": [VECTORS],
    }
    assert decode(sealed(msgspec.json.encode(right)), "file").segments[0].rows == 3
    with pytest.raises(CorruptionError, match=r"^file is damaged at offset 32: expected "):
        decode(sealed(msgspec.json.encode({**right, **wrong})), "file")


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"copies":["\xe9"]}', b'{"x":' * 100_000, b"9" * 9999]
)
def test_a_body_that_is_no_json_of_ours(body: bytes) -> None:
    with pytest.raises(CorruptionError, match="expected a manifest"):
        decode(sealed(body), "file")


def test_spaces_with_names_need_a_feature_that_older_programs_refuse() -> None:
    spaces = [Space("", 0), Space("b", 4)]
    assert decode(encode(make(spaces=spaces, features=["spaces"])), "file").spaces == spaces
    with pytest.raises(CorruptionError, match="feature"):
        decode(encode(make(spaces=spaces)), "file")


@pytest.mark.parametrize(
    "spaces",
    [
        [Space("a", 4), Space("", 4)],
        [Space("", 4), Space("a", 4), Space("a", 4)],
        [Space("", 4), Space("a", 0)],
        [Space("", 0)],
        [Space("", 4), Space("a\0b", 4)],
        [Space("", 4), Space("x" * 65, 4)],
        [Space("", 4), *(Space(f"s{i}", 4) for i in range(SPACES_MAX))],
    ],
)
def test_spaces_that_cannot_be(spaces: list[Space]) -> None:
    with pytest.raises(CorruptionError):
        decode(encode(make(spaces=spaces, features=["spaces"])), "file")


def test_the_frame_byte_by_byte() -> None:
    data = encode(make())
    body = data[32:]
    assert data == sealed(body)
    assert body.startswith(b'{"features":[],"database":"abab')


def test_numbers_are_read_from_names() -> None:
    names = ["LOCK", name_of(12), name_of(3), "MANIFEST-x", "MANIFEST-", name_of(2**63)]
    names += ["MANIFEST-7", "MANIFEST-" + "9" * 5000, name_of(4) + "~"]
    assert numbers_in(names) == [3, 12, 2**63]
    assert name_of(42) == "MANIFEST-00000000000000000042"


@pytest.mark.parametrize("policy", [KeepAll(), KeepLast(3), KeepFor(timedelta(days=2, seconds=1))])
def test_a_policy_comes_back(policy: Any) -> None:
    assert make(history=encode_policy(policy)).policy() == policy


def test_a_policy_of_the_future_is_refused() -> None:
    with pytest.raises(IncompatibleFormatError, match="upgrade"):
        make(history=("moon", 1)).policy()


# Publishing


def test_the_highest_number_counts(environment: MemoryEnvironment) -> None:
    assert load_latest(environment, "/d") is None
    for number in (1, 2, 3):
        publish(environment, "/d", make(number, last_seq=number))
    latest = load_latest(environment, "/d")
    assert latest is not None and latest.last_seq == 3
    assert environment.list("/d/tmp") == []


def test_two_writers_cannot_publish_one_number(environment: MemoryEnvironment) -> None:
    publish(environment, "/d", make(1, epoch=1))
    with pytest.raises(FileExistsError):
        publish(environment, "/d", make(1, epoch=2))
    latest = load_latest(environment, "/d")
    assert latest is not None and latest.epoch == 1


def test_of_many_racing_writers_one_wins() -> None:
    # each with a tmp of its own, as two machines that both think they hold the lock would have
    environment = MemoryEnvironment()
    outcomes: list[str] = []

    def race(i: int) -> None:
        environment.make_directory(f"/d{i}/tmp")
        temporary = f"/d{i}/tmp/{name_of(1)}"
        environment.open(temporary, "x").write_at(0, encode(make(1, epoch=i)))
        try:
            environment.link(temporary, f"/shared-{name_of(1)}")
            outcomes.append("won")
        except FileExistsError:
            outcomes.append("lost")

    threads = [Thread(target=race, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]


def test_a_fenced_writer_is_poisoned_and_harms_nothing() -> None:
    environment = MemoryEnvironment()
    engine = open_engine(environment)
    put(engine, 1, b"mine")
    held = load_latest(environment, PATH)
    assert held is not None
    # another writer, who took the lock over while we were stalled, publishes first
    other = Manifest(**{f: getattr(held, f) for f in held.__struct_fields__ if f != "number"},
                     number=held.number + 1)  # fmt: skip
    publish(environment, PATH, other)
    with pytest.raises(EngramError):
        engine.flush()
    with pytest.raises(EngramError):
        put(engine, 2, b"never")
    engine.close()
    with open_engine(environment) as again:
        assert again.last_seq == 1


def test_only_the_last_eight_are_kept(environment: MemoryEnvironment) -> None:
    for number in range(1, 21):
        publish(environment, "/d", make(number))
    kept = numbers_in(environment.list("/d"))
    assert kept == list(range(21 - MANIFESTS_KEPT, 21)) and MANIFESTS_KEPT == 8


def test_what_a_dead_writer_left_in_tmp_is_in_nobodys_way(environment: MemoryEnvironment) -> None:
    environment.open(f"/d/tmp/{name_of(1)}", "x").write_at(0, b"half a manif")
    publish(environment, "/d", make(1))
    assert load_latest(environment, "/d") == make(1)


# Damage


def test_a_damaged_highest_is_refused_not_passed_over(environment: MemoryEnvironment) -> None:
    publish(environment, "/d", make(1))
    publish(environment, "/d", make(2))
    data = bytearray(encode(make(2)))
    data[40] ^= 1
    write(environment, 2, bytes(data))
    with pytest.raises(CorruptionError, match=name_of(2)):
        load_latest(environment, "/d")


def test_every_bit_counts() -> None:
    good = encode(make())
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        with pytest.raises((CorruptionError, IncompatibleFormatError)):
            decode(bytes(bad), "file")


@pytest.mark.parametrize("length", [0, 1, 31, 32, 100])
def test_a_cut_one_is_damage(length: int) -> None:
    with pytest.raises(CorruptionError):
        decode(encode(make())[:length], "file")


def test_one_under_a_wrong_number_is_damage(environment: MemoryEnvironment) -> None:
    write(environment, 9, encode(make(8)))
    with pytest.raises(CorruptionError, match="number 9"):
        load_latest(environment, "/d")


def test_sound_checksums_around_nonsense_are_damage() -> None:
    for body in (b"", b"{}", b"[1]", b'{"database":3}', b"\xff"):
        with pytest.raises(CorruptionError):
            decode(sealed(body), "file")


def test_the_future_is_refused() -> None:
    body = encode(make())[32:]
    with pytest.raises(IncompatibleFormatError, match=r"format 2.*upgrade"):
        decode(sealed(body, version=2), "file")
    with pytest.raises(IncompatibleFormatError, match=r"\['telepathy'\].*upgrade"):
        decode(encode(make(features=["telepathy"])), "file")
    assert {manifests.SPACES} == manifests.FEATURES


def test_a_foreign_file_is_told_apart() -> None:
    with pytest.raises(IncompatibleFormatError, match="not a manifest"):
        decode(b"SQLite format 3\0" + bytes(100), "file")
