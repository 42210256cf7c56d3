"""Checks the files of a version against each other: what ended each version, and whose vector is
whose. Checksums tell that a file holds what was written; this tells that what was written fits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engramdb.lsm.keys import U64, Rows, from_list, join, split
from engramdb.lsm.records import EDGE, NEVER, NO_VECTOR, TOMBSTONE
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
    number, high, low, born, dead, space = _vectors(state)
    problems = _check_carriers(rows, names, source)
    used = np.flatnonzero(rows.vector != np.uint64(NO_VECTOR))
    if not len(used):
        return problems
    if len(np.unique(number)) != len(number):
        return ["a vector number is in two vector files"]
    if not len(number):
        return _named(rows, names, source, rows.vector != np.uint64(NO_VECTOR), "has no vector")
    at = np.minimum(np.searchsorted(number, rows.vector[used]), len(number) - 1)
    wrong = np.zeros(len(rows), np.bool_)
    wrong[used] = number[at] != rows.vector[used]
    problems += _named(rows, names, source, wrong, "has a vector that is in no vector file")
    alien = np.zeros(len(rows), np.bool_)
    owner_high, owner_low = rows.owners()
    alien[used] = ~wrong[used] & ((high[at] != owner_high[used]) | (low[at] != owner_low[used]))
    problems += _named(rows, names, source, alien, "has the vector of another memory")
    astray = np.zeros(len(rows), np.bool_)
    astray[used] = ~wrong[used] & (space[at] != rows.spaces()[used])
    problems += _named(rows, names, source, astray, "has a vector of another space")
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


def _check_carriers(rows: RowColumns, names: list[str], source: Rows) -> list[str]:
    """An edge has a vector if its type says that it carries one, and it is no tombstone."""
    edges = rows.record_class == EDGE
    if not bool(edges.any()):
        return []
    carries = np.array([name is not None for name in rows.spaces()], np.bool_) & edges
    has = rows.vector != np.uint64(NO_VECTOR)
    wrong = edges & (has != (carries & (rows.kind != TOMBSTONE)))
    return _named(rows, names, source, wrong, "has a vector too few or too many")


def _vectors(state: State) -> tuple[U64, U64, U64, U64, U64, npt.NDArray[np.object_]]:
    """number, key as high and low, born, dead and space of every vector, by number."""
    parts: list[tuple[U64, ...]] = []
    spaces: list[npt.NDArray[np.object_]] = [np.empty(0, np.object_)]
    for file in state.version.vectors:
        columns = file.columns()
        parts.append((columns.number, columns.high, columns.low, columns.born, columns.dead))
        spaces.append(np.full(len(columns), file.space, np.object_))
    for table in state.version.tables():
        for space, arena in table.arenas.items():
            count = arena.rows
            if not count:
                continue
            high, low = split(from_list(arena.keys[:count]))
            numbers = np.array(arena.numbers[:count], np.uint64)
            born = np.array(arena.born[:count], np.uint64)
            parts.append((numbers, high, low, born, arena.deaths()[:count]))
            spaces.append(np.full(count, space, np.object_))
    named = np.concatenate(spaces)
    if not parts:
        none = np.empty(0, np.uint64)
        return none, none, none, none, none, named
    number, high, low, born, dead = (np.concatenate(column) for column in zip(*parts, strict=True))
    dead = np.where(dead > np.uint64(state.seq), np.uint64(NEVER), dead)
    order = np.argsort(number, kind="stable")
    return number[order], high[order], low[order], born[order], dead[order], named[order]


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
