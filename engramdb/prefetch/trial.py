"""Whether reading ahead pays, by what it has been good for; and when it is tried again."""

from __future__ import annotations

from typing import Final

from engramdb.lsm.warming import Warmth

READS: Final = 64
"""After so many blocks that were read ahead it is judged how many of them were used."""
LOADS: Final = 2048
"""After so many loads it is judged whether there was anything to win."""
USED_MIN: Final = 0.25
"""The share of the blocks read ahead that must be used. Reading one ahead takes the machine what it
spares the agent, but it takes it while the agent does something else."""
WON_MIN: Final = 1 / 128
"""The share of the loads that must find a block that was read ahead."""
REST_S: Final = 30.0
"""Of a rest; after waste the first one, each further one is twice as long."""
REST_S_MAX: Final = 1800.0


class Trial:
    """Begins switched on. `moment_s`: seconds of a clock that never steps back."""

    def __init__(self) -> None:
        self.is_on = True
        self.until_s = 0.0
        """When the rest is over, while it is off."""
        self._rest_s = REST_S
        self._reads = self._hits = 0  # at the beginning of this judgement
        self._loads = 0  # since then

    def judge(self, warmth: Warmth, loads: int, moment_s: float) -> bool:
        """`loads` have been made since the last call. Whether it is on."""
        if not self.is_on:
            return False
        self._loads += loads
        reads, hits = warmth.reads - self._reads, warmth.hits - self._hits
        if reads >= READS:
            if hits >= USED_MIN * reads:
                self._rest_s = REST_S
            else:
                self.rest(moment_s)
            self._begin(warmth)
        elif self._loads >= LOADS:
            if hits < WON_MIN * self._loads:  # which has cost next to nothing
                self.is_on, self.until_s = False, moment_s + REST_S
            self._begin(warmth)
        return self.is_on

    def _begin(self, warmth: Warmth) -> None:
        self._reads, self._hits, self._loads = warmth.reads, warmth.hits, 0

    def rest(self, moment_s: float) -> None:
        """Off, for a while: longer each time, until it has paid."""
        self.is_on = False
        self.until_s = moment_s + self._rest_s
        self._rest_s = min(2 * self._rest_s, REST_S_MAX)

    def resume(self, warmth: Warmth) -> None:
        """On again, to be judged by what comes from now on."""
        self.is_on = True
        self._begin(warmth)
