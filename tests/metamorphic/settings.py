"""Random settings: everything that must not change any answer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

MEMORY: Final = "memory"
FILES: Final = "files"
DISK: Final = "disk"  # simulated


@dataclass(frozen=True)
class Setting:
    """One option set. `extras` is how often, per operation, something is done that the list does
    not ask for."""

    seed: int
    place: str
    memtable_bytes: int
    fan_in: int
    log_allocate_bytes: int
    bulk_bytes_min: int
    cache_blocks: int
    durability: str
    sync_interval: float
    background: bool
    extras: float


def make_setting(seed: int) -> Setting:
    """The setting of a seed; 0 is the plainest one: nothing is ever flushed, merged or lost."""
    if seed == 0:
        return Setting(0, MEMORY, 2**26, 4, 0, 2**23, 256, "os", 0.1, False, 0.0)
    draw = random.Random(f"setting {seed}")
    return Setting(
        seed,
        place=draw.choice([MEMORY, FILES, FILES, DISK, DISK]),
        memtable_bytes=draw.choice([1024, 1024, 3000, 10_000, 2**26]),
        fan_in=draw.choice([2, 2, 3, 4, 7]),
        log_allocate_bytes=draw.choice([0, 64, 1000, 4096, 2**20]),
        bulk_bytes_min=draw.choice([1, 1, 400, 2**23]),
        cache_blocks=draw.choice([1, 2, 256]),
        durability=draw.choice(["sync", "sync", "interval", "os"]),
        sync_interval=draw.choice([0.001, 0.05]),
        background=draw.random() < 0.5,
        extras=draw.choice([0.0, 0.05, 0.2, 0.5]),
    )
