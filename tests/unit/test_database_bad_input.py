"""Bad input is refused by the name of the argument, and nothing at all is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engramdb import AttributeFilter, Database, InvalidInputError, MemoryNode

GOOD = MemoryNode([1.0, 0.0], attributes={"kind": "good"})
NAN_MATRIX = np.array([[1.0, 0.0], [math.nan, 0.0]])


def smuggled(value: Any) -> MemoryNode:
    """A node into which a bad value has got past set_attribute: inside a list that was set."""
    node = MemoryNode([1.0, 0.0], attributes={"list": []})
    node.get_attribute("list").append(value)
    return node


BAD: dict[str, tuple[str, Callable[[Database, str], Any]]] = {
    # what a node refuses to hold
    "NaN": ("embeddings", lambda db, i: db.save(MemoryNode([math.nan, 1.0]))),
    "infinity": ("embeddings", lambda db, i: db.save(MemoryNode([math.inf, 1.0]))),
    "a matrix": ("embeddings", lambda db, i: db.save(MemoryNode([[1.0, 1.0]]))),
    "65 bits": (
        "attributes['n']",
        lambda db, i: db.save(MemoryNode([1.0, 1.0], attributes={"n": 2**63})),
    ),
    # save
    "no node": ("node", lambda db, i: db.save({"embeddings": [1.0, 0.0]})),
    "wrong dimension": ("embeddings", lambda db, i: db.save(MemoryNode([1.0, 2.0, 3.0]))),
    "smuggled 65 bits": ("attributes['list'][0]", lambda db, i: db.save(smuggled(2**63))),
    "smuggled NaN": ("attributes['list'][0]", lambda db, i: db.save(smuggled(math.nan))),
    "smuggled surrogate": ("attributes['list'][0]", lambda db, i: db.save(smuggled("\ud800"))),
    "smuggled type": ("attributes['list'][0]", lambda db, i: db.save(smuggled(object()))),
    "reason": ("reason", lambda db, i: db.save(GOOD, reason=3)),
    "reason surrogate": ("reason", lambda db, i: db.save(GOOD, reason="\udc80")),
    "sync": ("sync", lambda db, i: db.save(GOOD, sync="yes")),
    "expected_seq": ("expected_seq", lambda db, i: db.save(GOOD, expected_seq=-1)),
    "expected_seq bool": ("expected_seq", lambda db, i: db.save(GOOD, expected_seq=True)),
    # save_many: the rest of the batch is not written either
    "many dimension": (
        "nodes[1].embeddings",
        lambda db, i: db.save_many([GOOD, MemoryNode([1.0])]),
    ),
    "many smuggled": (
        "nodes[1].attributes['list'][0]",
        lambda db, i: db.save_many([GOOD, smuggled(2**64), GOOD]),
    ),
    "many no node": ("nodes[1]", lambda db, i: db.save_many([GOOD, "node"])),
    "many reason": ("reason", lambda db, i: db.save_many([GOOD], reason=b"")),
    # save_columns
    "columns of nothing": ("embeddings", lambda db, i: db.save_columns()),
    "columns NaN": ("embeddings[1]", lambda db, i: db.save_columns(embeddings=NAN_MATRIX)),
    "columns dimension": (
        "embeddings",
        lambda db, i: db.save_columns(embeddings=np.ones((2, 3))),
    ),
    "columns one vector": ("embeddings", lambda db, i: db.save_columns(embeddings=[1.0, 2.0])),
    "columns lengths": (
        "attributes",
        lambda db, i: db.save_columns(embeddings=np.ones((2, 2)), attributes=[{}]),
    ),
    "columns ids lengths": (
        "embeddings",
        lambda db, i: db.save_columns(ids=[i], embeddings=np.ones((2, 2))),
    ),
    "columns id": ("ids[1]", lambda db, i: db.save_columns(ids=[i, "x"])),
    "columns id twice": ("ids[1]", lambda db, i: db.save_columns(ids=[i, i])),
    "columns ids str": ("ids", lambda db, i: db.save_columns(ids=i)),
    "columns attribute": (
        "attributes[1]['a']",
        lambda db, i: db.save_columns(attributes=[{}, {"a": {1}}]),
    ),
    "columns attribute row": ("attributes[1]", lambda db, i: db.save_columns(attributes=[{}, 3])),
    "columns attribute column": (
        "attributes[2]['a']",
        lambda db, i: db.save_columns(attributes={"a": np.array([1.0, 2.0, math.nan])}),
    ),
    "columns uneven": (
        "attributes['b']",
        lambda db, i: db.save_columns(attributes={"a": [1, 2], "b": [1]}),
    ),
    "columns datetime64": (
        "attributes['a']",
        lambda db, i: db.save_columns(attributes={"a": np.array(["2024-01-01"], "M8[ns]")}),
    ),
    "columns no column": ("attributes['a']", lambda db, i: db.save_columns(attributes={"a": 3})),
    "columns attributes type": ("attributes", lambda db, i: db.save_columns(attributes="abc")),
    "columns reason": (
        "reason",
        lambda db, i: db.save_columns(attributes=[{}], reason=3),
    ),
    # ids
    "load": ("memory_id", lambda db, i: db.load("not a uuid")),
    "get": ("memory_id", lambda db, i: db.get(7)),
    "in": ("memory_id", lambda db, i: None in db),
    "delete": ("memory_id", lambda db, i: db.delete(i + "0")),
    "history": ("memory_id", lambda db, i: db.history("")),
    "purge": ("memory_id", lambda db, i: db.purge("?")),
    "restore": ("memory_id", lambda db, i: db.restore("?", 1)),
    # connections
    "source": ("source_id", lambda db, i: db.connect("?", i)),
    "target": ("target_id", lambda db, i: db.connect(i, "?")),
    "type": ("relationship_type", lambda db, i: db.connect(i, i, "")),
    "type surrogate": ("relationship_type", lambda db, i: db.connect(i, i, "\ud800")),
    "strength": ("strength", lambda db, i: db.connect(i, i, strength=1.5)),
    "strength NaN": ("strength", lambda db, i: db.connect(i, i, strength=math.nan)),
    "edge attribute": (
        "attributes['a']",
        lambda db, i: db.connect(i, i, attributes={"a": object()}),
    ),
    "disconnect type": ("relationship_type", lambda db, i: db.disconnect(i, i, 3)),
    "connections type": ("relationship_type", lambda db, i: db.get_connections(i, 3)),
    # search
    "query NaN": ("vector", lambda db, i: db.search_similar([math.nan, 0.0])),
    "query dimension": ("vector", lambda db, i: db.search_similar([1.0])),
    "query type": ("vector", lambda db, i: db.search_similar("ab")),
    "limit 0": ("limit", lambda db, i: db.search_similar([1.0, 0.0], 0)),
    "limit bool": ("limit", lambda db, i: db.search_similar([1.0, 0.0], True)),
    "limit float": ("limit", lambda db, i: db.search_similar([1.0, 0.0], 1.0)),
    "threshold": ("threshold", lambda db, i: db.search_similar([1.0, 0.0], threshold="0")),
    "threshold NaN": (
        "threshold",
        lambda db, i: db.search_similar([1.0, 0.0], threshold=math.nan),
    ),
    "where": ("where", lambda db, i: db.search_similar([1.0, 0.0], where="a = 1")),
    "where operator": (
        "where['a']",
        lambda db, i: db.search_similar([1.0, 0.0], where={"a": {"$near": 1}}),
    ),
    "exact": ("exact", lambda db, i: db.search_similar([1.0, 0.0], exact=1)),
    "many queries": ("vectors[0]", lambda db, i: db.search_many([[math.nan, 0.0]])),
    "many queries dimension": ("vectors", lambda db, i: db.search_many([[1.0]])),
    "many queries limit": ("limit", lambda db, i: db.search_many([[1.0, 0.0]], 0)),
    # moments
    "as_of future": ("as_of", lambda db, i: db.as_of(1000)),
    "as_of negative": ("as_of", lambda db, i: db.as_of(-1)),
    "as_of bool": ("as_of", lambda db, i: db.as_of(True)),
    "as_of tag": ("as_of", lambda db, i: db.as_of("no such tag")),
    "as_of type": ("as_of", lambda db, i: db.as_of(1.5)),
    "search as_of": ("as_of", lambda db, i: db.search_similar([1.0, 0.0], as_of="?")),
    "diff": ("a", lambda db, i: db.diff(1000)),
    "diff b": ("b", lambda db, i: db.diff(0, "?")),
    "undo 0": ("n", lambda db, i: db.undo(0)),
    "undo too many": ("n", lambda db, i: db.undo(1000)),
    "undo commit": ("commit", lambda db, i: db.undo(commit=1000)),
    "undo both": ("n", lambda db, i: db.undo(2, commit=1)),
    "tag": ("name", lambda db, i: db.tag("")),
    "tag long": ("name", lambda db, i: db.tag("x" * 257)),
    "changes": ("since_seq", lambda db, i: db.changes(-1)),
    "set_history": ("history", lambda db, i: db.set_history(3)),
    # queries
    "with_vector": ("vector", lambda db, i: db.query().with_vector([1.0])),
    "with_threshold": ("threshold", lambda db, i: db.query().with_similarity_threshold(math.inf)),
    "threshold alone": (
        "vector",
        lambda db, i: db.query().with_similarity_threshold(0.5).execute(),
    ),
    "with_filter": ("attribute_filter", lambda db, i: db.query().with_attribute_filter(3)),
    "with_temporal": (
        "temporal_filter",
        lambda db, i: db.query().with_temporal_filter(AttributeFilter.exists("a")),
    ),
    "with_ids": ("ids[1]", lambda db, i: db.query().with_ids([i, "?"])),
    "with_ids str": ("ids", lambda db, i: db.query().with_ids(i)),
    "with_exclude_ids": ("ids[0]", lambda db, i: db.query().with_exclude_ids([3])),
    "with_limit": ("limit", lambda db, i: db.query().with_limit(0)),
    "query as_of": ("as_of", lambda db, i: db.query().as_of("?").execute()),
}


@pytest.fixture(scope="module")
def filled() -> Any:
    with Database.in_memory() as db:
        memory_id = db.save(MemoryNode([0.5, 0.5], attributes={"kind": "first"}))
        db.connect(memory_id, memory_id)
        yield db, memory_id


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_its_argument_and_writes_nothing(filled: Any, case: str) -> None:
    db, memory_id = filled
    argument, call = BAD[case]
    before = db.last_seq
    with pytest.raises(InvalidInputError) as caught:
        call(db, memory_id)
    assert caught.value.argument == argument, str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert db.last_seq == before and db.list_all() == [memory_id]


def test_a_wrong_dimension_names_both_numbers(filled: Any) -> None:
    db, _ = filled
    with pytest.raises(InvalidInputError, match=r"3 .* 2\b"):
        db.save(MemoryNode([1.0, 2.0, 3.0]))
    with pytest.raises(InvalidInputError, match=r"3 .* 2\b"):
        db.search_similar([1.0, 2.0, 3.0])


def test_a_configured_dimension_counts_from_the_first_save() -> None:
    with Database.in_memory(dimension=3) as db:
        with pytest.raises(InvalidInputError, match=r"2 .* 3\b"):
            db.save(MemoryNode([1.0, 2.0]))
        with pytest.raises(InvalidInputError, match=r"2 .* 3\b"):
            db.save_columns(embeddings=[[1.0, 2.0]])
        db.save(MemoryNode([1.0, 2.0, 3.0]))


def test_a_first_batch_of_two_dimensions_is_refused_whole() -> None:
    with Database.in_memory() as db:
        with pytest.raises(InvalidInputError, match="nodes"):
            db.save_many([MemoryNode([1.0]), MemoryNode(None), MemoryNode([1.0, 2.0])])
        assert db.last_seq == 0 and db.dimension is None


def test_a_failing_call_inside_a_transaction_writes_nothing_of_itself(filled: Any) -> None:
    db, memory_id = filled
    before = db.last_seq
    with db.transaction() as tx:
        with pytest.raises(InvalidInputError):
            tx.save_many([GOOD, MemoryNode([1.0])])
        with pytest.raises(InvalidInputError):
            tx.connect(memory_id, memory_id, strength=2)
    assert db.last_seq == before
