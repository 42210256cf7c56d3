"""Goes over what power cuts can leave of a workload, and has each outcome checked.

    def workload(disk, acknowledge):
        engine = open_it(disk)
        disk.issue("a")            # before asking for it
        engine.commit("a")
        acknowledge("a")           # once it is promised

    def check(disk, issued, acknowledged):
        ...open it on the disk (this is the recovery) and raise if it is not right...

    enumerate_crashes(workload, check, states_max=20_000, seed=1, depth=2)

The workload runs once. Then there is a crash at each point of its trace (behind each operation and
each marker), for many choices of what arrived of the operations that were pending there: all of
them if they are few, otherwise the telling ones and a sample. An outcome that was checked before,
with the same promises, is skipped.

With `depth` 2 the recovery itself crashes: what the check did to the disk is a trace too, and what
power cuts leave of that is checked in the same way, with the same promises. A check that goes on to
write marks what it issues and acknowledges on its disk, as a workload does; it is counted in.

A workload without `disk.issue` has issued what it acknowledged, and the next one.

Where a workload issues FROM_HERE, the crashes begin; else they do at its start.

Markers must be hashable. `seen`, given to several calls, makes an image that was met in one of them
with the same promises count, and be checked, only once in all of them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from engramdb.lsm.environment.crash import EVERYTHING, NOTHING, SIZE_ONLY, CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk, random_choice, reboot
from engramdb.lsm.environment.trace import Acknowledged, Image, Issued, NamesChanged, Trace, Write

Workload = Callable[[SimulatedDisk, Callable[[object], None]], None]
Check = Callable[[SimulatedDisk, list[object], list[object]], None]
Choice = tuple[int, ...]

FROM_HERE = "from here"
CANDIDATES_MAX = 4096  # choices thought of at one point
NESTED_STATES_MAX = 32  # about how many outcomes to look at of one crashed recovery
DESCRIBED_MAX = 24
RANDOM_TEARS = 8


@dataclass(slots=True)
class Counts:
    """How much was looked at: points of the workload's trace; images built; images checked (none
    twice with the same promises); and how many of both were left by a crashed recovery."""

    points: int = 0
    states: int = 0
    distinct: int = 0
    nested_states: int = 0
    nested_distinct: int = 0


class CrashFailure(AssertionError):
    """A check failed. `at` is what `reproduce` wants to see it again."""

    def __init__(self, name: str, seed: int, at: str, cause: BaseException, details: str) -> None:
        self.at = at
        problem = (str(cause).splitlines() or [""])[0]
        super().__init__(
            f"reproduce({name}, check, seed={seed}, at={at!r}) -> "
            f"{type(cause).__name__}: {problem}\n{details}"
        )


@dataclass(slots=True)
class _Promises:
    """What was issued and acknowledged in the lives of the disk before this one."""

    issued: list[object]
    acknowledged: list[object]

    def key_with(self, image: Image) -> int:
        """The same for the same image with the same promises."""
        return hash((image.fingerprint, tuple(self.issued), tuple(self.acknowledged)))

    def at(self, state: CrashState) -> _Promises:
        acknowledged = self.acknowledged + state.acknowledged
        if state.issued or any(isinstance(event, Issued) for event in state.trace.events):
            return _Promises(self.issued + state.issued, acknowledged)
        events = state.trace.events[state.position :]
        following = [event.what for event in events if isinstance(event, Acknowledged)][:1]
        return _Promises(self.issued + state.acknowledged + following, acknowledged)


def enumerate_crashes(
    workload: Workload,
    check: Check,
    *,
    states_max: int = 20_000,
    seed: int = 0,
    depth: int = 1,
    ordered: bool = False,
    name: str | None = None,
    seen: set[int] | None = None,
) -> Counts:
    """Check what power cuts can leave of the workload; CrashFailure at the first that is wrong.

    At most `states_max` images are built, about half of them of crashed recoveries if `depth` is
    more than 1. `ordered`: only disks that persist in the order of issue (a few images per point).
    """
    name = name or getattr(workload, "__name__", repr(workload))
    search = _Search(name, check, seed, depth, ordered, set() if seen is None else seen)
    trace = run_traced(workload, seed)
    search.counts.points = len(trace.events) + 1
    search.go(trace, _Promises([], []), states_max, ())
    return search.counts


def reproduce(workload: Workload, check: Check, *, seed: int, at: str) -> None:
    """Check the one image that a CrashFailure named: `at` is "point:choice", and again after ">"
    for each crash of a recovery; a choice is its numbers in hexadecimal, joined with "."."""
    trace = run_traced(workload, seed)
    promises = _Promises([], [])
    steps = at.split(">")
    for i, step in enumerate(steps):
        point, _, text = step.partition(":")
        state = CrashState(trace, int(point))
        choice = tuple(int(part, 16) for part in text.split(".") if part)
        promises = promises.at(state)
        disk = reboot(trace, state.image(choice))
        if i == len(steps) - 1:
            print(describe(state, choice))
        check(disk, promises.issued, promises.acknowledged)
        trace = disk.trace


def run_traced(workload: Workload, seed: int) -> Trace:
    """What the workload does to an empty disk."""
    disk = SimulatedDisk(seed)
    workload(disk, disk.acknowledge)
    return disk.trace


class _Sample:
    """At most `size` of what is offered, each as likely as the other."""

    def __init__(self, rng: random.Random, size: int) -> None:
        self.rng, self.size, self.offered = rng, size, 0
        self.chosen: list[tuple[Trace, _Promises, tuple[str, ...]]] = []

    def offer(self, item: tuple[Trace, _Promises, tuple[str, ...]]) -> None:
        self.offered += 1
        if len(self.chosen) < self.size:
            self.chosen.append(item)
        elif (place := self.rng.randrange(self.offered)) < self.size:
            self.chosen[place] = item


class _Search:
    def __init__(
        self, name: str, check: Check, seed: int, depth: int, ordered: bool, seen: set[int]
    ) -> None:
        self.name, self.check, self.seed = name, check, seed
        self.depth, self.ordered, self.seen = depth, ordered, seen
        self.counts = Counts()
        self.rng = random.Random(f"{name}/{seed}")

    def go(self, trace: Trace, promises: _Promises, states_max: int, path: tuple[str, ...]) -> None:
        """Check the outcomes of one trace, `states_max` images at most."""
        used_before = self.counts.states
        is_deepest = len(path) + 1 == self.depth
        recoveries = _Sample(self.rng, states_max // 2 // NESTED_STATES_MAX + 1)
        state = CrashState(trace)
        own_max = states_max if is_deepest else states_max // 2
        for point, budget in enumerate(self._budgets(trace, own_max)):
            if not budget:
                continue
            state.advance_to(point)
            now = promises.at(state)
            for choice in self._choices(state, budget):
                image = state.image(choice)
                self.counts.states += 1
                self.counts.nested_states += bool(path)
                key = now.key_with(image)
                if key in self.seen:
                    continue
                self.seen.add(key)
                here = (*path, f"{point}:{'.'.join(format(bits, 'x') for bits in choice)}")
                disk = reboot(trace, image)
                self._check(disk, now, here, state, choice)
                if disk.trace.events and not is_deepest:
                    recoveries.offer((disk.trace, now, here))
        left = states_max - (self.counts.states - used_before)
        for i, (recovery, now, here) in enumerate(recoveries.chosen):
            share = left // (len(recoveries.chosen) - i)
            before = self.counts.states
            self.go(recovery, now, share, here)
            left -= self.counts.states - before

    def _check(
        self,
        disk: SimulatedDisk,
        promises: _Promises,
        path: tuple[str, ...],
        state: CrashState,
        choice: Choice,
    ) -> None:
        self.counts.distinct += 1
        self.counts.nested_distinct += len(path) > 1
        try:
            self.check(disk, list(promises.issued), list(promises.acknowledged))
        except Exception as error:
            details = describe(state, choice)
            raise CrashFailure(self.name, self.seed, ">".join(path), error, details) from error

    def _budgets(self, trace: Trace, states_max: int) -> list[int]:
        """How many images each point may have: what it can use, or an equal share."""
        state = CrashState(trace)
        wanted = []
        first = _first_point(trace)
        for point in range(len(trace.events) + 1):
            state.advance_to(point)
            if point < first:
                wanted.append(0)
                continue
            wanted.append(len(state.pending) + 1 if self.ordered else _candidate_count(state))
        if len(wanted) - first > states_max:
            chosen = set(self.rng.sample(range(first, len(wanted)), states_max))
            return [int(point in chosen) for point in range(len(wanted))]
        left = states_max
        budgets = [0] * len(wanted)
        by_want = sorted(range(len(wanted)), key=wanted.__getitem__)
        for i, point in enumerate(by_want):
            budgets[point] = min(wanted[point], left // (len(wanted) - i))
            left -= budgets[point]
        return budgets

    def _choices(self, state: CrashState, budget: int) -> list[Choice]:
        if self.ordered:
            choices = list(_prefixes(len(state.pending)))
        else:
            choices = list(dict.fromkeys(itertools.islice(_telling(state), CANDIDATES_MAX)))
        if len(choices) > budget:
            first = budget // 2 if budget >= 8 else 0
            return choices[:first] + self.rng.sample(choices[first:], budget - first)
        if not self.ordered:
            known = set(choices)
            if _subsets_fit(state, budget - len(choices)):
                subsets = itertools.product((NOTHING, EVERYTHING), repeat=len(state.pending))
                choices += [choice for choice in subsets if choice not in known]
                choices += self._torn_at_random(state, budget - len(choices))
            else:
                while len(choices) < budget:
                    choices.append(tuple(random_choice(state, self.rng)))
        return choices

    def _torn_at_random(self, state: CrashState, room: int) -> list[Choice]:
        """Each write that has several sectors a few times, with random ones of them."""
        torn = []
        for i, pending in enumerate(state.pending):
            for _ in range(RANDOM_TEARS if pending.sectors > 1 else 0):
                choice = random_choice(state, self.rng)
                choice[i] = self.rng.randrange(1 << pending.sectors + 1)
                torn.append(tuple(choice))
        return torn[:room]


def _first_point(trace: Trace) -> int:
    """The first point at which to crash."""
    here = Issued(FROM_HERE)
    return trace.events.index(here) if here in trace.events else 0


def _candidate_count(state: CrashState) -> int:
    """About how many images of this point are worth looking at."""
    pending = len(state.pending)
    writes = sum(1 for p in state.pending if p.sectors)
    return min(
        CANDIDATES_MAX, 4 + 3 * pending + (12 + RANDOM_TEARS) * writes + 2 ** min(pending, 12)
    )


def _subsets_fit(state: CrashState, room: int) -> bool:
    return len(state.pending) < 30 and 2 ** len(state.pending) <= room


def _prefixes(count: int) -> Iterator[Choice]:
    """What a disk that keeps the order leaves."""
    for kept in range(count + 1):
        yield (EVERYTHING,) * kept + (NOTHING,) * (count - kept)


def _telling(state: CrashState) -> Iterator[Choice]:
    """The choices that have found most: extremes first, then those with one odd operation."""
    pending = state.pending
    count = len(pending)
    nothing, everything = (NOTHING,) * count, (EVERYTHING,) * count
    yield nothing
    yield everything
    yield tuple(EVERYTHING if p.file is None else NOTHING for p in pending)
    yield tuple(NOTHING if p.file is None else EVERYTHING for p in pending)
    names_kept = tuple(EVERYTHING if p.file is None else NOTHING for p in pending)
    for i in range(count - 1, -1, -1):  # the newest first: older ones had their turn before
        yield everything[:i] + (NOTHING,) + everything[i + 1 :]
        yield nothing[:i] + (EVERYTHING,) + nothing[i + 1 :]
        yield everything[:i] + nothing[i:]
        for torn in _tears(pending[i].event):
            yield everything[:i] + (torn,) + nothing[i + 1 :]
            yield everything[:i] + (torn,) + everything[i + 1 :]
            yield names_kept[:i] + (torn,) + names_kept[i + 1 :]


def _tears(event: object) -> Iterator[int]:
    """Ways in which a write can arrive in part: only the size, its first half, all but its first
    sector, and every second sector."""
    if not isinstance(event, Write):
        return
    sectors = event.sectors
    yield SIZE_ONLY
    if sectors > 1:
        every = (1 << sectors) - 1
        yield ((1 << sectors // 2) - 1) << 1
        yield (every & ~1) << 1 | SIZE_ONLY
        if sectors > 2:
            yield (every // 3 & every) << 1 | SIZE_ONLY


def describe(state: CrashState, choice: Sequence[int]) -> str:
    """What was pending at a point and what became of it, a line each."""
    names: dict[int, str] = {}
    for entries in state.trace.base.directories.values():
        names.update({node: name for name, node in entries.items()})
    for event in state.trace.events[: state.position]:
        if isinstance(event, NamesChanged):
            names.update({e.node: e.name for e in event.change if e.node is not None})
    last = state.trace.events[state.position - 1] if state.position else "the start"
    lines = [f"  crash after event {state.position}, {_short(last, names)}"]
    for i, pending in enumerate(state.pending):
        bits = choice[i] if i < len(choice) else NOTHING
        fate = {NOTHING: "lost", EVERYTHING: "kept"}.get(bits, f"torn {bits:b}")
        fate = "synced" if pending.certain else fate
        lines.append(f"  {fate:8} {_short(pending.event, names)}")
    if len(lines) > DESCRIBED_MAX:
        lines[1 : len(lines) - DESCRIBED_MAX + 1] = ["  ..."]
    return "\n".join(lines)


def _short(event: object, names: dict[int, str]) -> str:
    if isinstance(event, Write):
        return f"write {len(event.data)} bytes at {event.offset} of {names.get(event.file)}"
    if isinstance(event, NamesChanged):
        return f"{event.operation} " + ", ".join(
            f"{names.get(e.directory, '')}/{e.name}" for e in event.change
        )
    for field in ("file", "directory"):
        number = getattr(event, field, None)
        if number is not None:
            return f"{type(event).__name__} of {names.get(number, '/')}"
    return repr(event)[:100]
