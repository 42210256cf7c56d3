"""Attribute columns as sections of a segment: optional, one entry for each row of class MEMORY.

attr.created         column: microseconds since the epoch + 2**63; 0 is UNTOLD
attr.from            column, if a memory has a bound: + 2**63; 0 is none
attr.until           column, if a memory has a bound: + 2**63; 2**64 - 1 is none
attr.rest            column, if not all are 0: 1 where there are attributes without a field
attr.fields          msgpack: the path of each field, a list of str, ascending
f00.kind             column: what it is in each row, see field.py (f01 for the second field, ..)
f00.value            column, if there are values
f00.text             zstd frame, if there are texts: the entries of the dictionary, joined
f00.size             column: the bytes of each entry; 33 is 32 bytes of a longer text
f00.count            bytes, if there are lists: the elements of each, one byte a list
f00.e.kind, f00.e.value, f00.e.text, f00.e.size   the elements of all lists
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

import msgspec
import numpy as np
import zstandard

from engramdb.errors import CorruptionError
from engramdb.lsm.attribute_columns import FIELDS_MAX, AttributeColumns, Mask, Path
from engramdb.lsm.columns import Column
from engramdb.lsm.container import ContainerReader, ContainerWriter
from engramdb.lsm.dictionary import CUT, EMPTY, HEAD_BYTES, Dictionary
from engramdb.lsm.field import (
    BOOL,
    BYTES,
    KINDS,
    LIST,
    LIST_MAX,
    TEXT,
    VALUED,
    Field,
)
from engramdb.lsm.payloads import decompress

FIELDS: Final = "attr.fields"
_NAME: Final = re.compile(r"attr\..*|f\d\d\..*")
_LEVEL: Final = 1
_NUMBER_MAX: Final = 2**64 - 1


def write(writer: ContainerWriter, columns: AttributeColumns) -> None:
    """Add the sections."""
    writer.packed("attr.created", columns.created)
    if columns.valid_from is not None:
        writer.packed("attr.from", columns.valid_from)
    if columns.valid_to is not None:
        writer.packed("attr.until", columns.valid_to)
    if columns.rest is not None:
        writer.column("attr.rest", columns.rest.astype(np.uint64))
    writer.blob(FIELDS, msgspec.msgpack.encode(list(columns.fields)))
    for number, field in enumerate(columns.fields.values()):
        _write_field(writer, f"f{number:02d}", field)
        if field.elements is not None:
            writer.blob(f"f{number:02d}.count", field.counts.tobytes())
            _write_field(writer, f"f{number:02d}.e", field.elements)


def _write_field(writer: ContainerWriter, name: str, field: Field) -> None:
    writer.packed(f"{name}.kind", field.kinds)
    if not set(VALUED).isdisjoint(field.present):
        writer.packed(f"{name}.value", field.values)
    if len(field.dictionary):
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)
        writer.blob(f"{name}.text", compressor.compress(field.dictionary.data))
        writer.column(f"{name}.size", field.dictionary.sizes.astype(np.uint64))


def names_in(reader: ContainerReader) -> list[str]:
    """The names of the sections that are described here."""
    return [name for name in reader.names() if _NAME.fullmatch(name)]


class StoredColumns(AttributeColumns):
    """Those of a file, read and checked when they are first used. Raises CorruptionError."""

    def __init__(self, reader: ContainerReader, rows: int) -> None:
        self._reader, self._rows = reader, rows
        self.fields = _StoredFields(reader, rows)

    def __len__(self) -> int:
        return self._rows

    @cached_property
    def created(self) -> Column:  # type: ignore[override]
        return self._reader.column("attr.created", self._rows)

    @cached_property
    def valid_from(self) -> Column | None:  # type: ignore[override]
        return self._optional("attr.from")

    @cached_property
    def valid_to(self) -> Column | None:  # type: ignore[override]
        return self._optional("attr.until")

    @cached_property
    def rest(self) -> Mask | None:  # type: ignore[override]
        if "attr.rest" not in self._reader:
            return None
        return self._reader.bounded("attr.rest", self._rows, 0, 1).array().astype(np.bool_)

    def read_all(self) -> None:
        """Read and check everything."""
        for name in ("created", "valid_from", "valid_to", "rest"):
            getattr(self, name)
        for path in self.fields:
            _ = self.fields[path]

    def _optional(self, name: str) -> Column | None:
        return self._reader.column(name, self._rows) if name in self._reader else None


class _StoredFields(Mapping[Path, Field]):
    """The fields of a file by path."""

    def __init__(self, reader: ContainerReader, rows: int) -> None:
        self._reader, self._rows = reader, rows
        self._numbers = {path: number for number, path in enumerate(_paths(reader))}
        self._read: dict[Path, Field] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Path]:
        return iter(self._numbers)

    def __contains__(self, path: object) -> bool:
        return path in self._numbers

    def __getitem__(self, path: Path) -> Field:
        field = self._read.get(path)
        if field is None:
            name = f"f{self._numbers[path]:02d}"
            field = self._read[path] = _read_field(self._reader, name, self._rows)
        return field


def _paths(reader: ContainerReader) -> list[Path]:
    at = reader.section(FIELDS).offset
    try:
        paths = msgspec.msgpack.decode(reader.blob(FIELDS), type=list[Path])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptionError(reader.path, at, "a list of paths", error) from error
    if len(paths) > FIELDS_MAX or () in paths or len(set(paths)) < len(paths):
        raise CorruptionError(reader.path, at, f"up to {FIELDS_MAX} paths", len(paths))
    return paths


def _read_field(reader: ContainerReader, name: str, rows: int) -> Field:
    """A field with its elements."""
    field = _read_plain(reader, name, rows, KINDS - 1)
    if LIST not in field.present:
        return field
    counts = np.frombuffer(reader.blob(f"{name}.count"), np.uint8)
    if len(counts) != len(field.list_rows) or int(counts.max(initial=0)) > LIST_MAX:
        raise CorruptionError(
            reader.path,
            reader.section(f"{name}.count").entry_offset,
            f"the lengths of {len(field.list_rows)} lists, up to {LIST_MAX}",
            f"{len(counts)} lengths, up to {int(counts.max(initial=0))}",
        )
    total = int(counts.sum(dtype=np.int64))
    elements = _read_plain(reader, f"{name}.e", total, KINDS - 1)
    if LIST in elements.present:
        at = reader.section(f"{name}.e.kind").entry_offset
        raise CorruptionError(reader.path, at, "elements that are no lists", "a list")
    return Field(field.kinds, field.values, field.dictionary, counts, elements)


def _read_plain(reader: ContainerReader, name: str, rows: int, kind_max: int) -> Field:
    kinds = reader.bounded(f"{name}.kind", rows, 0, kind_max)
    field = Field(kinds, Column(0, 0, rows, b""), EMPTY, np.empty(0, np.uint8), None)
    if set(VALUED).isdisjoint(field.present):
        return field
    dictionary = _read_dictionary(reader, name, rows) if f"{name}.text" in reader else EMPTY
    values = reader.column(f"{name}.value", rows)
    for kinds_, above in (((TEXT, BYTES), len(dictionary) - 1), ((BOOL,), 1)):
        if values.extremes[1] <= above:
            continue
        rows_ = np.zeros(rows, np.bool_)
        for kind in set(kinds_).intersection(field.present):
            rows_ |= kinds.within(kind, kind)
        wrong = values.within(above + 1, _NUMBER_MAX) & rows_
        if bool(wrong.any()):
            at = reader.section(f"{name}.value").entry_offset
            row = int(np.flatnonzero(wrong)[0])
            raise CorruptionError(reader.path, at, f"values up to {above}", values[row])
    return Field(kinds, values, dictionary, np.empty(0, np.uint8), None)


def _read_dictionary(reader: ContainerReader, name: str, rows: int) -> Dictionary:
    count = reader.section(f"{name}.size").count
    if count > rows:  # each is used
        at = reader.section(f"{name}.size").entry_offset
        raise CorruptionError(reader.path, at, f"at most {rows} texts", count)
    sizes = reader.bounded(f"{name}.size", count, 0, CUT).array().astype(np.uint8)
    total = int(np.minimum(sizes, HEAD_BYTES).sum(dtype=np.int64))
    try:
        return Dictionary(decompress(reader.blob(f"{name}.text"), total), sizes)
    except (zstandard.ZstdError, ValueError) as error:
        at = reader.section(f"{name}.text").offset
        raise CorruptionError(reader.path, at, "a dictionary of texts", error) from error
