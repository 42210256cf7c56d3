"""A mapped section of a container: rows whose chunks are checked when they are first touched."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engramdb.lsm.container import CHUNK_BYTES, ContainerReader
from engramdb.lsm.keys import Rows


class Chunks:
    """The bytes of a chunked section, and which of its chunks nobody has checked yet.

    Threads may share it: two that touch a chunk at the same time both check it.
    """

    __slots__ = ("_name", "_reader", "_sums", "data", "row_bytes", "unchecked")

    def __init__(
        self, reader: ContainerReader, name: str, row_bytes: int, whole: memoryview | None = None
    ) -> None:
        """`whole`: the mapped file, if it is mapped already. Raises CorruptionError."""
        self._reader, self._name, self.row_bytes = reader, name, row_bytes
        self.data = reader.chunked(name, whole)
        """Not checked."""
        self._sums = reader.chunk_sums(name)
        self.unchecked = set(range(len(self._sums)))
        """The numbers of the chunks that are to be checked: empty when there is nothing to do."""

    def check(self, first_row: int, last_row: int) -> None:
        """Check the chunks that hold the rows [first_row, last_row). Raises CorruptionError."""
        if first_row < last_row:
            last = (last_row * self.row_bytes - 1) // CHUNK_BYTES
            self._check(range(first_row * self.row_bytes // CHUNK_BYTES, last + 1))

    def check_rows(self, rows: Rows) -> None:
        """Check the chunks that hold these rows. Raises CorruptionError."""
        if not self.unchecked or not len(rows):
            return
        first = rows * self.row_bytes // CHUNK_BYTES
        last = ((rows + 1) * self.row_bytes - 1) // CHUNK_BYTES
        # a row of more than a chunk has some in between as well
        between = range(1, self.row_bytes // CHUNK_BYTES + 1)
        touched = [first, last, *(np.minimum(first + i, last) for i in between)]
        self._check(np.unique(np.concatenate(touched)).tolist())

    def _check(self, chunks: Iterable[int]) -> None:
        unchecked = self.unchecked
        for chunk in chunks:
            if chunk in unchecked:
                self._reader.check_chunk(self._name, self.data, chunk, self._sums[chunk])
                unchecked.discard(chunk)
