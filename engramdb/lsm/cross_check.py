"""Checks the files of a version against each other: what ended each version, and whose vector is
whose. Checksums tell that a file holds what was written; this tells that what was written fits."""

from __future__ import annotations

import numpy as np

from engramdb.lsm.keys import U64, Rows, from_list, join, split
from engramdb.lsm.records import NEVER, NO_VECTOR
from engramdb.lsm.rows import RowColumns
from engramdb.lsm.version import State


def cross_check(state: State) -> list[str]:
    """The contradictions, one line each. Raises CorruptionError if a file cannot be read."""
    rows, names, source = _versions(state)
    if not len(rows):
        return []
    order = rows.order()
    rows, source = rows.take(order), source[order]
    return [
        *_check_ends(rows, names, source, state.floor),
        *_check_vectors(rows, names, source, state),
    ]


def _versions(state: State) -> tuple[RowColumns, list[str], Rows]:
    """All versions up to the visible commit, the names of their sources, and which has which."""
    parts, names = [], []
    for segment in state.version.segments:
        parts.append(segment.columns())
        names.append(segment.reader.path)
    for table in state.version.tables():
        parts.append(table.columns(table.rows_until(state.seq)))
        names.append(f"log {table.log}")
    source = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    rows = RowColumns.concatenate(parts)
    # what a commit that is not visible yet has ended goes on until then
    late = rows.superseded > np.uint64(state.seq)
    rows.superseded = np.where(late, np.uint64(NEVER), rows.superseded)
    return rows, names, source


def _check_ends(rows: RowColumns, names: list[str], source: Rows, floor: int) -> list[str]:
    problems = []
    followed = ~rows.key_starts()
    following = np.full(len(rows), NEVER, np.uint64)
    following[1:][followed[1:]] = rows.seq[:-1][followed[1:]]
    wrong = followed & (following == rows.seq)
    problems += _named(rows, names, source, wrong, "is there twice")
    # a version in between may have been dropped, below the history floor only
    unsure = following <= np.uint64(floor)
    wrong = (rows.superseded != following) & ~(unsure & (rows.superseded < following))
    return problems + _named(rows, names, source, wrong, "does not end where its successor begins")


def _check_vectors(rows: RowColumns, names: list[str], source: Rows, state: State) -> list[str]:
    number, high, low, born, dead = _vectors(state)
    used = np.flatnonzero(rows.vector != np.uint64(NO_VECTOR))
    if not len(used):
        return []
    if len(np.unique(number)) != len(number):
        return ["a vector number is in two vector files"]
    if not len(number):
        return _named(rows, names, source, rows.vector != np.uint64(NO_VECTOR), "has no vector")
    at = np.minimum(np.searchsorted(number, rows.vector[used]), len(number) - 1)
    wrong = np.zeros(len(rows), np.bool_)
    wrong[used] = number[at] != rows.vector[used]
    problems = _named(rows, names, source, wrong, "has a vector that is in no vector file")
    alien = np.zeros(len(rows), np.bool_)
    alien[used] = ~wrong[used] & ((high[at] != rows.high[used]) | (low[at] != rows.low[used]))
    problems += _named(rows, names, source, alien, "has the vector of another memory")
    by_vector = used[np.lexsort((rows.seq[used], rows.vector[used]))]
    _, first, count = np.unique(rows.vector[by_vector], return_index=True, return_counts=True)
    begins, ends = by_vector[first], by_vector[first + count - 1]
    there = ~wrong[begins]
    at = np.minimum(np.searchsorted(number, rows.vector[begins]), len(number) - 1)
    late = np.zeros(len(rows), np.bool_)
    # the version that had it first may have been dropped
    late[begins] = there & (born[at] > rows.seq[begins])
    problems += _named(rows, names, source, late, "is older than its vector")
    gone = np.zeros(len(rows), np.bool_)
    # so may those that had it last, below the history floor
    until = rows.superseded[ends]
    dropped = (until <= np.uint64(state.floor)) & (until < dead[at])
    gone[ends] = there & (dead[at] != until) & ~dropped
    return problems + _named(rows, names, source, gone, "does not end when its vector does")


def _vectors(state: State) -> tuple[U64, U64, U64, U64, U64]:
    """number, key as high and low, born and dead of every vector, by number."""
    parts: list[tuple[U64, ...]] = []
    for file in state.version.vectors:
        columns = file.columns()
        parts.append((columns.number, columns.high, columns.low, columns.born, columns.dead))
    for table in state.version.tables():
        arena = table.arena
        if arena is not None and arena.rows:
            count = arena.rows
            high, low = split(from_list(arena.keys[:count]))
            numbers = np.array(arena.numbers[:count], np.uint64)
            born = np.array(arena.born[:count], np.uint64)
            parts.append((numbers, high, low, born, arena.deaths()[:count]))
    if not parts:
        none = np.empty(0, np.uint64)
        return none, none, none, none, none
    number, high, low, born, dead = (np.concatenate(column) for column in zip(*parts, strict=True))
    dead = np.where(dead > np.uint64(state.seq), np.uint64(NEVER), dead)
    order = np.argsort(number, kind="stable")
    return number[order], high[order], low[order], born[order], dead[order]


def _named(
    rows: RowColumns,
    names: list[str],
    source: Rows,
    wrong: np.ndarray[tuple[int], np.dtype[np.bool_]],
    what: str,
) -> list[str]:
    """A line about the first of them, which says how many there are."""
    found = np.flatnonzero(wrong)
    if not len(found):
        return []
    row = found[0]
    key = join(rows.high[row : row + 1], rows.low[row : row + 1]).tobytes().hex()
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return [f"{names[source[row]]}: commit {int(rows.seq[row])} of record {key} {what}{more}"]
