"""A measured figure, the yardsticks beside it, and what the project set out to reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

VALUE = "value"  # a Reach on the figure itself, not on a ratio


@dataclass(frozen=True)
class Reach:
    """What is to be reached: at least or at most `limit`, as a ratio to the yardstick named `of`,
    or absolutely, in the figure's own unit (`of` is "value"; then the machine matters too)."""

    limit: float
    at: Literal["least", "most"]
    of: str = VALUE

    def text(self, unit: str) -> str:
        """As a reader sees it."""
        sign = "≥" if self.at == "least" else "≤"
        return f"{sign} {number(self.limit)} {unit if self.of == VALUE else 'x'}".strip()


@dataclass(frozen=True)
class Figure:
    """One line of the table: what `subject` reached. `yardsticks` maps a name to a value in the
    same unit, measured in the same run; each is shown as the ratio figure / yardstick."""

    workload: str
    what: str
    subject: str
    value: float
    unit: str
    yardsticks: dict[str, float] = field(default_factory=dict)
    reach: Reach | None = None
    detail: str = ""

    def ratio(self, name: str) -> float | None:
        """This figure as a multiple of the named yardstick, if that was measured."""
        yardstick = self.yardsticks.get(name)
        return self.value / yardstick if yardstick else None

    def ratios(self) -> str:
        """Every ratio, as a reader sees it."""
        return ", ".join(f"{number(self.ratio(name) or 0)}x {name}" for name in self.yardsticks)

    def reached(self) -> bool | None:
        """Whether it is reached; None without a reach, or without the yardstick it speaks of."""
        if self.reach is None:
            return None
        value = self.value if self.reach.of == VALUE else self.ratio(self.reach.of)
        if value is None:
            return None
        return value >= self.reach.limit if self.reach.at == "least" else value <= self.reach.limit


@dataclass(frozen=True)
class Absence:
    """A line that could not be measured, and why. `failed` if it should have been."""

    workload: str
    subject: str
    reason: str
    failed: bool = False


Line = Figure | Absence


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.095 else f"{value:.3g}"
