"""Vectors: one float32 array of 1 to 65,536 numbers, checked where it enters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.errors import InvalidInputError
from engramdb.model.limits import (
    DIMENSION_MAX,
    SPACE_NAME_BYTES_MAX,
    VECTOR_NORM_MAX,
    VECTOR_ROWS_MAX,
)

Vector = npt.NDArray[np.float32]


NO_VECTORS: Final[Mapping[str, Vector]] = {}
"""Of a memory that is in no named space."""

_NUMBER_KINDS: Final = "fiu"


def check_vector(values: object, argument: str = "embeddings") -> Vector:
    """The values as a contiguous, read-only float32 array of their own.

    Raises InvalidInputError naming `argument` for anything but one row of finite numbers whose
    norm is a float32 too.
    """
    given = _numbers(values, argument)
    if given.ndim != 1:
        raise InvalidInputError(
            argument,
            f"expected one vector, got an array of shape {given.shape}"
            + ("; use embeddings.ravel() for a single row" if given.size else ""),
        )
    _check_dimension(given.size, argument)
    with np.errstate(over="ignore", invalid="ignore"):
        vector = np.array(given, dtype=np.float32, order="C")
        square = float(np.dot(vector, vector))
    if not square <= VECTOR_NORM_MAX:
        _check_large(given.reshape(1, -1), vector.reshape(1, -1), argument)
    vector.flags.writeable = False
    return vector


def check_matrix(values: object, argument: str = "embeddings") -> Vector:
    """The rows as one C-contiguous float32 matrix, not copied if it is one already.

    Raises InvalidInputError naming `argument` and the first row that is not acceptable.
    """
    given = _numbers(values, argument)
    if given.ndim != 2:
        raise InvalidInputError(
            argument, f"expected a matrix, one vector per row, got shape {given.shape}"
        )
    _check_dimension(given.shape[1], argument)
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = np.ascontiguousarray(given, dtype=np.float32)
        squares = np.einsum("ij,ij->i", matrix, matrix)
    suspects = np.flatnonzero(~(squares <= VECTOR_NORM_MAX))
    if suspects.size:
        _check_large(given[suspects], matrix[suspects], argument, suspects)
    return matrix


def check_space(name: object, argument: str = "name") -> str:
    """The name of a vector space as a plain str of 1 to 64 bytes of UTF-8, or InvalidInputError."""
    if not isinstance(name, str):
        raise InvalidInputError(argument, f"expected str, got {type(name).__name__}")
    if not name:
        raise InvalidInputError(argument, 'the vector of the space "" is `embeddings`; give a name')
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidInputError(
            argument, f"{name!r:.80} has a lone surrogate, so it is not text"
        ) from None
    if size > SPACE_NAME_BYTES_MAX or "\0" in name:
        raise InvalidInputError(
            argument,
            f"{name!r:.80} is no name of a space: 1 to {SPACE_NAME_BYTES_MAX} bytes of UTF-8, "
            "without NUL",
        )
    return str.__str__(name)


def check_vectors(values: object, argument: str) -> Vector:
    """One vector, (d,), or several of one memory, (n, d), as a read-only float32 array.

    Raises InvalidInputError naming `argument`.
    """
    given = _numbers(values, argument)
    if given.ndim == 1:
        return check_vector(given, argument)
    if given.ndim != 2 or not 1 <= len(given) <= VECTOR_ROWS_MAX:
        raise InvalidInputError(
            argument,
            f"expected one vector, or a matrix of 1 to {VECTOR_ROWS_MAX} rows, got shape "
            f"{given.shape}",
        )
    matrix = np.array(check_matrix(given, argument), order="C")
    matrix.flags.writeable = False
    return matrix


def _numbers(values: object, argument: str) -> npt.NDArray[np.generic]:
    try:
        given = np.asarray(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(argument, f"expected numbers, got {error}") from None
    if given.dtype.kind not in _NUMBER_KINDS:
        raise InvalidInputError(
            argument,
            f"expected an array or sequence of real numbers, got {type(values).__name__} of dtype "
            f"{given.dtype}",
        )
    return given


def _check_dimension(dimension: int, argument: str) -> None:
    if not 1 <= dimension <= DIMENSION_MAX:
        raise InvalidInputError(
            argument, f"a vector has 1 to {DIMENSION_MAX} numbers, got {dimension}"
        )


def _check_large(
    given: npt.NDArray[np.generic],
    converted: Vector,
    argument: str,
    rows: npt.NDArray[np.intp] | None = None,
) -> None:
    """The sum of squares is not a safe float32: refuse, or find that the norm still is one."""
    for position, vector in enumerate(converted):
        where = argument if rows is None else f"{argument}[{int(rows[position])}]"
        finite = np.isfinite(vector)
        if not finite.all():
            column = int(np.argmin(finite))
            value = given[position, column]
            problem = "not a finite number" if not np.isfinite(value) else "too large for float32"
            raise InvalidInputError(where, f"number {column} is {value}: {problem}")
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        if norm > VECTOR_NORM_MAX:
            raise InvalidInputError(
                where, f"its norm {norm:.3g} is above {VECTOR_NORM_MAX:.3g}; scale the vector down"
            )
