"""The bounded part of the fuzzing: some thousand forgeries, the same ones each time. The long
campaign is tests/stress/fuzz.py. A failure prints the arguments that repeat it."""

from __future__ import annotations

import warnings
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.errors import EngramError
from engramdb.lsm import log_reader
from engramdb.lsm.segment import Segment
from tests.fuzz import parsers
from tests.fuzz.checking import check, no_hang
from tests.fuzz.databases import KINDS, ForgedDatabase
from tests.fuzz.parsers import PARSERS, mutated, seeds
from tests.fuzz.samples import NAMES, sample
from tests.stress.fuzz import campaign

BOUNDED = settings(derandomize=True, deadline=None, database=None)
SEEDS = st.integers(0, 2**32)


@pytest.mark.parametrize("kind", KINDS)
@settings(BOUNDED, max_examples=150)
@given(name=st.sampled_from(NAMES), seed=SEEDS)
def test_whole_databases(kind: str, name: str, seed: int) -> None:
    check(kind, name, seed)


@pytest.mark.parametrize("kind", KINDS)
@settings(BOUNDED, max_examples=12)
@given(name=st.sampled_from(NAMES), seed=SEEDS)
def test_the_memory_that_they_take(kind: str, name: str, seed: int) -> None:
    assert check(kind, name, seed, trace=True).peak_bytes > 0


@pytest.mark.parametrize("parser", PARSERS)
@settings(BOUNDED, max_examples=500)
@given(seed=SEEDS)
def test_single_parsers(parser: str, seed: int) -> None:
    read(parser, mutated(Random(f"{parser}/{seed}"), parser))


@pytest.mark.parametrize("parser", PARSERS)
@settings(BOUNDED, max_examples=200)
@given(data=st.binary(max_size=300))
def test_single_parsers_with_any_bytes(parser: str, data: bytes) -> None:
    read(parser, data)


def read(parser: str, data: bytes) -> None:
    with warnings.catch_warnings(), no_hang():
        warnings.simplefilter("ignore", RuntimeWarning)
        PARSERS[parser](data)


@pytest.mark.parametrize("parser", PARSERS)
def test_the_parsers_take_what_is_sound(parser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or they would refuse everything at the door, and nothing would be fuzzed."""
    taken: list[object] = []

    def noting(function, *arguments, **named):  # type: ignore[no-untyped-def]
        try:
            result = function(*arguments, **named)
        except EngramError:
            return None
        taken.append(getattr(function, "__name__", function))
        return result

    monkeypatch.setattr(parsers, "_tolerant", noting)
    for data in seeds(parser):
        taken.clear()
        PARSERS[parser](data)
        assert taken or parser == "block"
        if parser == "container":
            assert {"columns", "record", "edges_around", "edges_between", "verify"} <= set(taken)


def test_every_kind_of_file_is_forged_somewhere() -> None:
    made = [ForgedDatabase(sample(name)) for name in NAMES]
    sections = {
        section.name
        for database in made
        for container in database.containers.values()
        for section in container.sections
    }
    assert {b"by.source", b"types", b"matrix.sums", b"row", b"superseded"} <= sections
    assert sum(len(log.records) for database in made for log in database.logs.values()) > 10
    assert any(entry["commit_seq"] for d in made for entry in d.manifest["vectors"])


def test_a_check_that_is_left_out_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzing would find these bugs again."""

    def misses(kind: str, inputs: int) -> bool:
        for seed in range(inputs):
            try:
                check(kind, NAMES[seed % len(NAMES)], seed)
            except EngramError:
                raise
            except Exception:
                return True
        return False

    with monkeypatch.context() as patch:
        patch.setattr(log_reader, "_check_columns", lambda *_: None)
        assert misses("log", 200)
    with monkeypatch.context() as patch:
        patch.setattr(
            Segment,
            "_permutation",
            lambda segment, name: segment.reader.column(name).array().astype("int64"),
        )
        assert misses("segment", 200)


def test_the_campaign_reports() -> None:
    outcome = campaign(3.0, 5)
    assert not outcome.failures
    assert all(outcome.figures[f"inputs of the parser of {parser}"] for parser in PARSERS)
    assert all(outcome.figures[f"databases with a forged {kind}"] for kind in KINDS)
