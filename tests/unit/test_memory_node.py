"""MemoryNode and the values around it: what a caller holds before saving and after loading."""

from __future__ import annotations

import copy
import pickle
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from engramdb.errors import InvalidInputError
from engramdb.lsm.records import NO_VECTOR
from engramdb.model.attributes import ALWAYS
from engramdb.model.connection import Connection
from engramdb.model.memory_node import MemoryNode
from engramdb.model.relationship import RelationshipType, check_relationship_type, check_strength
from engramdb.model.temporal_layer import TemporalLayer
from engramdb.model.vectors import check_matrix, check_vector

TEXT = "0190b6a4-7e1f-7c3a-9d2b-5f0e8a6c1d42"
CREATED = datetime(2024, 5, 1, 12, tzinfo=UTC)


def _loaded(**changes: Any) -> MemoryNode:
    fields = {
        "key": uuid.UUID(TEXT).bytes,
        "creation_us": 1_714_564_800_000_000,
        "attributes": {"title": "a"},
        "validity": ALWAYS,
        "embeddings": check_vector([1, 2]),
        "vector_number": 7,
        "seq": 3,
        "layers_loader": None,
    }
    return MemoryNode._restore(**(fields | changes))


def test_a_new_memory_has_a_fresh_id_the_present_time_and_nothing_else() -> None:
    before = datetime.now(UTC)
    node, other = MemoryNode(), MemoryNode()
    assert uuid.UUID(node.id).version == 7
    assert node.id < other.id
    assert before <= node.creation_timestamp <= datetime.now(UTC)
    assert node.creation_timestamp.tzinfo is UTC
    assert (node.embeddings, dict(node.attributes), node.score) == (None, {}, None)
    assert node.temporal_layers() == []
    assert (node._stored_vector, node._seq) == (NO_VECTOR, 0)


def test_everything_can_be_given() -> None:
    node = MemoryNode(
        [0.5, 1],
        id=TEXT.upper(),
        attributes={"title": "a"},
        creation_timestamp=CREATED.astimezone(timezone(timedelta(hours=2))),
    )
    assert node.id == TEXT
    assert node._key == uuid.UUID(TEXT).bytes
    assert node.attributes == {"title": "a"}
    assert (node.creation_timestamp, node.creation_timestamp.utcoffset()) == (CREATED, timedelta(0))
    assert node.embeddings is not None
    assert node.embeddings.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"id": "memory-1"}, "id"),
        ({"attributes": {"a": (1,)}}, "attributes['a']"),
        ({"creation_timestamp": datetime(2024, 5, 1)}, "creation_timestamp"),
        ({"embeddings": "text"}, "embeddings"),
    ],
)
def test_what_is_wrong_is_named(arguments: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        MemoryNode(**arguments)
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", ">f4", "g", "i1", "i2", "i8", "u1", "u8", list, tuple]
)
def test_embeddings_become_a_contiguous_read_only_float32_copy(dtype: Any) -> None:
    values: Any = dtype([1, 2, 3]) if dtype in (list, tuple) else np.array([1, 2, 3], dtype)
    vector = MemoryNode(values).embeddings
    assert vector is not None
    assert vector.dtype == np.float32
    assert vector.dtype.isnative
    assert vector.flags.c_contiguous
    assert not vector.flags.writeable
    assert not np.shares_memory(vector, np.asarray(values))
    assert vector.tolist() == [1.0, 2.0, 3.0]


def test_float32_embeddings_are_kept_bit_for_bit() -> None:
    bits = np.array([0x00000001, 0x80000000, 0x3DCCCCCD, 0x7E967699], np.uint32)
    vector = MemoryNode(bits.view(np.float32)).embeddings
    assert vector is not None
    assert vector.view(np.uint32).tolist() == bits.tolist()


def test_every_other_number_of_an_array_is_an_array_too() -> None:
    vector = MemoryNode(np.arange(6, dtype=np.float32)[::2]).embeddings
    assert vector is not None
    assert (vector.tolist(), vector.flags.c_contiguous) == ([0.0, 2.0, 4.0], True)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ([], "1 to 65536 numbers, got 0"),
        (np.zeros((2, 3)), r"one vector, got an array of shape \(2, 3\)"),
        (1.5, r"one vector, got an array of shape \(\)"),
        ([1, float("nan")], "number 1 is nan: not a finite number"),
        ([float("-inf"), 1], "number 0 is -inf: not a finite number"),
        ([0, 1e39], r"number 1 is 1e\+39: too large for float32"),
        ([True, False], "real numbers, got list of dtype bool"),
        (["1", "2"], "real numbers, got list of dtype <U1"),
        ("12", "real numbers, got str of dtype"),
        ([None, 1.0], "real numbers, got list of dtype object"),
        ([1j], "real numbers, got list of dtype complex128"),
        ([10**30], "real numbers, got list of dtype object"),
        ({1.0, 2.0}, "real numbers, got set of dtype object"),
        ([[1, 2], [3]], "expected numbers, got"),
        (np.array(["2024-05-01"], "M8[s]"), "dtype datetime64"),
    ],
    ids=repr,
)
def test_what_is_no_vector_is_refused(wrong: Any, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem) as caught:
        MemoryNode(wrong)
    assert caught.value.argument == "embeddings"
    node = MemoryNode([1.0])
    with pytest.raises(InvalidInputError, match=problem):
        node.embeddings = wrong
    assert node.embeddings is not None
    assert node.embeddings.tolist() == [1.0]


