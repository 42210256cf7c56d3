"""Makes, loads and calibrates the codes of one vector file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from engramdb.index.codes.build import build
from engramdb.index.codes.calibration import (
    TURBOVEC,
    Trial,
    likely_queries,
    sample_size,
    trial_of,
)
from engramdb.index.codes.cluster_calibration import calibrate_clusters
from engramdb.index.codes.clusters import NO_BOUND, ClusterCodes
from engramdb.index.codes.file_codes import FileCodes
from engramdb.index.codes.recall import Recall
from engramdb.index.codes.turbo import TurboCodes
from engramdb.index.codes.turbo_calibration import calibrate_turbo, rely_on
from engramdb.indexing.stored import CODES, FORMAT, Efforts, of_values, to_values
from engramdb.lsm import StorageEngine, Streamed, VectorFile
from engramdb.lsm.keys import Rows

Floats32 = npt.NDArray[np.float32]
Pause = Callable[[], None]

ASKED_MIN: Final = 64
"""Fewer queries say nothing."""
_ASIDE_MAX: Final = 0.02
_SCANS: Final = 3
_SEED: Final = 11
_BLOCK_ROWS: Final = 4096
_TURBO_SAMPLE: Final = 2048


class Keeper:
    """Of one vector file. Not thread-safe."""

    def __init__(
        self, engine: StorageEngine, file: VectorFile, pause: Pause, erasures: int
    ) -> None:
        """`erasures`: what Derived said before the file, and what was asked, were looked up."""
        self._engine, self._file, self._pause = engine, file, pause
        self._erasures = erasures
        self._name = f"codes-{file.number}"
        self._stamp = FORMAT + bytes.fromhex(file.entry.fingerprint)

    def load(self) -> FileCodes | None:
        """What is stored, if it is sound and calibrated. Quick: the codes are not read."""
        derived = self._engine.derived
        values = derived.load(self._name, stamp=self._stamp)
        if values is None:
            return None
        found = of_values(values, self._file.rows, self._file.dimension)
        if found is None:
            derived.refuse()
            return None
        efforts = self._load_efforts(found[0])
        return None if efforts is None else self._file_codes(*found, None, efforts)

    def make(self, queries: Floats32, target: float) -> FileCodes | None:
        """Build, store and calibrate clusters; None if the file is better scanned, or if nothing
        could be stored."""
        derived, file = self._engine.derived, self._file
        aside = np.union1d(np.flatnonzero(file.inverse_norms == 0), file.extreme_rows)
        if len(aside) > _ASIDE_MAX * file.rows:
            return None
        built = build(file.rows, self._take, self._pause, queries)
        matrix = Streamed((file.rows, built.width), built.parts(self._pause))
        is_stored = derived.store(
            self._name,
            to_values(built, aside),
            streamed={CODES: matrix},
            erasures=self._erasures,
            stamp=self._stamp,
        )
        values = derived.load(self._name, stamp=self._stamp) if is_stored else None
        found = None if values is None else of_values(values, file.rows, file.dimension)
        if found is None:
            return None
        codes, aside = found
        trial = self._trial(queries, target)
        calibrated = tuple(calibrate_clusters(trial, codes, target))
        efforts = Efforts(target, len(queries), self._scan_seconds(), calibrated)
        return self._kept(codes, aside, None, efforts)

    def with_turbo(self, known: FileCodes, queries: Floats32) -> FileCodes:
        """The same with turbovec's codes too: stored ones, or new ones, which a reader does not
        make."""
        derived = self._engine.derived
        turbo = self._load_turbo()
        mine = tuple(each for each in known.calibrated if each.kind == TURBOVEC)
        if self._engine.read_only and (turbo is None or not mine):
            return known
        if turbo is None:
            rows = np.random.default_rng(_SEED).integers(0, self._file.rows, _TURBO_SAMPLE)
            turbo = TurboCodes.build(self._blocks(), self._take(rows), pause=self._pause)
            derived.store(
                f"{self._name}-turbo", turbo.values(), erasures=self._erasures, stamp=self._stamp
            )
            mine = ()
        turbo.prepare()
        if mine:
            rely_on(turbo, list(mine), known.target)
            return replace(known, turbo=turbo)
        mine = tuple(calibrate_turbo(self._trial(queries, known.target), turbo, known.target))
        others = tuple(each for each in known.calibrated if each.kind != TURBOVEC)
        efforts = Efforts(known.target, known.asked, known.scan_seconds, (*others, *mine))
        return self._kept(known.codes, known.aside, turbo, efforts)

    def recalibrate(self, known: FileCodes, queries: Floats32, target: float) -> FileCodes:
        """The same codes with other efforts."""
        trial = self._trial(queries, target)
        calibrated = calibrate_clusters(trial, known.codes, target)
        if known.turbo is not None:
            calibrated += calibrate_turbo(trial, known.turbo, target)
        efforts = Efforts(target, len(queries), known.scan_seconds, tuple(calibrated))
        return self._kept(known.codes, known.aside, known.turbo, efforts)

    def recall(self, known: FileCodes, queries: Floats32, limit: int) -> Recall | None:
        """The recall of these queries today; None if they are answered by scans."""
        plan = known.plan(limit)
        if plan is None:
            return None
        rows = self._file.rows
        trial = trial_of(rows, self._take, [queries], self._pause, perf_counter)

        def search(query: Floats32, bound: float) -> Rows:
            found = known.candidates(query, limit, known=bound, floor=NO_BOUND, visible=None)
            return np.arange(rows) if found is None else found

        return trial.run(search, plan.limit, known.target)[0]

    def _trial(self, queries: Floats32, target: float) -> Trial:
        generator, size = np.random.default_rng(_SEED), sample_size(target)
        is_asked = len(queries) >= ASKED_MIN
        near, far = likely_queries(self._file.rows, self._take, size, generator)
        samples = [near, queries[-size:] if is_asked else far]
        return trial_of(self._file.rows, self._take, samples, self._pause, perf_counter)

    def _kept(
        self,
        codes: ClusterCodes,
        aside: Rows,
        turbo: TurboCodes | None,
        efforts: Efforts,
    ) -> FileCodes:
        self._engine.derived.store(
            f"{self._name}-effort",
            {"effort": msgspec.msgpack.encode(efforts)},
            erasures=self._erasures,
            stamp=self._stamp_of(codes),
        )
        return self._file_codes(codes, aside, turbo, efforts)

    def _file_codes(
        self, codes: ClusterCodes, aside: Rows, turbo: TurboCodes | None, efforts: Efforts
    ) -> FileCodes:
        norms = self._file.norms
        norms = norms[norms > 0]  # those set aside as extreme, too: they crowd others out
        return FileCodes(
            codes,
            turbo,
            self._file.dimension,
            aside,
            efforts.calibrated,
            efforts.target,
            efforts.asked,
            efforts.scan_seconds,
            float(norms.min()),
            float(norms.max()),
        )

    def _stamp_of(self, codes: ClusterCodes) -> bytes:
        """Of what was found out about these very codes: those that are made next, when other
        queries have been asked, may lie in the same file without having been calibrated."""
        digest = xxhash.xxh3_128(self._stamp)
        for array in (codes.axes, codes.centres, codes.order):
            digest.update(array.tobytes())
        return digest.digest()

    def _load_efforts(self, codes: ClusterCodes) -> Efforts | None:
        stamp = self._stamp_of(codes)
        values = self._engine.derived.load(f"{self._name}-effort", stamp=stamp)
        data = None if values is None else values.get("effort")
        if not isinstance(data, bytes):
            return None
        try:
            return msgspec.msgpack.decode(data, type=Efforts)
        except msgspec.DecodeError:
            self._engine.derived.refuse()
            return None

    def _load_turbo(self) -> TurboCodes | None:
        values = self._engine.derived.load(f"{self._name}-turbo", stamp=self._stamp)
        if values is None:
            return None
        plain = {
            name: value for name, value in values.items() if isinstance(value, bytes | np.ndarray)
        }
        try:
            return TurboCodes.of_values(plain, self._file.rows, self._file.dimension)
        except ValueError:
            self._engine.derived.refuse()
            return None

    def _scan_seconds(self) -> float:
        query = np.ones(self._file.dimension, np.float32)
        seconds = []
        for _ in range(_SCANS):
            started = perf_counter()
            self._file.product(query)
            seconds.append(perf_counter() - started)
            self._pause()
        return float(np.median(seconds))

    def _blocks(self) -> Iterator[Floats32]:
        rows = self._file.rows
        for start in range(0, rows, _BLOCK_ROWS):
            yield self._file.take(np.arange(start, min(start + _BLOCK_ROWS, rows)))

    def _take(self, rows: Rows) -> Floats32:
        """Unit vectors."""
        vectors = self._file.take(rows)
        vectors *= self._file.inverse_norms[rows, None]
        extreme = self._file.extreme_rows
        if extreme.size:
            at = np.isin(rows, extreme).nonzero()[0]
            wide = self._file.take(rows[at]).astype(np.float64)
            vectors[at] = wide / np.sqrt(np.vecdot(wide, wide))[:, None]
        return vectors
