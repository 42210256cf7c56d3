"""Whole arrays to one batch: what save_columns() does before the engine gets to see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from engramdb.errors import InvalidInputError
from engramdb.lsm import ColumnBatch
from engramdb.lsm.keys import from_list, to_list
from engramdb.model.attributes import encode_memory
from engramdb.model.identifiers import new_keys, parse_id
from engramdb.model.moments import now_us
from engramdb.model.shredding import shred_attributes
from engramdb.model.vectors import check_matrix
from engramdb.query.arguments import wrong_dimension

Attributes = Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any] | npt.NDArray[Any]]
"""One mapping per row, or one column per name: a list, or a one-dimensional array."""

_COLUMN_KINDS = "biufUSO"  # a datetime64 has no timezone, or would become a bare number


def column_batch(
    ids: Iterable[str] | None,
    embeddings: object,
    attributes: Attributes | None,
    reason: str | None,
    dimension: int | None,
) -> tuple[ColumnBatch, list[bytes]]:
    """The batch, and its keys as a list. Raises InvalidInputError naming argument and row."""
    counts: dict[str, int] = {}
    keys = None
    if ids is not None:
        keys = _parse_ids(ids)
        counts["ids"] = len(keys)
    matrix = None
    if embeddings is not None:
        matrix = _check_embeddings(embeddings, dimension)
        counts["embeddings"] = len(matrix)
    rows = None
    if attributes is not None:
        rows = _rows(attributes, next(iter(counts.values()), None))
        counts["attributes"] = len(rows)
    if not counts:
        raise InvalidInputError("embeddings", "give ids, embeddings or attributes; got none")
    count = next(iter(counts.values()))
    if set(counts.values()) != {count}:
        lengths = ", ".join(f"{length} {name}" for name, length in counts.items())
        raise InvalidInputError(list(counts)[-1], f"expected as many of each, got {lengths}")
    creation_us = now_us()
    payloads = _payloads(rows, count, reason, creation_us)
    told = None if rows is None else partial(shred_attributes, creation_us, rows)
    if keys is None:
        made = new_keys(count)
        return ColumnBatch(made, payloads, matrix, told), to_list(made)
    return ColumnBatch(from_list(keys), payloads, matrix, told), keys


def _parse_ids(ids: object) -> list[bytes]:
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InvalidInputError("ids", f"expected a sequence of ids, got {type(ids).__name__}")
    keys: list[bytes] = []
    try:
        for text in ids:
            keys.append(parse_id(text, "ids"))
    except InvalidInputError:
        parse_id(text, f"ids[{len(keys)}]")
        raise
    if len(set(keys)) != len(keys):
        seen: set[bytes] = set()
        for position, key in enumerate(keys):
            if key in seen:
                raise InvalidInputError(f"ids[{position}]", "is there twice; each id once")
            seen.add(key)
    return keys


def _check_embeddings(embeddings: object, dimension: int | None) -> npt.NDArray[np.float32]:
    if isinstance(embeddings, (list, tuple)) and not embeddings:
        return np.empty((0, dimension or 1), np.float32)
    matrix = check_matrix(embeddings)
    if dimension is not None and matrix.shape[1] != dimension:
        raise wrong_dimension(matrix.shape[1], dimension, "embeddings")
    return matrix


def _rows(attributes: object, count: int | None) -> Sequence[Mapping[str, Any]]:
    """One mapping per row."""
    if not isinstance(attributes, Mapping):
        if isinstance(attributes, (list, tuple)):
            return attributes
        raise InvalidInputError(
            "attributes",
            "expected a list of mappings, or a mapping of columns, "
            f"got {type(attributes).__name__}",
        )
    columns = {name: _column(name, column) for name, column in attributes.items()}
    if not columns:
        return [{}] * (count or 0)
    longest = max(map(len, columns.values()))
    for name, column in columns.items():
        if len(column) != longest:
            raise InvalidInputError(
                f"attributes[{name!r:.80}]",
                f"has {len(column)} rows, another column has {longest}",
            )
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _column(name: object, column: object) -> Sequence[Any]:
    if isinstance(column, (list, tuple)):
        return column
    where = f"attributes[{name!r:.80}]"
    if not isinstance(column, np.ndarray):
        raise InvalidInputError(where, f"expected a list or an array, got {type(column).__name__}")
    if column.ndim != 1 or column.dtype.kind not in _COLUMN_KINDS:
        raise InvalidInputError(
            where,
            "expected a one-dimensional array of bool, int, float, str, bytes or objects, "
            f"got shape {column.shape} of {column.dtype}",
        )
    listed: list[Any] = column.tolist()
    return listed


def _payloads(
    rows: Sequence[Mapping[str, Any]] | None, count: int, reason: str | None, creation_us: int
) -> list[bytes]:
    if rows is None:
        return [encode_memory(creation_us, reason, {})] * count
    try:
        return [encode_memory(creation_us, reason, row) for row in rows]
    except InvalidInputError:
        encode_memory(creation_us, reason, {})  # raises if it is the reason that is wrong
        for position, row in enumerate(rows):
            try:
                encode_memory(creation_us, reason, row)
            except InvalidInputError as error:
                raise _in_row(error, position) from None
        raise


def _in_row(error: InvalidInputError, position: int) -> InvalidInputError:
    where = error.argument.replace("attributes", f"attributes[{position}]", 1)
    return InvalidInputError(where, str(error).removeprefix(f"{error.argument}: "))
