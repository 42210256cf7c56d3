"""Where a list is run: three environments whose clock says what the list says."""

from __future__ import annotations

import random
from typing import Any

from engramdb.lsm.environment import MemoryEnvironment, PosixEnvironment
from engramdb.lsm.environment.crash import EVERYTHING, CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk, random_choice


class Clock:
    """A clock that is set. It stands in for the module `time` of engramdb.model.moments too."""

    def __init__(self) -> None:
        self.us = 0

    def time_ns(self) -> int:
        return self.us * 1000


class SetMemory(MemoryEnvironment):
    """A file system in memory with a clock that is set."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def now(self) -> int:
        return self.clock.us


class SetFiles(PosixEnvironment):
    """Real files with a clock that is set."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def now(self) -> int:
        return self.clock.us


class SetDisk(SimulatedDisk):
    """A simulated disk with a clock that is set."""

    def __init__(self, clock: Clock, seed: int, **state: Any) -> None:
        super().__init__(seed, **state)
        self.clock = clock

    def now(self) -> int:
        return self.clock.us

    def after_kill(self) -> SetDisk:
        """What a killed process leaves."""
        state = self._state()
        return self._after(state, [EVERYTHING] * len(state.pending))

    def after_power_cut(self, rng: random.Random) -> SetDisk:
        """What a power cut may leave."""
        state = self._state()
        return self._after(state, random_choice(state, rng))

    def _state(self) -> CrashState:
        with self.guard:
            return CrashState(self.trace, len(self.trace.events))

    def _after(self, state: CrashState, choice: list[int]) -> SetDisk:
        generation = self.trace.generation + 1
        return SetDisk(
            self.clock, self.trace.seed, image=state.image(choice), generation=generation
        )
