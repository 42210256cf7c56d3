"""Reads everything and checks every sum, every byte between them, and every reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from engramdb.errors import CorruptionError, IncompatibleFormatError
from engramdb.lsm import log_format, log_reader
from engramdb.lsm import manifest as manifests
from engramdb.lsm.attribute_check import contradictions
from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.attribute_sections import StoredColumns
from engramdb.lsm.container import MARKS, SEGMENT, VECTORS, ContainerReader
from engramdb.lsm.core import Core, live_names
from engramdb.lsm.cross_check import cross_check
from engramdb.lsm.log_writer import log_path, read_visible
from engramdb.lsm.manifest import FileEntry
from engramdb.lsm.payloads import BLOCK_ROWS
from engramdb.lsm.records import MEMORY
from engramdb.lsm.recovery import Replay, logs_of, open_files, read_whole
from engramdb.lsm.row_batch import BATCH_ROWS
from engramdb.lsm.segment import Segment

_COMPARED_ROWS_MAX: Final = 2**16  # of a segment: about a quarter of a second
_DAMAGE = (CorruptionError, IncompatibleFormatError)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`problems` is empty when everything is sound; each line names the file and the place. `notes`
    tells of derived files that cannot be used: nothing is lost with them."""

    files: int
    bytes_read: int
    versions: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(slots=True)
class _Found:
    files: int = 0
    bytes_read: int = 0
    versions: int = 0
    problems: list[str] = field(default_factory=list)


def verify(core: Core) -> VerifyReport:
    """Check the database as it is on disk now. Under the manifest lock, so files stay."""
    # names and logs belong to a writer at work, who may have removed what we have open
    follows = core.read_only and core.environment.lock_is_held(f"{core.directory}/LOCK")
    found = _Found()
    with core.manifest_lock:
        _check_files(core, found, follows=follows)
        if not found.problems:
            try:
                with core.write_lock:  # not while a commit is half applied
                    found.problems += cross_check(core.state)
            except _DAMAGE as error:
                found.problems.append(str(error))
        if not follows:
            _check_names(core, found)
            _check_settings(core, found)
            _check_logs(core, found)
    return VerifyReport(found.files, found.bytes_read, found.versions, tuple(found.problems))


# Segments, vectors, marks


def _check_files(core: Core, found: _Found, *, follows: bool) -> None:
    version = core.state.version
    for file in version.vectors:
        _check_file(core, found, file.reader, VECTORS, file.entry, follows=follows)
    for segment in version.segments:
        _check_file(core, found, segment.reader, SEGMENT, segment.entry, follows=follows)
        found.versions += segment.rows
        try:
            found.problems += _check_segment(segment)
            found.problems += _check_attributes(core, segment)
        except _DAMAGE as error:
            found.problems.append(str(error))
    if follows:
        return
    for entry in (*core.manifest.segments, *core.manifest.vectors):
        if entry.marks:
            marks = manifests.FileEntry(
                number=entry.marks,
                origin=entry.marks_origin,
                size=entry.marks_size,
                fingerprint=entry.marks_fingerprint,
                rows=0,
            )
            _check_file(core, found, None, MARKS, marks, follows=False)


def _check_file(
    core: Core,
    found: _Found,
    reader: ContainerReader | None,
    kind: bytes,
    entry: FileEntry,
    *,
    follows: bool,
) -> None:
    """Every byte of a file: opened again, unless a writer at work may have removed it."""
    found.files += 1
    try:
        if follows and reader is not None:
            found.bytes_read += reader.verify()
            return
        path = reader.path if reader is not None else core.path("mark", entry.number)
        again = ContainerReader(
            core.environment,
            path,
            kind=kind,
            database=bytes.fromhex(entry.origin),
            number=entry.number,
            size=entry.size,
            fingerprint=bytes.fromhex(entry.fingerprint),
        )
        try:
            found.bytes_read += again.verify()
        finally:
            again.close()
    except _DAMAGE as error:
        found.problems.append(str(error))


def _check_segment(segment: Segment) -> list[str]:
    path, entry = segment.reader.path, segment.entry
    problems = []
    columns = segment.columns()
    order = columns.order()
    if not bool((order == np.arange(len(order))).all()):
        problems.append(f"{path}: rows are not in the order of their keys")
    for name, values, low, high in (
        ("seqs", columns.seq, entry.seq_min, entry.seq_max),
        ("times", columns.time, entry.time_min, entry.time_max),
    ):
        if (int(values.min()), int(values.max())) != (low, high):
            problems.append(f"{path}: {name} are not what the manifest says")
    if bool((columns.superseded <= columns.seq).any()):
        problems.append(f"{path}: a version is superseded before it is written")
    for start in range(0, segment.rows, BATCH_ROWS):
        segment.payloads(start, min(start + BATCH_ROWS, segment.rows))
    if len(columns.edges):
        problems += _check_adjacency(segment)
    return problems


