"""What a query did: the plan it chose, the rows that each stage looked at, the time it took."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engramdb.model.moments import ticks_ns


class Stage(NamedTuple):
    """One step of a query: so many rows in, so many out."""

    name: str
    detail: str
    rows_in: int
    rows_out: int
    milliseconds: float


class Explanation(NamedTuple):
    """What explain() returns; print it.

    plan           what was chosen, and why
    rows_examined  rows that the most expensive stage looked at
    stages         in the order in which they ran
    """

    plan: str
    rows_examined: int
    stages: tuple[Stage, ...]

    @property
    def milliseconds(self) -> float:
        """All stages together."""
        return sum(stage.milliseconds for stage in self.stages)

    def __str__(self) -> str:
        lines = [f"{self.plan}; {self.rows_examined:,} rows examined; {self.milliseconds:.3f} ms"]
        for stage in self.stages:
            lines.append(
                f"  {stage.name:<12} {stage.rows_in:>10,} -> {stage.rows_out:>10,} rows "
                f"{stage.milliseconds:>9.3f} ms  {stage.detail}".rstrip()
            )
        return "\n".join(lines)


class Trace:
    """Collects stages while a query runs: each lasts from the end of the one before it."""

    __slots__ = ("_since_ns", "plan", "stages")

    def __init__(self) -> None:
        self.plan = ""
        self.stages: list[Stage] = []
        self._since_ns = ticks_ns()

    def stage(self, name: str, rows_in: int, rows_out: int, detail: str = "") -> None:
        """A stage has just ended."""
        now_ns = ticks_ns()
        self.stages.append(Stage(name, detail, rows_in, rows_out, (now_ns - self._since_ns) / 1e6))
        self._since_ns = now_ns

    def explanation(self) -> Explanation:
        """Everything so far."""
        return Explanation(self.plan, _most(s.rows_in for s in self.stages), tuple(self.stages))


def _most(counts: Iterable[int]) -> int:
    return max(counts, default=0)
