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

An index lives on clusters, so there is a corpus without any: the shape "gaussian" is one Gaussian
with the same mean and the spectrum above, or with the covariance of the real embeddings. And it
lives on queries that resemble the rows, so there are `questions` that do not: each is a new row of
which four tenths of the common direction and half of the rest are kept, plus noise with the
spectrum (0.5) and with none (0.3). Among 100,000 their nearest neighbour has cosine 0.57 or so, the
tenth 0.53, all on average 0.13; real questions over rows around real turns 0.58, 0.55 and 0.11.
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
LABELS: Final = {
    "topic": 10,
    "place": 100,
    "half": 2,
}  # name -> how many values, all equally frequent

SHAPES: Final = ("mixture", "gaussian")

_MEAN_SHARE: Final = 0.25  # shares of a row's squared length: the common direction,
_SPREAD_SHARE: Final = 0.30  # what it has to itself; the rest is its cluster's centre
_QUESTION_SHARES: Final = (0.4, 0.5, 0.5, 0.3)  # of the mean, of the row, of noise: see above
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

    def __init__(
        self, seed: int = SEED, directory: str | None = None, shape: str = "mixture"
    ) -> None:
        self.directory = directory
        self.shape = shape
        self._seed = seed
        self._words = Words(seed)
        generator = np.random.default_rng([seed, 1])
        variances = (np.arange(DIMENSION) + 24.0) ** -1.8
        rotation = np.linalg.qr(generator.standard_normal((DIMENSION, DIMENSION)))[0]
        self._axes = (np.sqrt(variances / variances.sum())[:, None] * rotation).astype(np.float32)
        self._questions: Matrix | None = None
        if directory is None:
            self.description = f"mixture of {CENTRES} Gaussians, {DIMENSION}-d, unit length"
            self._centres, self._mean = self._draw_centres(generator)
            weights = (np.arange(CENTRES) + 10.0) ** -0.7
        else:
            self.description = f"drawn around real sentence embeddings, {DIMENSION}-d, unit length"
            self._centres = _load(Path(directory) / "turns.npy")
            self._questions = _load(Path(directory) / "questions.npy")
            self._mean = self._centres.mean(axis=0)
            weights = np.ones(len(self._centres))
        self._weights = np.cumsum(weights / weights.sum())
        if shape == "gaussian":
            self._gaussian = self._axes_of_all()

    def _axes_of_all(self) -> Matrix:
        """What turns white noise into the rows of the Gaussian, less their mean."""
        self.description = f"one Gaussian, {DIMENSION}-d, unit length"
        if self._questions is None:
            axes: Matrix = self._axes * np.float32(np.sqrt(1 - _MEAN_SHARE))
            return axes
        self.description += ", covariance of real sentence embeddings"
        covariance = np.cov(self._centres.T.astype(np.float64)) + 1e-9 * np.eye(DIMENSION)
        return np.ascontiguousarray(np.linalg.cholesky(covariance).T, dtype=np.float32)

    def _draw_centres(self, generator: np.random.Generator) -> tuple[Matrix, Matrix]:
        """The centres, and the common direction that is part of all of them."""
        mean = generator.standard_normal(DIMENSION)
        mean *= np.sqrt(_MEAN_SHARE) / np.linalg.norm(mean)
        own = generator.standard_normal((CENTRES, DIMENSION)).astype(np.float32) @ self._axes
        own *= np.sqrt(1 - _MEAN_SHARE - _SPREAD_SHARE)
        common = mean.astype(np.float32)
        return _unit(common + own), common

    def _vectors(self, generator: np.random.Generator, count: int) -> Matrix:
        if self.shape == "gaussian":
            noise = generator.standard_normal((count, DIMENSION), dtype=np.float32)
            vectors: Matrix = noise @ self._gaussian
            vectors += self._mean
            return _unit(vectors)
        picks = np.searchsorted(self._weights, generator.random(count))
        return self._around(generator, np.minimum(picks, len(self._centres) - 1))

    def _around(self, generator: np.random.Generator, centres: npt.NDArray[np.int64]) -> Matrix:
        """One row around each of these centres."""
        noise = generator.standard_normal((len(centres), DIMENSION), dtype=np.float32)
        vectors = noise @ self._axes
        vectors *= np.float32(np.sqrt(_SPREAD_SHARE))
        vectors += np.float32(np.sqrt(1 - _SPREAD_SHARE)) * self._centres[centres]
        return _unit(vectors)

    def _drawn(self, number: int) -> tuple[np.random.Generator, list[bytes], Matrix]:
        """The ids and the vectors of a block, and the generator that the rest comes from."""
        generator = np.random.default_rng([self._seed, 2, number])
        keys = [generator.bytes(16) for _ in range(BLOCK_ROWS)]
        return generator, keys, self._vectors(generator, BLOCK_ROWS)

    def _block(self, number: int) -> Rows:
        generator, keys, vectors = self._drawn(number)
        first = number * BLOCK_ROWS
        order = np.arange(first, first + BLOCK_ROWS)
        created = [
            (_START + timedelta(seconds=97 * row)).isoformat(timespec="seconds")
            for row in order.tolist()
        ]
        return Rows(
            ids=[str(uuid.UUID(bytes=key, version=4)) for key in keys],
            vectors=vectors,
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

    def vectors(self, count: int, start: int = 0) -> Matrix:
        """The vectors of these memories without all the rest; `start` must begin a block."""
        assert start % BLOCK_ROWS == 0, start
        out = np.empty((count, DIMENSION), np.float32)
        for at in range(0, count, BLOCK_ROWS):
            part = self._drawn((start + at) // BLOCK_ROWS)[2]
            out[at : at + BLOCK_ROWS] = part[: count - at]
        return out

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

    def held_out(self, count: int) -> Matrix:
        """Rows that are drawn like the memories and are none of them."""
        return self._vectors(np.random.default_rng([self._seed, 5]), count)

    def questions(self, count: int) -> Matrix:
        """Queries that resemble the rows less; the real questions where there are some."""
        if self._questions is not None:
            return self.queries(count)
        generator = np.random.default_rng([self._seed, 6])
        rows = self._vectors(generator, count)
        of_mean, of_row, of_noise, of_white = (np.float32(share) for share in _QUESTION_SHARES)
        noise, white = generator.standard_normal((2, count, DIMENSION), dtype=np.float32)
        white /= np.float32(np.sqrt(DIMENSION))
        asked = of_mean * self._mean + of_row * (rows - self._mean)
        return _unit(asked + of_noise * (noise @ self._axes) + of_white * white)

    def topical(self, count: int, topics: int, number: int) -> Matrix:
        """Queries about few topics (centres of the mixture), the first of them asked most: Zipf.
        Another number gives other topics."""
        generator = np.random.default_rng([self._seed, 7, number])
        chosen = generator.permutation(len(self._centres))[:topics]
        weights = np.cumsum(1 / (np.arange(len(chosen)) + 1.0))
        picks = np.searchsorted(weights, generator.random(count) * weights[-1])
        return self._around(generator, chosen[picks])


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
