"""Power cuts without end: of short sequences, random workloads and the named ones, some of them
with followers, and of processes that were killed and the ones after them.

The sources take turns by the time that they have used. All short sequences come once; if they
are through, the others go on. Two campaigns with an even and an odd seed go through them from both
ends. A state is counted once in a campaign, however many workloads lead to it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

from tests.crash.checks import Check
from tests.crash.driver import SMALL
from tests.crash.enumerator import (
    Counts,
    CrashFailure,
    enumerate_crashes,
    reproduce,
    run_traced,
)
from tests.crash.followers import followed
from tests.crash.killed import calls_of, killed
from tests.crash.named import Run
from tests.crash.random_workloads import random_options, varied
from tests.crash.small_sequences import every_sequence, workload_of
from tests.crash.workloads import WORKLOADS
from tests.stress.outcome import Outcome

SEQUENCE, VARIED, NAMED, KILLED = "sequence", "varied", "named", "killed"
SHARES: Final = {SEQUENCE: 0.45, VARIED: 0.3, NAMED: 0.15, KILLED: 0.1}
STATES_MAX: Final = {SEQUENCE: 300, VARIED: 2500, NAMED: 2500, KILLED: 400}
DEPTH: Final = {SEQUENCE: 2, VARIED: 3, NAMED: 3, KILLED: 2}
FOLLOWED_SHARE: Final = 3  # one workload in so many has followers
FAILURES_MAX: Final = 50


@dataclass(frozen=True)
class Task:
    """A workload with a seed: whether it has followers, and how it is recovered, follow from
    these."""

    kind: str
    name: str
    seed: int

    def run(self) -> Run:
        """The workload."""
        rng = self._random()
        if self.kind == SEQUENCE:
            made = workload_of(tuple(self.name.split("+")))
        else:
            made = WORKLOADS[self.name] if self.name in WORKLOADS else varied(int(self.name))
        if self.kind == KILLED:
            return killed(made, rng.randrange(1, calls_of(made, self.seed) + 1))
        if rng.randrange(FOLLOWED_SHARE):
            return made
        at_every_call = self.kind != SEQUENCE and rng.randrange(2)
        return followed(made, None if at_every_call else self.seed)

    def check(self, *, thorough: bool = False) -> Check:
        """Opens what was left, the random ones with random options."""
        options = random_options(self._random()) if self.kind == VARIED else SMALL
        return Check(options, thorough=thorough)

    def _random(self) -> random.Random:
        return random.Random(f"{self.kind}/{self.name}/{self.seed}")


def tasks(kind: str, seed: int) -> Iterator[Task]:
    """The tasks of one kind, ever new ones but for the sequences."""
    if kind == SEQUENCE:
        listed = every_sequence()
        random.Random(seed // 2).shuffle(listed)
        for sequence in listed[:: -1 if seed % 2 else 1]:
            yield Task(SEQUENCE, "+".join(sequence), seed)
        return
    round_ = 0
    while True:
        random_name = str(seed * 1_000_000 + round_)
        if kind == VARIED:
            yield Task(VARIED, random_name, seed)
        elif kind == NAMED:
            yield from (Task(NAMED, name, seed * 1000 + round_) for name in WORKLOADS)
        else:
            named = list(WORKLOADS)[round_ % len(WORKLOADS)]
            yield from (Task(KILLED, n, seed * 1_000_000 + round_) for n in (named, random_name))
        round_ += 1


class _Campaign:
    def __init__(self, seed: int) -> None:
        self.sources = {kind: tasks(kind, seed) for kind in SHARES}
        self.used = dict.fromkeys(SHARES, 0.0)
        self.ran = dict.fromkeys(SHARES, 0)
        self.counts = Counts()
        self.read_in_full = 0
        self.seen: set[int] = set()
        self.failures: list[str] = []

    def step(self) -> None:
        """One task of the kind that is most behind."""
        kind = min(self.sources, key=lambda kind: self.used[kind] / SHARES[kind])
        task = next(self.sources[kind], None)
        if task is None:
            del self.sources[kind]
            return
        started = time.perf_counter()
        self.ran[kind] += 1
        try:
            self._go(task)
        except CrashFailure as failure:
            self._report(task, failure.at, str(failure.__cause__))
        except Exception as error:  # the workload itself went wrong, or a follower of it
            self._report(task, "", f"{type(error).__name__}: {error}")
        self.used[kind] += time.perf_counter() - started

    def _go(self, task: Task) -> None:
        check = task.check()
        counts = enumerate_crashes(
            task.run(),
            check,
            states_max=STATES_MAX[task.kind],
            seed=task.seed,
            depth=DEPTH[task.kind],
            name=task.name,
            seen=self.seen,
        )
        for field in fields(counts):
            total = getattr(self.counts, field.name) + getattr(counts, field.name)
            setattr(self.counts, field.name, total)
        self.read_in_full += check.read_in_full

    def _report(self, task: Task, at: str, problem: str) -> None:
        first = (problem.splitlines() or [""])[0]
        self.failures.append(
            f"python -c 'from tests.stress.crash_states import again; "
            f'again("{task.kind}", "{task.name}", {task.seed}, "{at}")\'  # {first}'
        )


def campaign(seconds: float, seed: int) -> Outcome:
    """Go on until the time is used, or too much is wrong."""
    started = time.perf_counter()
    run = _Campaign(seed)
    while time.perf_counter() - started < seconds and len(run.failures) < FAILURES_MAX:
        run.step()
    elapsed = time.perf_counter() - started
    counts = run.counts
    return Outcome(
        {
            "short sequences": run.ran[SEQUENCE],
            "of": len(every_sequence()),
            "random workloads": run.ran[VARIED],
            "named workloads": run.ran[NAMED],
            "killed processes": run.ran[KILLED],
            "crash points": counts.points,
            "images": counts.states,
            "distinct states checked": counts.distinct,
            "of crashed recoveries": counts.nested_distinct,
            "read in full": run.read_in_full,
            "states a second": round(counts.distinct / elapsed),
        },
        run.failures,
    )


def again(kind: str, name: str, seed: int, at: str) -> None:
    """What a failure names: one image of a workload, or without a place the workload itself."""
    task = Task(kind, name, seed)
    if at:
        reproduce(task.run(), task.check(thorough=True), seed=seed, at=at)
    else:
        run_traced(task.run(), seed)
