"""What a campaign reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcome:
    """`figures`: what was done, in the order in which it is printed ("states": 1_000_000).
    `failures`: for each violation one line, which reproduces it when it is pasted into a shell or
    into Python."""

    figures: dict[str, int | float | str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


Campaign = Callable[[float, int], Outcome]
"""campaign(seconds, seed): goes on until about `seconds` have passed, or until it has done all that
there is to do. It raises only if it is itself at fault; a violation is a failure of its outcome."""
