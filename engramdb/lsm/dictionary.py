"""The distinct texts of a field: sorted bytes, so that the order of codes is the order of texts.

A text longer than HEAD_BYTES is here as its first bytes and is marked as cut, for long texts must
not be stored twice. Several cut texts may share an entry. Entries are in the order of (bytes, size)
where the size of a cut one is CUT: what is cut stands behind the whole text of the same bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.lsm.keys import U64, Rows

HEAD_BYTES: Final = 32
CUT: Final = HEAD_BYTES + 1

Sizes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
_Bytes = npt.NDArray[np.uint8]


class Dictionary:
    """Entries one after another in `data`; `sizes` (uint8) says how long each text is, CUT if
    longer than what is here. Immutable."""

    __slots__ = ("__dict__", "data", "sizes")

    def __init__(self, data: bytes, sizes: Sizes) -> None:
        self.data, self.sizes = data, sizes

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def lengths(self) -> Sizes:
        """How many bytes of each are here."""
        return np.minimum(self.sizes, HEAD_BYTES)

    @cached_property
    def ends(self) -> Rows:
        """Where each ends in `data`."""
        return np.cumsum(self.lengths, dtype=np.int64)

    @cached_property
    def starts(self) -> Rows:
        """Where each begins in `data`."""
        return self.ends - self.lengths

    @cached_property
    def cut(self) -> Rows:
        """The codes of the cut ones."""
        return np.flatnonzero(self.sizes == CUT)

    def entry(self, code: int) -> bytes:
        """The bytes of one, as far as they are here."""
        return self.data[int(self.starts[code]) : int(self.ends[code])]

    def entries(self, codes: Rows) -> list[bytes]:
        """The bytes of these, as far as they are here."""
        data = self.data
        starts, ends = self.starts[codes].tolist(), self.ends[codes].tolist()
        return [data[start:end] for start, end in zip(starts, ends, strict=True)]

    # Looking for texts

    def place(self, text: bytes) -> int:
        """The code of the first entry that is not below this text."""
        head, size = text[:HEAD_BYTES], min(len(text), CUT)
        return bisect_left(range(len(self)), (head, size), key=self._order)

    def _order(self, code: int) -> tuple[bytes, int]:
        return self.entry(code), int(self.sizes[code])

    def span(self, text: bytes) -> tuple[int, int]:
        """The codes [first, last) of this text: one or none. A cut one may be another text."""
        first = self.place(text)
        wanted = (text[:HEAD_BYTES], min(len(text), CUT))
        return first, first + (first < len(self) and self._order(first) == wanted)

    def prefixed(self, prefix: bytes) -> tuple[int, int]:
        """The codes [first, last) of the entries that begin so; at most HEAD_BYTES of it."""
        first = bisect_left(range(len(self)), prefix, key=self.entry)
        stem = prefix.rstrip(b"\xff")
        if not stem:
            return first, len(self)
        after = stem[:-1] + bytes([stem[-1] + 1])
        return first, bisect_left(range(len(self)), after, key=self.entry)

    def containing(self, part: bytes) -> Mask:
        """Which entries have this part within what is here of them."""
        found = np.zeros(len(self), np.bool_)
        if not part:
            found[:] = True
            return found
        data = np.frombuffer(self.data, np.uint8)
        at = np.flatnonzero(data[: max(0, len(data) - len(part) + 1)] == part[0])
        for offset in range(1, len(part)):
            at = at[data[at + offset] == part[offset]]
        codes = np.searchsorted(self.ends, at, "right")
        found[codes[at + len(part) <= self.ends[codes]]] = True
        return found

    def ending(self, suffix: bytes) -> Mask:
        """Which entries end so, as far as they are here."""
        data = np.frombuffer(self.data, np.uint8)
        found = self.lengths >= len(suffix)
        codes = np.flatnonzero(found)
        for offset in range(1, len(suffix) + 1):
            codes = codes[data[self.ends[codes] - offset] == suffix[-offset]]
        found[:] = False
        found[codes] = True
        return found

    # Making others

    @staticmethod
    def of(heads: list[bytes]) -> tuple[Dictionary, Rows]:
        """Of texts of which only the first CUT bytes matter; and the code of each."""
        sizes = np.minimum(np.array(list(map(len, heads)), np.int64), CUT).astype(np.uint8)
        data = b"".join([head[:HEAD_BYTES] for head in heads])
        return _sorted(data, sizes)

    @staticmethod
    def merge(parts: list[Dictionary]) -> tuple[Dictionary, list[Rows]]:
        """All entries of these, each once; and for each part the new code of each entry."""
        filled = [part for part in parts if len(part)]
        if all(part.data == filled[0].data for part in filled[1:]) and all(
            np.array_equal(part.sizes, filled[0].sizes) for part in filled[1:]
        ):
            whole = filled[0] if filled else EMPTY
            return whole, [np.arange(len(part)) for part in parts]
        whole, codes = _sorted(
            b"".join([part.data for part in parts]), np.concatenate([part.sizes for part in parts])
        )
        bounds = np.cumsum([len(part) for part in parts])[:-1]
        return whole, np.split(codes, bounds)

    def keep(self, wanted: Mask) -> Dictionary:
        """Only these entries."""
        data = np.frombuffer(self.data, np.uint8)
        return Dictionary(data[np.repeat(wanted, self.lengths)].tobytes(), self.sizes[wanted])


EMPTY: Final = Dictionary(b"", np.empty(0, np.uint8))


def _sorted(data: bytes, sizes: Sizes) -> tuple[Dictionary, Rows]:
    """The entries in order, each once, and the code of each that was given."""
    if not len(sizes):
        return EMPTY, np.empty(0, np.int64)
    lengths = np.minimum(sizes, HEAD_BYTES)
    width = max(1, -(-int(lengths.max()) // 8))
    padded = np.zeros((len(sizes), 8 * width), np.uint8)
    here = np.arange(8 * width, dtype=np.uint8) < lengths[:, None]
    padded[here] = np.frombuffer(data, np.uint8)
    words: U64 = padded.view(">u8").astype("<u8")
    # zeros that fill up sort before every longer text of the same bytes, as the size then says
    columns: list[U64] = [words[:, word] for word in range(width)]
    order = np.lexsort((sizes.astype(np.uint64), *reversed(columns)))
    new = np.ones(len(order), np.bool_)
    new[1:] = sizes[order[1:]] != sizes[order[:-1]]
    for column in columns:
        ranked = column[order]
        new[1:] |= ranked[1:] != ranked[:-1]
    codes = np.empty(len(order), np.int64)
    codes[order] = np.cumsum(new) - 1
    first = order[new]
    bytes_: _Bytes = padded[first]
    return Dictionary(bytes_[here[first]].tobytes(), sizes[first]), codes
