"""Codes as the store for derived data keeps them: the codes themselves, mapped, and apart from them
what was found out by calibration, which is renewed more often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from engramdb.index.codes.build import Built
from engramdb.index.codes.calibration import Calibrated
from engramdb.index.codes.clusters import ClusterCodes
from engramdb.lsm import Mapped

FORMAT: Final = b"clusters-1"
CODES: Final = "codes"
"""The value that is mapped."""


class Efforts(msgspec.Struct, frozen=True):
    """What was found out about the codes of a file; see FileCodes."""

    target: float
    asked: int
    scan_seconds: float
    calibrated: tuple[Calibrated, ...]


def to_values(built: Built, aside: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    """Everything but the codes."""
    return {
        "axes": built.axes,
        "centres": built.centres,
        "spread": built.spread,
        "starts": built.starts,
        "order": built.order,
        "aside": aside,
    }


def of_values(
    values: Mapping[str, object], rows: int, dimension: int
) -> tuple[ClusterCodes, npt.NDArray[np.int64]] | None:
    """The codes and the rows that have none; None if that cannot be of such a file."""
    codes = values.get(CODES)
    if not isinstance(codes, Mapped) or codes.array.dtype != np.float32 or codes.array.ndim != 2:
        return None
    try:
        spread = _array(values, "spread", np.float32, None)
        count, width = len(spread), codes.array.shape[1]
        axes = _array(values, "axes", np.float32, dimension, None)
        centres = _array(values, "centres", np.float32, count, axes.shape[1])
        starts = _array(values, "starts", np.int64, count + 1)
        order = _array(values, "order", np.int32, rows)
        aside = _array(values, "aside", np.int64, None)
    except ValueError:
        return None
    if not (
        len(codes.array) == rows
        and 0 < width <= axes.shape[1]
        and starts[0] == 0
        and starts[-1] == rows
        and bool((starts[1:] >= starts[:-1]).all())
        and order.min() == 0
        and bool((np.bincount(order, minlength=rows) == 1).all())
        and (not len(aside) or 0 <= aside.min() <= aside.max() < rows)
    ):
        return None
    return ClusterCodes(axes, centres, spread, starts, order, codes), aside


def _array(
    values: Mapping[str, object], name: str, dtype: type[np.generic], *shape: int | None
) -> npt.NDArray[Any]:
    """One of the values. Raises ValueError if it is not such an array; None: of any length."""
    value = values.get(name)
    if (
        not isinstance(value, np.ndarray)
        or value.dtype != dtype
        or value.ndim != len(shape)
        or any(want not in (None, is_) for want, is_ in zip(shape, value.shape, strict=True))
    ):
        raise ValueError(name)
    return value