def test_a_large_vector_is_accepted_although_its_square_is_no_float32() -> None:
    assert check_vector([1e30, -1e30]).tolist() == [np.float32(1e30), np.float32(-1e30)]
    assert check_matrix([[1e30, 1], [1, 1]]).tolist() == [[np.float32(1e30), 1], [1, 1]]


def test_a_matrix_names_the_row_that_is_wrong_and_is_not_copied_without_need() -> None:
    matrix = np.eye(3, dtype=np.float32)
    assert check_matrix(matrix) is matrix
    converted = check_matrix(np.asfortranarray(np.eye(3)))
    assert (converted.dtype, converted.flags.c_contiguous) == (np.float32, True)
    assert check_matrix(np.zeros((0, 3))).shape == (0, 3)
    with pytest.raises(InvalidInputError, match="number 1 is inf: not a finite") as caught:
        check_matrix([[1, 2], [3, 4], [5, float("inf")], [float("nan"), 0]], "queries")
    assert caught.value.argument == "queries[2]"
    with pytest.raises(InvalidInputError, match=r"one vector per row, got shape \(3,\)"):
        check_matrix([1, 2, 3])


def test_setting_embeddings_replaces_them_and_forgets_where_they_came_from() -> None:
    node = _loaded()
    before = node.embeddings
    node.embeddings = [3.0, 4.0]
    assert node.embeddings is not None
    assert node.embeddings.tolist() == [3.0, 4.0]
    assert before is not None
    assert before.tolist() == [1.0, 2.0]
    assert node._stored_vector == NO_VECTOR
    node.embeddings = None
    assert node.embeddings is None


def test_attributes_are_set_read_and_removed() -> None:
    node = MemoryNode()
    node.set_attribute("title", "a")
    node.set_attribute("nothing", None)
    assert node.get_attribute("title") == "a"
    assert node.get_attribute("nothing", "default") is None
    assert node.get_attribute("missing") is None
    assert node.get_attribute("missing", 3) == 3
    assert node.remove_attribute("title") is True
    assert node.remove_attribute("title") is False
    assert node.attributes == {"nothing": None}


def test_an_attribute_is_a_copy_of_what_was_set() -> None:
    tags = ["a"]
    node = MemoryNode(attributes={"given": tags})
    node.set_attribute("set", tags)
    node.set_attribute("type", RelationshipType.CAUSATION)
    tags.append("b")
    assert node.attributes == {"given": ["a"], "set": ["a"], "type": "Causation"}
    assert type(node.get_attribute("type")) is str


def test_an_attribute_that_is_refused_leaves_the_old_one() -> None:
    node = MemoryNode(attributes={"a": 1})
    with pytest.raises(InvalidInputError) as caught:
        node.set_attribute("a", [1, {"b": float("nan")}])
    assert caught.value.argument == "attributes['a'][1]['b']"
    with pytest.raises(InvalidInputError, match=r"^attributes: a key has to be str"):
        node.set_attribute(1, "a")  # type: ignore[arg-type]
    assert node.attributes == {"a": 1}


def test_the_view_of_the_attributes_is_read_only_and_follows_them() -> None:
    node = MemoryNode()
    view = node.attributes
    with pytest.raises(TypeError):
        view["a"] = 1  # type: ignore[index]
    node.set_attribute("a", 1)
    assert view == {"a": 1}


def test_id_creation_time_and_unknown_names_cannot_be_assigned() -> None:
    node = MemoryNode()
    for name in ("id", "creation_timestamp", "attributes", "importance"):
        with pytest.raises(AttributeError):
            setattr(node, name, "x")


