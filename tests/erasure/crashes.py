"""A power cut at every moment of an erasure: all of it has happened, or nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator

from engramdb.lsm.environment.crash import EVERYTHING, CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk, random_choice, reboot
from tests.erasure.secret import Secret
from tests.erasure.states import random_steps, take

OPTIONS = (
    {"bulk_bytes_min": 1},
    {"memtable_bytes": 1024, "fan_in": 2, "bulk_bytes_min": 2**23},
    {"durability": "os", "bulk_bytes_min": 2**23, "log_allocate_bytes": 0},
)


def make(seed: int, steps: tuple[str, ...] | None, options: int) -> tuple[SimulatedDisk, Secret]:
    """A database on a simulated disk in which the steps, or drawn ones, were taken."""
    disk = SimulatedDisk(seed)
    secret = Secret(disk, seed, **OPTIONS[options])
    secret.fill()
    for name in random_steps(secret) if steps is None else steps:
        take(secret, name)
    return disk, secret


def images(
    disk: SimulatedDisk, first: int, rng: random.Random, random_ones: int
) -> Iterator[tuple[str, SimulatedDisk]]:
    """The disks that power cuts leave, from an event of the trace on, each once and with its
    name."""
    seen: set[bytes] = set()
    state = CrashState(disk.trace, first)
    for point in range(first, len(disk.trace.events) + 1):
        state.advance_to(point)
        choices = [[], [EVERYTHING] * len(state.pending)]
        choices += [random_choice(state, rng) for _ in range(random_ones if state.pending else 0)]
        for choice in choices:
            image = state.image(choice)
            if image.fingerprint not in seen:
                seen.add(image.fingerprint)
                yield f"point {point}, choice {choice}", reboot(disk.trace, image)


def check_crashes(
    disk: SimulatedDisk, secret: Secret, rng: random.Random, *, random_ones: int = 1
) -> tuple[int, list[str]]:
    """Erase it on this disk and on every disk that a power cut leaves meanwhile. How many there
    were, and what was wrong."""
    secret.db._engine.wait_durable(secret.db.last_seq)
    before, lasts = secret.other_states(), secret.db.last_seq
    was_known = secret.is_known()
    first = len(disk.trace.events)
    secret.db.purge(secret.id)
    end = len(disk.trace.events)
    count, problems = 0, []
    for name, left in images(disk, first, rng, random_ones):
        count += 1
        problem = _check_image(left, secret, before, lasts, was_known)
        if problem:
            problems.append(f"{name}: {problem}")
    assert len(disk.trace.events) == end, "nobody writes to the disk that was left behind"
    return count, problems


def _check_image(
    left: SimulatedDisk, secret: Secret, before: object, last_seq: int, was_known: bool
) -> str:
    """What is wrong after this power cut, or nothing."""
    here = secret.environment, secret.db
    secret.environment = left
    try:
        secret.db = db = secret.open()
        if db.last_seq != last_seq:
            return f"commit {db.last_seq} of {last_seq}"
        if secret.other_states() != before:
            return "others have changed"
        if not secret.is_known() and was_known and secret.traces():
            return f"erased, but there are {secret.traces()}"
        again = db.purge(secret.id)
        if secret.traces():
            return f"after a second purge there are {secret.traces()}"
        if secret.traces(left.crash(())):
            return f"another power cut brings back {secret.traces(left.crash(()))}"
        if again.readers or not db.verify().ok or secret.other_states() != before:
            return "others have changed, or verify() finds damage"
        db.close()
        return ""
    finally:
        secret.environment, secret.db = here
