"""The data of every workload: seeded memories with realistic neighbours, drawn in blocks.

Embeddings are a mixture of Gaussians around some hundreds of unit centres. Its figures are those of
sentence embeddings of real conversations (384-d): the mean of all rows has length 0.5, two rows
have cosine 0.28 on average, the variances of the principal axes fall as (i + 24) ** -1.8, clusters
have uneven sizes, and the nearest neighbour of a row has cosine 0.75 or so. Isotropic noise, which
has no neighbours at all, would make every index look either perfect or useless. With real
embeddings at hand, `Corpus(directory=...)` draws around each of those instead.

A memory further has a text (see words.py) and four typed fields, about 200 bytes together. Block b
of a corpus depends on the seed and b only, so that a million rows need not be in memory at once.
Labels, which only filtered searches want, are drawn apart from all of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.words import Words

Matrix = npt.NDArray[np.float32]

SEED: Final = 20_240_501
DIMENSION: Final = 384
CENTRES: Final = 300
BLOCK_ROWS: Final = 2_000
LABELS: Final = {"topic": 10, "place": 100}  # name -> how many values, all equally frequent

_MEAN_SHARE: Final = 0.25  # shares of a row's squared length: the common direction,
_SPREAD_SHARE: Final = 0.30  # what it has to itself; the rest is its cluster's centre
_SPEAKERS: Final = ["Ada", "Basil", "Chiara", "Dmitri", "Esperanza", "Farid", "Gwendolyn", "Hugo"]
_START: Final = datetime(2024, 5, 1, 9, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Rows:
    """Some memories, column by column. `ids` are for stores that do not make their own."""

    ids: list[str]
    vectors: Matrix
    columns: dict[str, list[Any]]  # text str, speaker str, session int, importance float, created

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> Rows:
        """Rows start to stop, excluded; the matrix is a view."""
        return Rows(
            self.ids[start:stop],
            self.vectors[start:stop],
            {name: column[start:stop] for name, column in self.columns.items()},
        )

    def attributes(self, row: int) -> dict[str, Any]:
        """The text and the fields of one memory."""
        return {name: column[row] for name, column in self.columns.items()}

    def payload_bytes(self) -> int:
        """Bytes of the text and the fields (8 for a number) without any framing or name."""
        return sum(
            len(value.encode()) if isinstance(value, str) else 8
            for column in self.columns.values()
            for value in column
        )


class Corpus:
    """An endless, seeded supply of memories and of queries that resemble them."""

    def __init__(self, seed: int = SEED, directory: str | None = None) -> None:
        self.directory = directory
        self._seed = seed
        self._words = Words(seed)
        generator = np.random.default_rng([seed, 1])
        variances = (np.arange(DIMENSION) + 24.0) ** -1.8
        rotation = np.linalg.qr(generator.standard_normal((DIMENSION, DIMENSION)))[0]
        self._axes = (np.sqrt(variances / variances.sum())[:, None] * rotation).astype(np.float32)
        self._questions: Matrix | None = None
        if directory is None:
            self.description = f"mixture of {CENTRES} Gaussians, {DIMENSION}-d, unit length"
            self._centres = self._draw_centres(generator)
            weights = (np.arange(CENTRES) + 10.0) ** -0.7
        else:
            self.description = f"drawn around real sentence embeddings, {DIMENSION}-d, unit length"
            self._centres = _load(Path(directory) / "turns.npy")
            self._questions = _load(Path(directory) / "questions.npy")
            weights = np.ones(len(self._centres))
        self._weights = np.cumsum(weights / weights.sum())

    def _draw_centres(self, generator: np.random.Generator) -> Matrix:
        mean = generator.standard_normal(DIMENSION)
        mean *= np.sqrt(_MEAN_SHARE) / np.linalg.norm(mean)
        own = generator.standard_normal((CENTRES, DIMENSION)).astype(np.float32) @ self._axes
        own *= np.sqrt(1 - _MEAN_SHARE - _SPREAD_SHARE)
        return _unit(mean.astype(np.float32) + own)

    def _vectors(self, generator: np.random.Generator, count: int) -> Matrix:
        picks = np.searchsorted(self._weights, generator.random(count))
        vectors = generator.standard_normal((count, DIMENSION), dtype=np.float32) @ self._axes
        vectors *= np.float32(np.sqrt(_SPREAD_SHARE))
        centres = self._centres[np.minimum(picks, len(self._centres) - 1)]
        vectors += np.float32(np.sqrt(1 - _SPREAD_SHARE)) * centres
        return _unit(vectors)

    def _block(self, number: int) -> Rows:
        generator = np.random.default_rng([self._seed, 2, number])
        first = number * BLOCK_ROWS
        order = np.arange(first, first + BLOCK_ROWS)
        created = [
            (_START + timedelta(seconds=97 * row)).isoformat(timespec="seconds")
            for row in order.tolist()
        ]
        return Rows(
            ids=[str(uuid.UUID(bytes=generator.bytes(16), version=4)) for _ in order],
            vectors=self._vectors(generator, BLOCK_ROWS),
            columns={
                "text": self._words.texts(generator, BLOCK_ROWS),
                "speaker": [_SPEAKERS[i] for i in generator.integers(0, 8, BLOCK_ROWS).tolist()],
                "session": (order // 40).tolist(),
                "importance": np.round(generator.random(BLOCK_ROWS), 2).tolist(),
                "created": created,
            },
        )

    def rows(self, count: int, start: int = 0) -> Rows:
        """Memories start to start + count, in memory at once."""
        parts = list(self.chunks(count, BLOCK_ROWS, start))
        if len(parts) == 1:
            return parts[0]
        return Rows(
            ids=[row_id for part in parts for row_id in part.ids],
            vectors=np.concatenate([part.vectors for part in parts]),
            columns={
                name: [value for part in parts for value in part.columns[name]]
                for name in parts[0].columns
            },
        )

    def labelled(self, count: int) -> Rows:
        """The first memories with a column for each of LABELS, independent of the vectors."""
        rows = self.rows(count)
        columns = dict(rows.columns)
        for number, (name, values) in enumerate(LABELS.items()):
            generator = np.random.default_rng([self._seed, 4, number])
            columns[name] = [label(name, pick) for pick in generator.integers(0, values, count)]
        return Rows(rows.ids, rows.vectors, columns)

    def chunks(self, count: int, size: int, start: int = 0) -> Iterator[Rows]:
        """The same memories, at most `size` (and at most a block) at a time."""
        at, stop = start, start + count
        block, drawn = -1, None
        while at < stop:
            if at // BLOCK_ROWS != block or drawn is None:
                block = at // BLOCK_ROWS
                drawn = self._block(block)
            offset = at - block * BLOCK_ROWS
            until = min(offset + size, BLOCK_ROWS, stop - block * BLOCK_ROWS)
            yield drawn.part(offset, until)
            at = block * BLOCK_ROWS + until

    def queries(self, count: int) -> Matrix:
        """Unit vectors that resemble the memories; real questions where there are some."""
        generator = np.random.default_rng([self._seed, 3])
        if self._questions is not None:
            picks = generator.integers(0, len(self._questions), count)
            return np.ascontiguousarray(self._questions[picks])
        return self._vectors(generator, count)


def label(name: str, number: int) -> str:
    """A value of the label; the numbers go round."""
    return f"{name}-{number % LABELS[name]:02}"


def _unit(vectors: Matrix) -> Matrix:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _load(path: Path) -> Matrix:
    vectors = np.load(path, allow_pickle=False)
    if vectors.ndim != 2 or vectors.shape[1] != DIMENSION:
        raise SystemExit(f"{path.name} must be a matrix with {DIMENSION} columns")
    return _unit(np.ascontiguousarray(vectors, dtype=np.float32))
