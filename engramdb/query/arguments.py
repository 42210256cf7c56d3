"""Checks of what callers hand in. Each raises InvalidInputError naming the argument."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engramdb.errors import InvalidInputError
from engramdb.index.metric import COSINE, METRICS, Metric
from engramdb.lsm.records import DEFAULT_SPACE
from engramdb.model.memory_node import MemoryNode
from engramdb.model.vectors import Vector, check_matrix, check_vector, check_vectors
from engramdb.query.attribute_filter import AttributeFilter

_FLOAT32: Final = np.dtype(np.float32)  # numpy has one object for it
_SQUARE_SAFE: Final = 1e38

Where = AttributeFilter | Mapping[str, Any]
"""What `where` takes: a filter, or the same as a mapping: {"importance": {"$gt": 0.7}}."""


def check_limit(limit: object, argument: str = "limit") -> int:
    """How many at most: an int from 1 on."""
    if isinstance(limit, (int, np.integer)) and not isinstance(limit, bool) and limit >= 1:
        return int(limit)
    raise InvalidInputError(argument, f"expected an int from 1 on, got {limit!r:.80}")


def check_count(count: object, argument: str) -> int:
    """How many: an int from 0 on."""
    if isinstance(count, (int, np.integer)) and not isinstance(count, bool) and count >= 0:
        return int(count)
    raise InvalidInputError(argument, f"expected an int from 0 on, got {count!r:.80}")


def check_share(share: object, argument: str) -> float:
    """A number from 0 to 1."""
    number = check_threshold(share, argument)
    if 0.0 <= number <= 1.0:
        return number
    raise InvalidInputError(argument, f"expected a number from 0 to 1, got {share!r:.80}")


def check_threshold(threshold: object, argument: str = "threshold") -> float:
    """A score: a finite number."""
    if isinstance(threshold, (int, float, np.integer, np.floating)) and not isinstance(
        threshold, bool
    ):
        try:
            number = float(threshold)
        except OverflowError:  # an int with more than 308 digits
            number = math.inf
        if math.isfinite(number):
            return number
    raise InvalidInputError(argument, f"expected a finite number, got {threshold!r:.80}")


def check_metric(metric: object) -> Metric:
    """The name of a metric."""
    for known in METRICS:
        if isinstance(metric, str) and metric == known:
            return known
    names = ", ".join(map(repr, METRICS))
    raise InvalidInputError("metric", f"expected one of {names}, got {metric!r:.80}")


def check_metric_of_rows(metric: Metric, rows: int) -> None:
    """Of several query vectors the best cosines are added up, and nothing else is."""
    if rows > 1 and metric != COSINE:
        raise InvalidInputError(
            "metric",
            f"a query of {rows} vectors (MaxSim) is scored by 'cosine' only, got {metric!r}",
        )


def check_least(threshold: object, metric: Metric) -> float:
    """The threshold of a search: None is 0 for cosines, and none at all for the other metrics."""
    if threshold is None:
        return 0.0 if metric == COSINE else -math.inf
    return check_threshold(threshold)


def check_query(vector: object, dimension: int | None, argument: str = "vector") -> Vector:
    """A query vector as float32, of the dimension of the database."""
    return check_width(check_vector(vector, argument), dimension, argument)


def check_width(query: Vector, dimension: int | None, argument: str = "vector") -> Vector:
    """A query vector, of the dimension of the database."""
    if dimension is not None and query.size != dimension:
        raise wrong_dimension(query.size, dimension, argument)
    return query


def borrow_query(vector: object, dimension: int | None) -> Vector:
    """As check_query, but not a copy if it need not be one: for a search that ends at once."""
    if type(vector) is np.ndarray and vector.dtype is _FLOAT32 and vector.shape == (dimension,):
        with np.errstate(over="ignore", invalid="ignore"):
            if vector.dot(vector) <= _SQUARE_SAFE:  # so every number is finite
                return vector
    return check_query(vector, dimension)


def check_query_rows(
    rows: object, dimension: int, space: str, argument: str = "vector"
) -> npt.NDArray[np.float32]:
    """One query vector or several, as a (q, dimension) float32 matrix; of a named space."""
    queries = check_vectors(rows, argument)
    if queries.shape[-1] != dimension:
        raise wrong_dimension(queries.shape[-1], dimension, argument, space)
    return queries.reshape(-1, dimension)


def check_queries(
    matrix: object,
    dimension: int | None,
    argument: str = "vectors",
    *,
    space: str = DEFAULT_SPACE,
) -> npt.NDArray[np.float32]:
    """Query vectors as an (n, dimension) float32 matrix; n may be 0."""
    if isinstance(matrix, (list, tuple)) and not matrix:
        return np.empty((0, dimension or 1), np.float32)
    queries = check_matrix(matrix, argument)
    if dimension is not None and len(queries) and queries.shape[1] != dimension:
        raise wrong_dimension(queries.shape[1], dimension, argument, space)
    return queries


def is_named(space: object) -> bool:
    """Whether it is not the default space; not whether there is one of that name."""
    return not isinstance(space, str) or space != DEFAULT_SPACE


def wrong_dimension(
    got: int, dimension: int, argument: str, space: str = DEFAULT_SPACE
) -> InvalidInputError:
    """The error that names both numbers."""
    owner = "this database" if space == DEFAULT_SPACE else f"the space {space!r}"
    return InvalidInputError(
        argument,
        f"has {got} numbers, but the vectors of {owner} have {dimension}",
    )


def check_where(where: object, argument: str = "where") -> AttributeFilter:
    """A filter, made from a mapping if it is one."""
    if isinstance(where, AttributeFilter):
        return where
    if isinstance(where, Mapping):
        return AttributeFilter.from_dict(where)
    raise InvalidInputError(
        argument, f"expected an AttributeFilter or a mapping, got {type(where).__name__}"
    )


def check_node(node: object, argument: str = "node") -> MemoryNode:
    """A MemoryNode."""
    if isinstance(node, MemoryNode):
        return node
    raise InvalidInputError(argument, f"expected a MemoryNode, got {type(node).__name__}")


def check_nodes(nodes: object) -> list[MemoryNode]:
    """A list of what is in it, each of which is still to be checked."""
    if isinstance(nodes, Iterable):
        return list(nodes)
    raise InvalidInputError("nodes", f"expected MemoryNodes, got {type(nodes).__name__}")


def check_flag(value: object, argument: str) -> bool:
    """True or False."""
    if isinstance(value, bool):
        return value
    raise InvalidInputError(argument, f"expected True or False, got {value!r:.80}")


def check_sync(sync: object) -> bool | None:
    """None (as the durability level says), True or False."""
    return None if sync is None else check_flag(sync, "sync")


def check_seq(seq: object, argument: str) -> int:
    """The number of a commit: an int from 0 on."""
    if isinstance(seq, int) and not isinstance(seq, bool) and seq >= 0:
        return seq
    raise InvalidInputError(argument, f"expected the number of a commit, got {seq!r:.80}")
