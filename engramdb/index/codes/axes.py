"""Principal axes: the directions along which unit vectors differ most, most important first.

Of the uncentred second moment, as it is scalar products that the axes have to keep: what of x.q
they lose is what both have outside of the span (Pearson, 1901; Eckart and Young, 1936).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]

_WHOLE_DIMENSION_MAX: Final = 48  # up to here all axes are kept: products are as quick as any
_STEP: Final = 16
_BLOCK_ROWS: Final = 2048  # in float64 at a time
_COUNT_MAX: Final = 256
_VARIANCE_KEPT: Final = 0.7


def principal_axes(sample: Floats32) -> tuple[Floats32, int]:
    """All axes (d, d) of (n, d) unit vectors, as columns, and how many of them are to be kept in
    codes: enough for 70% of the variance, in steps of 16."""
    moment, mean = np.zeros((sample.shape[1], sample.shape[1])), np.zeros(sample.shape[1])
    for start in range(0, len(sample), _BLOCK_ROWS):
        wide = sample[start : start + _BLOCK_ROWS].astype(np.float64)
        moment += wide.T @ wide
        mean += wide.sum(axis=0)
    moment /= max(1, len(sample))
    mean /= max(1, len(sample))
    values, vectors = np.linalg.eigh(moment)
    axes = np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32)
    dimension = len(axes)
    if dimension <= _WHOLE_DIMENSION_MAX:
        return axes, dimension
    along = np.maximum(values[::-1] - (mean @ vectors[:, ::-1]) ** 2, 0.0)
    share = np.cumsum(along) / max(float(along.sum()), 1e-30)
    enough = int(np.searchsorted(share, _VARIANCE_KEPT)) + 1
    count = -(-enough // _STEP) * _STEP
    return axes, min(count, _COUNT_MAX, dimension)
