"""In which order an answer comes: one signal, one attribute, or a weighted sum of several.

    similarity   cosine with the query's vector, from -1 to 1; or the score by the metric that
                 with_vector() was told, which is of any size
    recency      0.5 ** (age / half_life), age since the memory was last saved: from 0 to 1
    importance   the attribute of that name, largest first; in a sum its number, 0 where it is none
    activation   base-level activation over the access history (ACT-R, see engramdb.access); in a
                 sum its logistic, 1 / (1 + exp(-activation)), so that it lies from 0 to 1
    other names  that attribute; in a sum its number, 0 where it is none

A sum adds what each signal says times its weight, without rescaling to the memories at hand, so a
memory's score does not depend on which others were found. What is beyond 1e300, infinity too,
counts as 1e300. (Recency, importance and relevance added up is how the generative agents of Park et
al., 2023, remember; their recency halves in 138 hours.)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, NamedTuple

from engramdb.errors import InvalidInputError
from engramdb.model.attributes import check_key
from engramdb.model.moments import duration_us
from engramdb.query.arguments import check_threshold

SIMILARITY: Final = "similarity"
RECENCY: Final = "recency"
IMPORTANCE: Final = "importance"
ACTIVATION: Final = "activation"
SIGNALS: Final = (SIMILARITY, RECENCY, IMPORTANCE, ACTIVATION)

HALF_LIFE: Final = timedelta(days=7)
DECAY: Final = 0.5


class Order(NamedTuple):
    """`weights` by signal; a single one without a weight is no sum, but sorted by itself."""

    weights: tuple[tuple[str, float], ...]
    is_sum: bool
    descending: bool
    half_life_us: int
    decay: float

    def uses(self, signal: str) -> bool:
        """Whether the signal has a part in it."""
        return any(name == signal for name, _ in self.weights)


def order_of(
    by: str | Mapping[str, float],
    descending: bool | None,
    half_life: timedelta,
    decay: float,
) -> Order:
    """What order_by() was told. Raises InvalidInputError naming the argument."""
    if not isinstance(half_life, timedelta) or half_life <= timedelta():
        raise InvalidInputError("half_life", f"expected a positive timedelta, got {half_life!r}")
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 < decay < 1:
        raise InvalidInputError("decay", f"expected a number between 0 and 1, got {decay!r:.80}")
    if descending is not None and not isinstance(descending, bool):
        raise InvalidInputError("descending", f"expected True or False, got {descending!r:.80}")
    if isinstance(by, Mapping):
        weights, is_sum = tuple(_weight(name, weight) for name, weight in by.items()), True
        if not weights:
            raise InvalidInputError("by", "a sum needs at least one signal and its weight")
    else:
        weights, is_sum = ((_name(by), 1.0),), False
    if descending is None:
        descending = is_sum or weights[0][0] in SIGNALS
    return Order(weights, is_sum, descending, duration_us(half_life), float(decay))


def _name(name: object) -> str:
    return check_key(name, "by")


def _weight(name: object, weight: object) -> tuple[str, float]:
    return _name(name), check_threshold(weight, f"by[{name!r:.80}]")