def _check_attributes(core: Core, segment: Segment) -> list[str]:
    """Whether the columns of attributes, read from the disk again, are what the payloads say: of
    all rows, or of so many blocks, evenly spread, that it takes no longer than the rest."""
    columns_of = core.options.columns_of
    if columns_of is None or not segment.has_attributes:
        return []
    count = segment.ranges[MEMORY][1]
    told: AttributeColumns = StoredColumns(segment.reader, count)
    rows = np.arange(count)
    if count > _COMPARED_ROWS_MAX:
        blocks = np.linspace(0, count // BLOCK_ROWS - 1, _COMPARED_ROWS_MAX // BLOCK_ROWS)
        starts = blocks.astype(np.int64)[:, None] * BLOCK_ROWS
        rows = (starts + np.arange(BLOCK_ROWS)).ravel()
        told = told.take(rows)
    wrong = contradictions(told, columns_of(segment.payloads_at(rows)), rows)
    return [f"{segment.reader.path}: {problem}" for problem in wrong]


def _check_adjacency(segment: Segment) -> list[str]:
    """Whether the two orders of the edges are what they are said to be."""
    edges, reader = segment.edges, segment.reader
    problems = []
    for name, high, low in (
        ("by.source", edges.source_high, edges.source_low),
        ("by.target", edges.target_high, edges.target_low),
    ):
        order = reader.column(name, len(edges)).array()
        if not bool((order == np.lexsort((low, high)).astype(np.uint64)).all()):
            problems.append(f"{reader.path}: {name} does not sort the edges")
    return problems


# Names, manifests, logs


def _check_names(core: Core, found: _Found) -> None:
    for name in sorted(live_names(core.manifest)):
        if not core.environment.exists(f"{core.directory}/{name}"):
            found.problems.append(f"{core.directory}/{name} is missing")


def _check_settings(core: Core, found: _Found) -> None:
    """All manifests that are kept, and VISIBLE if this process has written it."""
    environment, directory = core.environment, core.directory
    numbers = manifests.numbers_in(environment.list(directory))
    for number in numbers:
        path = f"{directory}/{manifests.name_of(number)}"
        found.files += 1
        try:
            data = read_whole(environment, path)
            found.bytes_read += len(data)
            manifest = manifests.decode(data, path)
        except _DAMAGE as error:
            found.problems.append(str(error))
            continue
        if manifest.number != number or manifest.database != core.manifest.database:
            found.problems.append(f"{path} is manifest {manifest.number} of {manifest.database}")
        elif number == numbers[-1] and manifest != core.manifest:
            found.problems.append(f"{path} is not the manifest that is in use")
    if core.manifest.number not in numbers:
        path = f"{directory}/{manifests.name_of(core.manifest.number)}"
        found.problems.append(f"{path} is missing")
    with core.write_lock:
        if core.shows and read_visible(environment, directory) is None:
            found.problems.append(f"{directory}/VISIBLE is damaged; it is written again")
            core.show()


def _check_logs(core: Core, found: _Found) -> None:
    environment, directory = core.environment, core.directory
    with core.write_lock:  # not while a record is half written
        last = {table.log: table.seq[-1] for table in core.state.version.tables() if len(table)}
        numbers = logs_of(environment, directory, core.manifest)
        logs = {number: read_whole(environment, log_path(directory, number)) for number in numbers}
    found.files += len(logs)
    found.bytes_read += sum(map(len, logs.values()))
    if not core.read_only:
        for number in sorted(logs.keys() | last.keys()):
            path = log_path(directory, number)
            if number not in logs:
                found.problems.append(f"{path} is missing")
            else:
                found.problems += _check_log(core, logs[number], path, number, last.get(number, 0))
        return
    try:  # their writer has died: recovery tells a torn end from damage
        # files of its own: replaying marks what is superseded
        files = open_files(environment, directory, core.manifest, core.cache)
        Replay(environment, directory, core.manifest, core.options, *files, read_only=True).run()
    except _DAMAGE as error:
        found.problems.append(str(error))


def _check_log(core: Core, data: bytes, path: str, number: int, last_seq: int) -> list[str]:
    try:
        log_format.read_file_header(data[:64], path, core.database, number)
    except _DAMAGE as error:
        return [str(error)]
    seed = log_format.seed_of(core.database, number)
    records, end = log_reader.scan(data, seed, 64, len(data))
    proof = log_reader.proven_synced(data, seed, end)
    if proof is not None or data[end:].strip(b"\0"):
        return [f"{path} is damaged at offset {end}"]
    if last_seq and (not len(records) or int(records.seq[-1]) != last_seq):
        return [f"{path} ends at offset {end}, before commit {last_seq}"]
    return []
