"""Reads a vector file as far as it is intact: a damaged chunk of the matrix costs its vectors."""

from __future__ import annotations

from functools import cached_property, partial

import numpy as np
import xxhash

from engramdb.errors import CorruptionError
from engramdb.lsm.container import CHUNK_BYTES, VECTORS
from engramdb.lsm.environment import Environment
from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.manifest import VectorEntry
from engramdb.lsm.repair.healing import HealingReader, heal
from engramdb.lsm.repair.report import Findings
from engramdb.lsm.retention import Mask
from engramdb.lsm.vector_file import Matrix

_sum = xxhash.xxh3_64_intdigest
_UNNEEDED = ("key.high", "key.low", "born", "dead", "norm")  # can be made anew from the versions


class SalvagedVectors:
    """Vector numbers, which of them are sound, and the matrix. Raises CorruptionError or
    IncompatibleFormatError if nothing can be read."""

    def __init__(
        self,
        environment: Environment,
        path: str,
        number: int,
        database: bytes,
        entry: VectorEntry | None,
        findings: Findings,
    ) -> None:
        self.path = path
        self._reader = HealingReader(
            environment,
            path,
            findings,
            kind=VECTORS,
            database=database,
            number=number,
            size=entry.size if entry is not None else None,
            fingerprint=bytes.fromhex(entry.fingerprint) if entry is not None else None,
        )
        self.numbers: U64 = self._reader.column("number").array()
        length = self._reader.section("matrix").length
        if not len(self.numbers) or length % (4 * len(self.numbers)):
            raise CorruptionError(path, 0, f"{len(self.numbers)} rows of floats", f"{length} bytes")
        self.dimension = length // (4 * len(self.numbers))
        for name in _UNNEEDED:
            try:
                self._reader.column(name)
            except CorruptionError as error:
                findings.damage(path, error)
        self._healed: dict[int, bytes] = {}  # by where in the matrix
        self.lost_vectors = self._look_for_losses(findings)

    def _look_for_losses(self, findings: Findings) -> Mask:
        lost = np.zeros(len(self.numbers), np.bool_)
        section = self._reader.section("matrix")
        sums = [_sum(self._read(at)) for at in range(0, section.length, CHUNK_BYTES)]
        try:
            expected = self._reader.chunk_sums("matrix")
        except CorruptionError as error:
            findings.damage(self.path, error)
            if _sum(np.array(sums, "<u8").tobytes()) == section.digest:
                return lost  # the sums were damaged, not what they are of
            return ~lost
        row_bytes = 4 * self.dimension
        for chunk, (got, wanted) in enumerate(zip(sums, expected, strict=True)):
            if got == wanted:
                continue
            at = chunk * CHUNK_BYTES
            findings.damage(
                self.path,
                CorruptionError(self.path, section.offset + at, f"sum {wanted:#x}", f"{got:#x}"),
            )
            healed = None
            if findings.may_heal():
                healed = heal(self._read(at), partial(_has_sum, wanted))
            if healed is not None:
                self._healed[at] = healed
            else:
                lost[at // row_bytes : -(-(at + CHUNK_BYTES) // row_bytes)] = True
        return lost

    def _read(self, at: int) -> bytes:
        """A chunk, read and not mapped: where the disk cannot read, a map would kill us."""
        section = self._reader.section("matrix")
        try:
            return self._reader.part_of("matrix", at, min(CHUNK_BYTES, section.length - at))
        except CorruptionError:
            return b""  # has not the sum of any chunk

    @cached_property
    def _matrix(self) -> Matrix:
        data = self._reader.chunked("matrix")
        if self._healed:
            whole = bytearray(data)
            for at, healed in self._healed.items():
                whole[at : at + len(healed)] = healed
            data = memoryview(whole)
        return np.frombuffer(data, "<f4").reshape(-1, self.dimension)

    def take(self, rows: Rows) -> Matrix:
        """These vectors."""
        taken: Matrix = self._matrix[rows]
        return taken


def _has_sum(wanted: int, data: bytes) -> bool:
    return _sum(data) == wanted
