"""Every limit of engramdb.model.limits, at its edge: the last that fits and the first that does
not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engramdb.errors import InvalidInputError
from engramdb.model.attributes import check_attributes, decode_memory, encode_edge, encode_memory
from engramdb.model.limits import (
    ATTRIBUTE_KEY_BYTES_MAX,
    DIMENSION_MAX,
    INTEGER_MAX,
    INTEGER_MIN,
    NESTING_DEPTH_MAX,
    PAYLOAD_BYTES_MAX,
    RELATIONSHIP_TYPE_BYTES_MAX,
    VECTOR_NORM_MAX,
)
from engramdb.model.relationship import check_relationship_type
from engramdb.model.vectors import check_matrix, check_vector


def _nested(kind: type, depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"in": value}
    return value


@pytest.mark.parametrize("character", ["a", "é", "😀"])
def test_a_key_has_512_bytes_of_utf8(character: str) -> None:
    assert ATTRIBUTE_KEY_BYTES_MAX == 512
    longest = character * (ATTRIBUTE_KEY_BYTES_MAX // len(character.encode()))
    for attributes in ({longest: 1}, {"a": {longest: 1}}):
        assert decode_memory(encode_memory(0, None, attributes))[2] == attributes
        assert check_attributes(attributes) == attributes
    for attributes in ({longest + "a": 1}, {"a": {longest + "a": 1}}):
        for check in (check_attributes, lambda given: encode_memory(0, None, given)):
            with pytest.raises(InvalidInputError, match="has 513 bytes of UTF-8"):
                check(attributes)


@pytest.mark.parametrize("kind", [list, dict])
def test_32_lists_and_dicts_are_inside_each_other(kind: type) -> None:
    assert NESTING_DEPTH_MAX == 32
    deepest = {"a": _nested(kind, NESTING_DEPTH_MAX)}
    assert decode_memory(encode_memory(0, None, deepest))[2] == deepest
    for check in (check_attributes, lambda given: encode_memory(0, None, given)):
        with pytest.raises(InvalidInputError, match="more than 32 lists and dicts"):
            check({"a": _nested(kind, NESTING_DEPTH_MAX + 1)})


def test_a_list_that_contains_itself_is_too_deep() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInputError, match="or one contains itself"):
        check_attributes({"a": loop})


@pytest.mark.parametrize("edge", [INTEGER_MIN, INTEGER_MAX])
def test_an_integer_has_64_bits(edge: int) -> None:
    assert decode_memory(encode_memory(0, None, {"a": edge}))[2] == {"a": edge}
    beyond = edge + (1 if edge > 0 else -1)
    with pytest.raises(InvalidInputError, match=r"^attributes\['a'\]: .*64 bits"):
        encode_memory(0, None, {"a": beyond})


def test_a_payload_has_16_mebibytes() -> None:
    assert PAYLOAD_BYTES_MAX == 16 * 2**20
    for encode, besides in (
        (lambda attributes: encode_memory(0, None, attributes), 11),
        (lambda attributes: encode_edge(0, attributes), 10),
    ):
        fits = {"a": b"x" * (PAYLOAD_BYTES_MAX - besides)}
        assert len(encode(fits)) == PAYLOAD_BYTES_MAX
        with pytest.raises(InvalidInputError, match=f"take {PAYLOAD_BYTES_MAX + 1} bytes"):
            encode({"a": fits["a"] + b"x"})


def test_a_vector_has_65536_numbers() -> None:
    assert DIMENSION_MAX == 65_536
    assert check_vector(np.ones(DIMENSION_MAX)).size == DIMENSION_MAX
    assert check_matrix(np.ones((2, DIMENSION_MAX))).shape == (2, DIMENSION_MAX)
    for wrong in (DIMENSION_MAX + 1, 0):
        with pytest.raises(InvalidInputError, match=f"1 to 65536 numbers, got {wrong}"):
            check_vector(np.ones(wrong))
        with pytest.raises(InvalidInputError, match=f"1 to 65536 numbers, got {wrong}"):
            check_matrix(np.ones((2, wrong)))


def test_the_norm_of_a_vector_stays_below_3e38() -> None:
    assert VECTOR_NORM_MAX == 3e38
    assert check_vector([2.9e38])[0] == np.float32(2.9e38)
    assert check_vector([1e38, 2e38, 1e38]).size == 3
    for wrong in ([3.1e38], [2.5e38, 2.5e38]):
        with pytest.raises(InvalidInputError, match=r"norm .* is above 3e"):
            check_vector(wrong)
        with pytest.raises(InvalidInputError, match=r"^embeddings\[1\]: its norm"):
            check_matrix([[1.0] * len(wrong), wrong])


@pytest.mark.parametrize("character", ["a", "é", "😀"])
def test_a_relationship_type_has_256_bytes_of_utf8(character: str) -> None:
    assert RELATIONSHIP_TYPE_BYTES_MAX == 256
    longest = character * (RELATIONSHIP_TYPE_BYTES_MAX // len(character.encode()))
    assert check_relationship_type(longest) == longest
    with pytest.raises(InvalidInputError, match="has 257 bytes of UTF-8"):
        check_relationship_type(longest + "a")
    with pytest.raises(InvalidInputError, match="has 0 bytes of UTF-8"):
        check_relationship_type("")
