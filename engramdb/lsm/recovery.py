"""Opens what is on disk: the latest manifest, its files, and the logs that are not in them yet."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from engramdb.errors import CorruptionError, InvalidInputError
from engramdb.lsm import log_format, log_reader
from engramdb.lsm.attribute_columns import ColumnsOf
from engramdb.lsm.block_cache import BlockCache
from engramdb.lsm.container import MARKS, ContainerReader
from engramdb.lsm.core import file_path, number_of
from engramdb.lsm.environment import Environment, File
from engramdb.lsm.keys import Rows
from engramdb.lsm.log_format import FILE_HEADER
from engramdb.lsm.log_reader import PIECE_BYTES, LogRecords
from engramdb.lsm.log_writer import log_path, read_visible
from engramdb.lsm.manifest import FileEntry, Manifest, name_of
from engramdb.lsm.marks import Marks
from engramdb.lsm.memtable import Memtable
from engramdb.lsm.options import Options
from engramdb.lsm.records import CLASSES, DEFAULT_SPACE
from engramdb.lsm.segment import Segment
from engramdb.lsm.spaces import Table, table_of
from engramdb.lsm.supersede import Superseder
from engramdb.lsm.vector_file import VectorFile
from engramdb.lsm.version import State, Version


@dataclass(slots=True)
class Recovered:
    """What recovery found."""

    state: State
    next_vector: int
    spaces: Table
    predecessor: tuple[int, int]  # the last log and how many bytes of it count
    truncated_bytes: int  # of a torn tail that a power cut left


def open_files(
    environment: Environment,
    directory: str,
    manifest: Manifest,
    cache: BlockCache,
    known: Version | None = None,
    columns_of: ColumnsOf | None = None,
) -> tuple[tuple[Segment, ...], tuple[VectorFile, ...]]:
    """Open every file of a manifest. Files that `known` has open already are shared."""

    open_segments = {s.number: s for s in known.segments} if known else {}
    open_vectors = {v.number: v for v in known.vectors} if known else {}
    segments: list[Segment] = []
    vectors: list[VectorFile] = []
    with ExitStack() as unless_all_open:
        unless_all_open.callback(lambda: close_files((*segments, *vectors), known))
        for entry in manifest.segments:
            segment = Segment(
                environment,
                file_path(directory, "seg", entry.number),
                entry,
                cache,
                read_marks(environment, directory, entry),
                open_segments.get(entry.number),
                columns_of,
            )
            segments.append(segment)
        for vector_entry in manifest.vectors:
            number = vector_entry.number
            vectors.append(
                VectorFile(
                    environment,
                    file_path(directory, "vec", number),
                    vector_entry,
                    read_marks(environment, directory, vector_entry),
                    open_vectors.get(number),
                    space=manifest.spaces[vector_entry.space].name,
                )
            )
        unless_all_open.pop_all()
    return tuple(segments), tuple(vectors)


def close_files(files: Iterable[Segment | VectorFile], known: Version | None = None) -> None:
    """Close what was opened in vain; what `known` shares stays open. Otherwise whoever keeps the
    error keeps the files open, by the frames that it came through."""
    shared: set[ContainerReader] = set()
    if known is not None:
        shared = {file.reader for file in known.segments} | {file.reader for file in known.vectors}
    for file in files:
        if file.reader not in shared:
            file.reader.close()


def read_marks(environment: Environment, directory: str, entry: FileEntry) -> Marks:
    """The marks of a file, as the manifest covers them."""
    made = Marks()
    if entry.marks:
        reader = ContainerReader(
            environment,
            file_path(directory, "mark", entry.marks),
            kind=MARKS,
            database=bytes.fromhex(entry.marks_origin),
            number=entry.marks,
            size=entry.marks_size,
            fingerprint=bytes.fromhex(entry.marks_fingerprint),
        )
        try:
            made.read(reader, entry.marks, entry.rows)
        finally:
            reader.close()
    return made


def logs_of(environment: Environment, directory: str, manifest: Manifest) -> list[int]:
    """The numbers of the logs that the manifest does not cover, ascending."""
    names = environment.list(f"{directory}/wal")
    numbers = sorted(number_of(name) for name in names if name.endswith(".wal"))
    return [number for number in numbers if number >= manifest.log_floor and number > 0]


class Replay:
    """Replays the logs behind a manifest. A read-only one changes nothing; beside a writer it stops
    where VISIBLE says."""

    def __init__(
        self,
        environment: Environment,
        directory: str,
        manifest: Manifest,
        options: Options,
        segments: tuple[Segment, ...],
        vectors: tuple[VectorFile, ...],
        *,
        read_only: bool,
    ) -> None:
        self._environment = environment
        self._directory = directory
        self._manifest = manifest
        self._options = options
        self._segments, self._vectors = segments, vectors
        self._read_only = read_only
        self._database = bytes.fromhex(manifest.database)
        self._visible = read_visible(environment, directory)
        # beside a writer, a reader must not run ahead of what the writer has published
        self._follows = read_only and environment.lock_is_held(f"{directory}/LOCK")
        self._tables: list[Memtable] = []
        self._seq, self._time = manifest.last_seq, manifest.last_time
        self._next_vector = manifest.next_vector
        self._predecessor = (0, 0)
        self._unused: list[tuple[int, int]] = []  # logs without a record, and their lengths
        self._truncated = 0
        self._spaces: dict[str, int] = {**table_of(manifest.spaces)}

    def run(self) -> Recovered:
        """Raises CorruptionError when something is missing that was once synced."""
        numbers = logs_of(self._environment, self._directory, self._manifest)
        visible = self._visible
        if visible is not None and visible.manifest > self._manifest.number:
            raise CorruptionError(
                f"{self._directory}/{name_of(visible.manifest)}",
                0,
                "a manifest that was once synced, as VISIBLE says",
                f"none after number {self._manifest.number}",
                "see what Database.repair() brings back, or, if an older copy was put back here on "
                "purpose, remove VISIBLE",
            )
        if (
            visible is not None
            and visible.log >= self._manifest.log_floor
            and visible.log not in numbers
        ):
            # the manifest that lets a log go is durable before the log is removed
            raise CorruptionError(
                log_path(self._directory, visible.log),
                0,
                f"a log of {visible.synced} synced bytes, as VISIBLE says",
                "no file",
            )
        lengths: list[tuple[int, int]] = []
        for number in numbers:
            if self._follows and (visible is None or number > visible.log):
                break
            path = log_path(self._directory, number)
            file = self._environment.open(path, "r")
            try:
                used = self._replay(file, number, path, is_last=number == numbers[-1])
            finally:
                file.close()
            lengths.append((number, used))
        wanted = self._options.dimension
        known = self._spaces[DEFAULT_SPACE]
        if wanted is not None and known not in (0, wanted):
            raise InvalidInputError("dimension", f"{wanted}, but this database has {known}")
        self._spaces[DEFAULT_SPACE] = known or wanted or 0
        if not self._read_only:
            self._change_logs(lengths)
        version = Version(
            Memtable(0, self._options.memtable_bytes_max, self._options.columns_of),
            tuple(self._tables),
            self._segments,
            self._vectors,
        )
        return Recovered(
            State(version, self._seq, self._time, self._manifest.history_floor),
            self._next_vector,
            self._spaces,
            self._predecessor,
            self._truncated,
        )

    def _change_logs(self, lengths: list[tuple[int, int]]) -> None:
        """Remove logs that were never used, and settle the last one. Only when all is known to be
        sound: a database that is refused is left as it is, for whoever repairs it. `lengths` says
        how much of each log counts."""
        for number, used in lengths:
            path = log_path(self._directory, number)
            if not used:
                self._environment.unlink(path)
                self._environment.sync_directory(path.rpartition("/")[0])
            elif number == lengths[-1][0]:
                _settle(self._environment, path, used, self._synced(number))

    def _replay(self, file: File, number: int, path: str, *, is_last: bool) -> int:
        """Replay one log. Returns how many bytes of it count; 0 if it was never used."""
        size = file.size()
        try:
            head = file.read_at(0, FILE_HEADER.size)
            header = log_format.read_file_header(head, path, self._database, number)
        except CorruptionError:
            # the power went while it was made; if its successor is there too, that names another
            # predecessor: it was removed then, but the power went before that was durable
            if not self._never_used(file, number, size):
                raise
            self._truncated += size if is_last else 0
            return 0
        self._check_predecessor(header, path)
        visible, stop = self._visible, size
        limit = None
        if self._follows and visible is not None and visible.log == number:
            limit = visible.visible
            stop = min(limit, size)
        seed = log_format.seed_of(self._database, number)
        pieces = log_reader.LogPieces(file, seed, FILE_HEADER.size, stop)
        table = Memtable(number, self._options.memtable_bytes_max, self._options.columns_of)
        previous = [self._load(table, *piece, path, size) for piece in pieces]
        if limit is not None and pieces.end < limit:
            raise CorruptionError(path, pieces.end, f"records up to {limit}", "a damaged record")
        if limit is None:
            self._check_end(file, pieces.end, size, number, path, is_last=is_last)
        if pieces.end == FILE_HEADER.size and self._synced(number) == 0:
            self._unused.append((number, pieces.end))  # not even its name need be durable
            return pieces.end
        self._predecessor = (number, pieces.end)
        if len(table):
            self._supersede(table, np.concatenate(previous))
            self._tables.append(table)
        return pieces.end

    def _load(
        self, table: Memtable, data: bytes, base: int, records: LogRecords, path: str, size: int
    ) -> Rows:
        """Append a piece of a log to its table. Returns the row before each of its rows."""
        records = records.after(self._manifest.last_seq)
        if not len(records):
            return np.empty(0, np.int64)
        if int(records.seq[0]) != self._seq + 1 or bool((np.diff(records.seq) != 1).any()):
            raise CorruptionError(
                path,
                base + records[0].offset,
                f"commit {self._seq + 1} and those after it",
                f"commit {records[0].seq}",
            )
        rows = log_reader.decode(data, records, path, base)
        for space, matrix in zip(rows.spaces, rows.matrices, strict=True):
            dimension = matrix.shape[1]
            known = self._spaces.get(space) or dimension
            if dimension != known:
                raise CorruptionError(
                    path, base + records[0].offset, f"vectors of dimension {known}", dimension
                )
            self._spaces[space] = dimension
            if space not in table.arenas:
                room = size // (4 * dimension * (1 + len(table.arenas)))
                table.arena_for(dimension, space).reserve(room)
        if rows.vector_numbers:
            self._next_vector = max(self._next_vector, rows.vector_numbers[-1] + 1)
        self._seq, self._time = rows.seq[-1], rows.time[-1]
        return table.load(rows)

    def _check_predecessor(self, header: log_format.FileHeader, path: str) -> None:
        named = (header.predecessor, header.predecessor_bytes)
        if named in self._unused:
            self._predecessor = named
        number, length = self._predecessor
        if header.predecessor >= self._manifest.log_floor and header.predecessor != number:
            raise CorruptionError(
                path, 40, f"log {header.predecessor} before it", f"log {number}, if any"
            )
        if header.predecessor == number and header.predecessor_bytes != length:
            raise CorruptionError(
                log_path(self._directory, number),
                min(length, header.predecessor_bytes),
                f"{header.predecessor_bytes} sound bytes",
                length,
            )

    def _synced(self, number: int) -> int:
        """How much of a log was certainly synced without an error."""
        visible = self._visible
        return visible.synced if visible is not None and visible.log == number else 0

    def _never_used(self, file: File, number: int, size: int) -> bool:
        """Whether a log without a sound header can be one that was never written to: its header is
        synced before the first record is."""
        if self._visible is not None and self._visible.log == number:
            return False
        seed = log_format.seed_of(self._database, number)
        data = file.read_at(0, size)
        records, _ = log_reader.scan(data, seed, FILE_HEADER.size, len(data))
        return not len(records) and log_reader.proven_synced(data, seed, 0) is None

    def _check_end(
        self, file: File, end: int, size: int, number: int, path: str, *, is_last: bool
    ) -> None:
        """Tell a torn tail from corruption."""
        visible = self._visible
        if visible is not None and visible.log == number and end < visible.synced:
            raise CorruptionError(
                path, end, f"records up to {visible.synced}, once synced", "a damaged record"
            )
        rest = file.read_at(end, size - end)
        torn = len(rest.rstrip(b"\0"))
        if not torn:
            return
        seed = log_format.seed_of(self._database, number)
        proof = log_reader.proven_synced(rest, seed, end, end)
        if proof is not None:
            raise CorruptionError(
                path, end, f"a record, once synced, as the one at {proof} says", "a damaged record"
            )
        if is_last:
            self._truncated += torn

    def _supersede(self, table: Memtable, previous: Rows) -> None:
        """Tell older rows, and vectors, what this log has superseded."""
        older = tuple(self._tables)
        superseder = Superseder(Version(table, older, self._segments, self._vectors))
        columns = table.columns(len(table))
        first = previous < 0
        for record_class in CLASSES:
            rows = np.flatnonzero(first & (columns.record_class == record_class))
            if len(rows):
                superseder.supersede(
                    tuple(reversed(older)),
                    record_class,
                    columns.high[rows],
                    columns.low[rows],
                    [table.keys[row] for row in rows.tolist()],
                    columns.seq[rows],
                    columns.vector[rows],
                )
        later = np.flatnonzero(~first)
        superseder.kill(columns.vector[previous[later]], columns.vector[later], columns.seq[later])
        superseder.apply()


def read_whole(environment: Environment, path: str) -> bytes:
    """The bytes of a file."""
    file = environment.open(path, "r")
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


def _settle(environment: Environment, path: str, length: int, synced: int) -> None:
    """Cut off what does not count, and make sure that what counts stays, for it is shown from now
    on: a killed process may have left it in the page cache only. After a failed sync a second one
    may report success for pages that are gone (see docs/): so what is not known to be synced is
    written again."""
    file = environment.open(path, "w")
    try:
        file.truncate(length)
        for offset in range(min(synced, length), length, PIECE_BYTES):
            file.write_at(offset, file.read_at(offset, min(PIECE_BYTES, length - offset)))
        file.sync()
    finally:
        file.close()
    environment.sync_directory(path.rpartition("/")[0])
