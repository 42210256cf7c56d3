"""Opens what is on disk: the latest manifest, its files, and the logs that are not in them yet."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engramdb.errors import CorruptionError
from engramdb.lsm import log_format, log_reader
from engramdb.lsm.block_cache import BlockCache
from engramdb.lsm.container import MARKS, ContainerReader
from engramdb.lsm.core import file_path, number_of
from engramdb.lsm.environment import Environment
from engramdb.lsm.log_writer import Visible, log_path, read_visible
from engramdb.lsm.manifest import FileEntry, Manifest
from engramdb.lsm.marks import Marks
from engramdb.lsm.memtable import Memtable
from engramdb.lsm.options import Options
from engramdb.lsm.records import CLASSES
from engramdb.lsm.segment import Segment
from engramdb.lsm.supersede import Superseder
from engramdb.lsm.vector_file import VectorFile
from engramdb.lsm.version import State, Version


@dataclass(slots=True)
class Recovered:
    """What recovery found."""

    state: State
    next_vector: int
    dimension: int | None
    predecessor: tuple[int, int]  # the last log and how many bytes of it count
    truncated_bytes: int  # of a torn tail that a power cut left


def open_files(
    environment: Environment,
    directory: str,
    manifest: Manifest,
    cache: BlockCache,
    known: Version | None = None,
) -> tuple[tuple[Segment, ...], tuple[VectorFile, ...]]:
    """Open every file of a manifest. Files that `known` has open already are shared."""

    def marks(entry: FileEntry) -> Marks:
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

    open_segments = {s.number: s for s in known.segments} if known else {}
    open_vectors = {v.number: v for v in known.vectors} if known else {}
    segments, vectors = [], []
    for entry in manifest.segments:
        segment = Segment(
            environment,
            file_path(directory, "seg", entry.number),
            entry,
            cache,
            marks(entry),
            open_segments.get(entry.number),
        )
        segments.append(segment)
    for vector_entry in manifest.vectors:
        number = vector_entry.number
        vectors.append(
            VectorFile(
                environment,
                file_path(directory, "vec", number),
                vector_entry,
                marks(vector_entry),
                open_vectors.get(number),
            )
        )
    return tuple(segments), tuple(vectors)


def logs_of(environment: Environment, directory: str, manifest: Manifest) -> list[int]:
    """The numbers of the logs that the manifest does not cover, ascending."""
    numbers = sorted(number_of(name) for name in environment.list(f"{directory}/wal"))
    return [number for number in numbers if number >= manifest.log_floor and number > 0]


def recover(
    environment: Environment,
    directory: str,
    manifest: Manifest,
    options: Options,
    segments: tuple[Segment, ...],
    vectors: tuple[VectorFile, ...],
    *,
    read_only: bool,
) -> Recovered:
    """Replay the logs. Raises CorruptionError when something is missing that was once synced.

    A read-only opening changes nothing; beside a writer it stops where VISIBLE says.
    """
    database = bytes.fromhex(manifest.database)
    visible = read_visible(environment, directory)
    # beside a writer, a reader must not run ahead of what the writer has published
    follows = read_only and environment.lock_is_held(f"{directory}/LOCK")
    numbers = logs_of(environment, directory, manifest)
    tables: list[Memtable] = []
    seq, time = manifest.last_seq, manifest.last_time
    next_vector = manifest.next_vector
    predecessor = (0, 0)
    truncated = 0
    dimension = manifest.spaces[0].dimension if manifest.spaces else options.dimension
    for position, number in enumerate(numbers):
        is_last = position == len(numbers) - 1
        if follows and (visible is None or number > visible.log):
            break
        until = None
        if follows and visible is not None and visible.log == number:
            until = visible.visible
        path = log_path(directory, number)
        data = read_whole(environment, path)
        header = None
        try:
            header = log_format.read_file_header(data[:64], path, database, number)
        except CorruptionError:
            if not is_last or not _never_used(data, database, number, visible):
                raise
        if header is None:  # the power went while it was made
            truncated += len(data)
            if not read_only:
                environment.unlink(path)
            continue
        if header.predecessor >= manifest.log_floor and header.predecessor != predecessor[0]:
            raise CorruptionError(
                path, 40, f"log {header.predecessor} before it", f"log {predecessor[0]}"
            )
        if header.predecessor == predecessor[0] and header.predecessor_bytes != predecessor[1]:
            raise CorruptionError(
                log_path(directory, predecessor[0]),
                min(predecessor[1], header.predecessor_bytes),
                f"{header.predecessor_bytes} sound bytes",
                f"{predecessor[1]}",
            )
        end = len(data) if until is None else min(until, len(data))
        records, valid = log_reader.scan(data, log_format.seed_of(database, number), 64, end)
        _check_end(data, valid, until, number, database, path, visible)
        rest = data[valid:]
        if is_last and rest.strip(b"\0"):
            truncated += len(rest.rstrip(b"\0"))
        if is_last and not read_only:
            _truncate(environment, path, valid)
        predecessor = (number, valid)
        records = [record for record in records if record.seq > manifest.last_seq]
        if not records:
            continue
        if records[0].seq != seq + 1 or any(
            later.seq != earlier.seq + 1 for earlier, later in pairwise(records)
        ):
            raise CorruptionError(
                path, records[0].offset, f"commit {seq + 1} and those after it", records[0].seq
            )
        rows = log_reader.decode(data, records, path)
        table = Memtable(number, options.memtable_bytes_max)
        dimensions = {matrix.shape[1] for matrix in rows.matrices}
        if len(dimensions) > 1 or (dimension is not None and not dimensions <= {dimension}):
            raise CorruptionError(path, records[0].offset, f"dimension {dimension}", dimensions)
        dimension = dimensions.pop() if dimensions else dimension
        previous = table.load(rows)
        _supersede(table, previous, tuple(tables), segments, vectors)
        tables.append(table)
        seq, time = records[-1].seq, records[-1].time
        next_vector = max([next_vector, *(n + 1 for n in rows.vector_numbers[-1:])])
    version = Version(Memtable(0, options.memtable_bytes_max), tuple(tables), segments, vectors)
    state = State(version, seq, time, manifest.history_floor)
    return Recovered(state, next_vector, dimension, predecessor, truncated)


def _supersede(
    table: Memtable,
    previous: np.ndarray[tuple[int], np.dtype[np.int64]],
    older: tuple[Memtable, ...],
    segments: tuple[Segment, ...],
    vectors: tuple[VectorFile, ...],
) -> None:
    version = Version(table, older, segments, vectors)
    superseder = Superseder(version)
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


def _truncate(environment: Environment, path: str, length: int) -> None:
    """Cut off what does not count, and make sure that what counts stays: a killed process may have
    left it in the page cache only, and from now on it is shown."""
    file = environment.open(path, "w")
    try:
        file.truncate(length)
        file.sync()
    finally:
        file.close()
    environment.sync_directory(path.rpartition("/")[0])


def _never_used(data: bytes, database: bytes, number: int, visible: Visible | None) -> bool:
    """Whether a log without a sound header can be one that was never written to: its header is
    synced before the first record is."""
    if visible is not None and visible.log >= number:
        return False
    seed = log_format.seed_of(database, number)
    records, _ = log_reader.scan(data, seed, 64, len(data))
    return not records and log_reader.proven_synced(data, seed, 0) is None


def _check_end(
    data: bytes,
    valid: int,
    until: int | None,
    number: int,
    database: bytes,
    path: str,
    visible: Visible | None,
) -> None:
    if until is not None:
        if valid < until:
            raise CorruptionError(path, valid, f"records up to {until}", "a damaged record")
        return
    if visible is not None and visible.log == number and valid < visible.synced:
        raise CorruptionError(
            path, valid, f"records up to {visible.synced}, once synced", "a damaged record"
        )
    proof = log_reader.proven_synced(data, log_format.seed_of(database, number), valid)
    if proof is not None:
        raise CorruptionError(
            path, valid, f"a record, once synced, as the one at {proof} says", "a damaged record"
        )
