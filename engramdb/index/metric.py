"""How near two vectors are: three measures, of each of which more is nearer.

cosine       x.q / (|x| |q|), and 0 where a vector is zero
dot          x.q
euclidean    -|x - q|: minus, so that the best comes first here as well
"""

from __future__ import annotations

from typing import Final, Literal

Metric = Literal["cosine", "dot", "euclidean"]

COSINE: Final = "cosine"
DOT: Final = "dot"
EUCLIDEAN: Final = "euclidean"
METRICS: Final[tuple[Metric, ...]] = (COSINE, DOT, EUCLIDEAN)
