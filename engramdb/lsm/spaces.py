"""The table of vector spaces: name -> dimension, in the order of their numbers.

The default space "" is number 0 and always in the table; its dimension is 0 until its first vector.
A space is entered by the commit that first uses it, and the manifest lists those that files have
vectors of, with all that were entered before. Tables are replaced, never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engramdb.errors import InvalidInputError
from engramdb.lsm.limits import DIMENSION_MAX, SPACES_MAX
from engramdb.lsm.manifest import Space, VectorEntry
from engramdb.lsm.records import DEFAULT_SPACE, Operation

Table = Mapping[str, int]


def table_of(spaces: Sequence[Space], dimension: int | None = None) -> Table:
    """What a manifest lists; `dimension` is that of the default space if it does not say."""
    table = {DEFAULT_SPACE: 0} | {space.name: space.dimension for space in spaces}
    table[DEFAULT_SPACE] = table[DEFAULT_SPACE] or dimension or 0
    return table


def with_vector_of(table: Table, operation: Operation) -> Table:
    """The table after a write: with the space of its vector, if that is new. Raises
    InvalidInputError if the vector does not fit."""
    vector, space = operation.vector, operation.space
    if vector is None:
        return table
    dimension = check_dimension(len(vector), table.get(space), space)
    if table.get(space) == dimension:
        return table
    if len(table) >= SPACES_MAX and space not in table:
        raise InvalidInputError(
            "vectors", f"there are {SPACES_MAX} spaces already, the most there are"
        )
    return {**table, space: dimension}


def check_dimension(got: int, dimension: int | None, space: str = DEFAULT_SPACE) -> int:
    """The dimension that every vector of a space must have. Raises InvalidInputError."""
    argument = "embeddings" if space == DEFAULT_SPACE else f"vectors[{space!r}]"
    if not 1 <= got <= DIMENSION_MAX:
        raise InvalidInputError(
            argument, f"dimension {got}, but it must be from 1 to {DIMENSION_MAX}"
        )
    if dimension and got != dimension:
        owner = "this database" if space == DEFAULT_SPACE else f"space {space!r}"
        raise InvalidInputError(argument, f"dimension {got}, but {owner} has dimension {dimension}")
    return got


def listed(known: Sequence[Space], table: Table, files: Sequence[VectorEntry]) -> list[Space]:
    """The spaces as the next manifest lists them: those that `known`, the last one, has, and those
    that files have vectors of. What only commits said that may yet be lost is not among them: those
    that entered a space are older than those that entered one with a higher number."""
    found = {entry.space: entry.dimension for entry in files}
    count = max([len(known), *(number + 1 for number in found)])
    spaces = []
    for number, (name, entered) in list(enumerate(table.items()))[:count]:
        dimension = found.get(number, 0)
        if not dimension and number < len(known):
            dimension = known[number].dimension
        spaces.append(Space(name, dimension or (entered if number else 0)))
    return spaces
