"""Where the vectors of a selection lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.records import NO_VECTOR
from engramdb.lsm.vector_run import VectorRun


class Located(NamedTuple):
    """Some of the vectors: rows of one run, ascending, and which positions they belong to."""

    run: VectorRun
    rows: Rows
    positions: Rows


def locate(numbers: U64, runs: Sequence[VectorRun]) -> list[Located]:
    """The runs' rows of these vector numbers; those without a vector are left out."""
    left = np.flatnonzero(numbers != np.uint64(NO_VECTOR))
    found = []
    for run in runs:
        if not len(left):
            break
        wanted = numbers if len(left) == len(numbers) else numbers[left]
        rows = run.rows_of(wanted)
        here = rows >= 0
        if bool(here.all()):
            positions, left = left, left[:0]
        elif bool(here.any()):
            positions, rows, left = left[here], rows[here], left[~here]
        else:
            continue
        if len(rows) > 1 and not bool((rows[1:] > rows[:-1]).all()):  # near in memory
            order = np.argsort(rows, kind="stable")
            rows, positions = rows[order], positions[order]
        found.append(Located(run, rows, positions))
    return found
