"""Reads everything and checks every sum and every reference between files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramdb.errors import CorruptionError, IncompatibleFormatError
from engramdb.lsm import log_format, log_reader
from engramdb.lsm import manifest as manifests
from engramdb.lsm.container import SEGMENT, VECTORS, ContainerReader
from engramdb.lsm.core import Core, live_names
from engramdb.lsm.log_writer import log_path, read_visible
from engramdb.lsm.manifest import FileEntry
from engramdb.lsm.records import CLASSES, NEVER, NO_VECTOR
from engramdb.lsm.recovery import logs_of, read_marks, read_whole
from engramdb.lsm.rewrite import referenced
from engramdb.lsm.segment import Segment
from engramdb.lsm.snapshot import BATCH_ROWS


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`problems` is empty when everything is sound; each line names the file and the place."""

    files: int
    bytes_read: int
    versions: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(core: Core) -> VerifyReport:
    """Check the database as it is on disk now. Under the manifest lock, so files stay."""
    problems: list[str] = []
    files = bytes_read = versions = 0
    # names and logs belong to a writer at work, who may have removed what we have open
    follows = core.read_only and core.environment.lock_is_held(f"{core.directory}/LOCK")
    with core.manifest_lock:
        version = core.state.version
        held: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []
        for file in version.vectors:
            files += 1
            try:
                bytes_read += (
                    file.reader.verify()
                    if follows
                    else _reread(core, file.reader.path, VECTORS, file.entry)
                )
                held.append(file.numbers.array())
            except (CorruptionError, IncompatibleFormatError) as error:
                problems.append(str(error))
        for segment in version.segments:
            files += 1
            try:
                bytes_read += (
                    segment.reader.verify()
                    if follows
                    else _reread(core, segment.reader.path, SEGMENT, segment.entry)
                )
                versions += segment.rows
                problems += _check_segment(segment)
                problems += _check_vectors(segment, held)
            except (CorruptionError, IncompatibleFormatError) as error:
                problems.append(str(error))
        if follows:
            return VerifyReport(files, bytes_read, versions, tuple(problems))
        for name in sorted(live_names(core.manifest)):
            if not core.environment.exists(f"{core.directory}/{name}"):
                problems.append(f"{core.directory}/{name} is missing")
        for entry in (*core.manifest.segments, *core.manifest.vectors):
            if entry.marks:
                files += 1
                bytes_read += entry.marks_size
                problems += _check_marks(core, entry)
        problems += _check_settings(core)
        for number in logs_of(core.environment, core.directory, core.manifest):
            files += 1
            path = log_path(core.directory, number)
            with core.write_lock:  # not while a record is half written
                data = read_whole(core.environment, path)
            bytes_read += len(data)
            try:
                log_format.read_file_header(data[:64], path, core.database, number)
            except (CorruptionError, IncompatibleFormatError) as error:
                problems.append(str(error))
                continue
            seed = log_format.seed_of(core.database, number)
            _, end = log_reader.scan(data, seed, 64, len(data))
            proof = log_reader.proven_synced(data, seed, end)
            if proof is not None or data[end:].strip(b"\0"):
                problems.append(f"{path} is damaged at offset {end}")
    return VerifyReport(files, bytes_read, versions, tuple(problems))


def _reread(core: Core, path: str, kind: bytes, entry: FileEntry) -> int:
    """Open a file again and check every byte of it that means something; returns how many."""
    reader = ContainerReader(
        core.environment,
        path,
        kind=kind,
        database=bytes.fromhex(entry.origin),
        number=entry.number,
        size=entry.size,
        fingerprint=bytes.fromhex(entry.fingerprint),
    )
    try:
        return reader.verify()
    finally:
        reader.close()


def _check_marks(core: Core, entry: FileEntry) -> list[str]:
    try:
        read_marks(core.environment, core.directory, entry)
    except (CorruptionError, IncompatibleFormatError) as error:
        return [str(error)]
    return []


def _check_settings(core: Core) -> list[str]:
    """The manifest, and VISIBLE if this process has written it."""
    problems = []
    try:
        latest = manifests.load_latest(core.environment, core.directory)
        if latest != core.manifest:
            problems.append(f"{core.directory}: the manifest on disk is not the one in use")
    except (CorruptionError, IncompatibleFormatError) as error:
        problems.append(str(error))
    with core.write_lock:
        if core.shows and read_visible(core.environment, core.directory) is None:
            problems.append(f"{core.directory}/VISIBLE is damaged; it is written again")
            core.show()
    return problems


def _check_segment(segment: Segment) -> list[str]:
    path = segment.reader.path
    problems = []
    columns = segment.columns()
    order = columns.order()
    if not bool((order == np.arange(len(order))).all()):
        problems.append(f"{path}: rows are not in the order of their keys")
    entry = segment.entry
    if int(columns.seq.min()) != entry.seq_min or int(columns.seq.max()) != entry.seq_max:
        problems.append(f"{path}: seqs lie outside what the manifest says")
    starts = columns.key_starts()
    inner = np.flatnonzero(~starts)
    wrong = columns.superseded[inner] > columns.seq[inner - 1]
    if bool(wrong.any()):
        problems.append(f"{path}: row {int(inner[wrong][0])} outlives its successor")
    if bool((columns.superseded <= columns.seq).any()):
        problems.append(f"{path}: a version is superseded before it is written")
    for start in range(0, segment.rows, BATCH_ROWS):
        segment.payloads(start, min(start + BATCH_ROWS, segment.rows))
    if max(columns.record_class, default=0) not in CLASSES:
        problems.append(f"{path}: an unknown class")
    if not bool((columns.superseded <= np.uint64(NEVER)).all()):
        problems.append(f"{path}: an impossible seq")
    return problems


def _check_vectors(
    segment: Segment, held: list[np.ndarray[tuple[int], np.dtype[np.uint64]]]
) -> list[str]:
    wanted = np.unique(segment.vector.array())
    wanted = wanted[wanted != np.uint64(NO_VECTOR)]
    found = np.zeros(len(wanted), np.bool_)
    for numbers in held:
        found |= referenced(wanted, [numbers])
    missing = wanted[~found]
    if not len(missing):
        return []
    return [f"{segment.reader.path}: vector {int(missing[0])} is in no vector file"]
