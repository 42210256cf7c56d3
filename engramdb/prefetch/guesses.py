"""How often a kind of guess came true, memory by memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_TRIES_MIN: Final = 64
"""Before so many guesses nothing is said."""
_TRIES_MAX: Final = 512
"""Older guesses count half from here on."""
_RIGHT_MIN: Final = 0.2
_OPEN_MAX: Final = 256
"""Guesses that wait to come true; then the oldest one was wrong."""
_SKIPS_MAX: Final = 1024


class Guesses:
    """Are trusted until too few come true; and tried again after a while."""

    def __init__(self) -> None:
        self._open: dict[bytes, None] = {}
        self._tries = self._right = 0.0
        self._skips = 0

    def are_trusted(self) -> bool:
        """Whether to guess once more. Counts how often it was not."""
        if self._tries < _TRIES_MIN or self._right >= _RIGHT_MIN * self._tries:
            return True
        self._skips += 1
        if self._skips >= _SKIPS_MAX:
            self._tries = self._right = 0.0
            self._skips = 0
        return False

    def add(self, keys: Iterable[bytes]) -> None:
        """These memories are expected to be loaded soon."""
        for key in keys:
            if key not in self._open:
                self._open[key] = None
                self._tries += 1
        while len(self._open) > _OPEN_MAX:
            del self._open[next(iter(self._open))]
        if self._tries > _TRIES_MAX:
            self._tries /= 2
            self._right /= 2

    def check(self, keys: Iterable[bytes]) -> None:
        """These memories were loaded."""
        if self._open:
            for key in keys:
                if key in self._open:
                    del self._open[key]
                    self._right += 1