def test_a_loaded_memory_is_what_was_stored_and_knows_the_way_to_its_layers() -> None:
    layer = TemporalLayer(3, CREATED, "why", None, {})
    asked: list[bytes] = []

    def load(key: bytes) -> list[TemporalLayer]:
        asked.append(key)
        return [layer]

    node = _loaded(layers_loader=load)
    assert (node.id, node.creation_timestamp) == (TEXT, CREATED)
    assert (node._seq, node._stored_vector) == (3, 7)
    assert asked == []
    assert node.temporal_layers() == [layer]
    assert asked == [uuid.UUID(TEXT).bytes]


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda node: pickle.loads(pickle.dumps(node))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_is_equal_in_all_but_its_ties_to_the_database(duplicate: Any) -> None:
    node = _loaded(layers_loader=lambda key: [])
    node.score = 0.5
    twin = duplicate(node)
    assert (twin.id, twin.creation_timestamp, twin.score) == (TEXT, CREATED, 0.5)
    assert twin.embeddings.tolist() == [1.0, 2.0]
    assert not twin.embeddings.flags.writeable
    assert (twin._stored_vector, twin._layers_loader) == (NO_VECTOR, None)
    twin.set_attribute("title", "b")
    assert node.attributes == {"title": "a"}


def test_the_repr_names_id_dimension_attributes_and_score() -> None:
    node = _loaded()
    assert repr(node) == f"MemoryNode('{TEXT}', 2-d, {{'title': 'a'}})"
    node.score = 0.98765
    assert repr(node).endswith(", score=0.9877)")
    node.set_attribute("text", "x" * 10_000)
    assert len(repr(node)) < 300
    assert repr(MemoryNode(id=TEXT)) == f"MemoryNode('{TEXT}')"


def test_relationship_types_are_text() -> None:
    assert RelationshipType.PART_OF == "PartOf"
    assert str(RelationshipType.ASSOCIATION) == "Association"
    assert [type_.value for type_ in RelationshipType][:5] == [
        "Association",
        "Causation",
        "PartOf",
        "Contains",
        "Sequence",
    ]
    checked = check_relationship_type(RelationshipType.SEQUENCE)
    assert (checked, type(checked)) == ("Sequence", str)
    assert check_relationship_type("reminds me of") == "reminds me of"
    for wrong in (None, 3, b"Causation", "\ud800"):
        with pytest.raises(InvalidInputError, match=r"^relationship_type: "):
            check_relationship_type(wrong)


@pytest.mark.parametrize("strength", [0, 1, 0.0, 0.25, 1.0, np.float32(0.25), np.int8(1)])
def test_a_strength_is_a_number_from_0_to_1(strength: Any) -> None:
    checked = check_strength(strength)
    assert (checked, type(checked)) == (strength, float)


@pytest.mark.parametrize("wrong", [-0.001, 1.001, float("nan"), float("inf"), True, None, "0.5"])
def test_another_strength_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^strength: expected a number from 0 to 1"):
        check_strength(wrong)


def test_connections_are_values() -> None:
    fields = (TEXT, TEXT, "PartOf", 0.5, {"a": [1]}, CREATED)
    connection = Connection(*fields)
    assert connection == Connection(*fields)
    assert len({connection, Connection(*fields)}) == 1
    assert connection != Connection(TEXT, TEXT, "PartOf", 0.6, {"a": [1]}, CREATED)
    assert connection.relationship_type == RelationshipType.PART_OF
    with pytest.raises(AttributeError):
        connection.strength = 1.0  # type: ignore[misc]


def test_a_temporal_layer_is_no_deletion_unless_it_says_so() -> None:
    layer = TemporalLayer(3, CREATED, "why", None, {"a": 1})
    assert (layer.seq, layer.timestamp, layer.reason, layer.deleted) == (3, CREATED, "why", False)
    assert TemporalLayer(4, CREATED, None, None, {}, deleted=True).deleted
    with pytest.raises(AttributeError):
        layer.seq = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=2))),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=2))),
    ],
    ids=str,
)
def test_a_creation_that_has_no_reading_in_utc_is_refused(moment: datetime) -> None:
    with pytest.raises(InvalidInputError, match=r"creation_timestamp: .* outside the years"):
        MemoryNode(creation_timestamp=moment)


def test_when_a_fact_holds_is_kept_in_utc_and_may_be_open_at_either_end() -> None:
    always = MemoryNode()
    assert (always.valid_from, always.valid_to) == (None, None)
    lived = MemoryNode(
        valid_from=datetime(2025, 3, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        valid_to=datetime(2025, 6, 1, tzinfo=UTC),
    )
    assert lived.valid_from == datetime(2025, 3, 1, tzinfo=UTC)
    assert lived.valid_from.tzinfo is UTC
    lived.valid_to = None
    assert lived.valid_to is None
    assert copy.copy(lived).valid_from == pickle.loads(pickle.dumps(lived)).valid_from


@pytest.mark.parametrize("argument", ["valid_from", "valid_to"])
@pytest.mark.parametrize("wrong", [datetime(2025, 3, 1), "2025-03-01", 3])
def test_when_a_fact_holds_has_to_be_an_aware_moment(argument: str, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match=argument):
        MemoryNode(**{argument: wrong})
    node = MemoryNode()
    with pytest.raises(InvalidInputError, match=argument):
        setattr(node, argument, wrong)
    assert getattr(node, argument) is None
