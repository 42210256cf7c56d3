"""Reads everything and checks every sum and every reference between files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramdb.errors import CorruptionError, IncompatibleFormatError
from engramdb.lsm import log_format, log_reader
from engramdb.lsm.core import Core, live_names
from engramdb.lsm.log_writer import log_path
from engramdb.lsm.records import CLASSES, NEVER, NO_VECTOR
from engramdb.lsm.recovery import logs_of, read_whole
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
    with core.manifest_lock:
        version = core.state.version
        held: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []
        for file in version.vectors:
            files += 1
            try:
                bytes_read += file.reader.verify()
                held.append(file.numbers.array())
            except (CorruptionError, IncompatibleFormatError) as error:
                problems.append(str(error))
        for segment in version.segments:
            files += 1
            try:
                bytes_read += segment.reader.verify()
                versions += segment.rows
                problems += _check_segment(segment)
                problems += _check_vectors(segment, held)
            except (CorruptionError, IncompatibleFormatError) as error:
                problems.append(str(error))
        for name in sorted(live_names(core.manifest)):
            if not core.environment.exists(f"{core.directory}/{name}"):
                problems.append(f"{core.directory}/{name} is missing")
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
