"""Everything that a memory has to meet to be in an answer, as a query or a search was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, NamedTuple

from engramdb.errors import InvalidInputError
from engramdb.index.graph import Rule
from engramdb.model.moments import check_moment
from engramdb.query.attribute_filter import AttributeFilter
from engramdb.query.temporal_filter import TemporalFilter

ValidAt = datetime | Literal["now", "any"]
"""What `valid_at` takes: a moment in the world, the moment that is looked from, or any."""

NOW: Final = "now"
ANY: Final = "any"


class Near(NamedTuple):
    """Within so many hops of a memory."""

    start: bytes
    hops: int
    rule: Rule


@dataclass(slots=True)
class Conditions:
    """All of them have to be met. `valid_at_us` None: whatever its valid time says."""

    attributes: list[AttributeFilter] = field(default_factory=list)
    times: list[TemporalFilter] = field(default_factory=list)
    keys: frozenset[bytes] | None = None
    excluded: frozenset[bytes] = frozenset()
    near: list[Near] = field(default_factory=list)
    valid_at: ValidAt = NOW

    def valid_at_us(self, now_us: int) -> int | None:
        """The moment at which it has to hold, for one who looks from `now_us`; None: any."""
        if self.valid_at == NOW:
            return now_us
        if self.valid_at == ANY:
            return None
        return check_moment(self.valid_at, "valid_at")

    def text(self) -> str:
        """The same for the same conditions in every process: sets have an order here."""
        near = [
            (start, hops, None if rule.types is None else sorted(rule.types), rule[1:])
            for start, hops, rule in self.near
        ]
        keys = None if self.keys is None else sorted(self.keys)
        told = self.attributes, self.times, keys, sorted(self.excluded), near, self.valid_at
        return repr(told)


def check_valid_at(moment: object) -> ValidAt:
    """An aware datetime, "now" or "any"; anything else raises InvalidInputError."""
    if isinstance(moment, datetime):
        check_moment(moment, "valid_at")
        return moment
    if isinstance(moment, str):  # of an array, == is no answer
        if moment == NOW:
            return "now"
        if moment == ANY:
            return "any"
    raise InvalidInputError(
        "valid_at", f"expected an aware datetime, 'now' or 'any', got {moment!r:.80}"
    )
