"""A temporal layer: one version of a memory, as it was saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from engramdb.model.vectors import Vector


@dataclass(frozen=True, slots=True, eq=False)
class TemporalLayer:
    """What one commit made of a memory. A deletion is a layer too: without vector and attributes.

    `seq` is the number of the commit, `timestamp` its time (UTC), `reason` what save() was given.
    `valid_from` and `valid_to` say when it holds in the world, None without a bound. `vectors` are
    those in named spaces, (d,) or (n, d) float32 each.
    """

    seq: int
    timestamp: datetime
    reason: str | None
    embeddings: Vector | None
    attributes: Mapping[str, Any]
    deleted: bool = False
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    vectors: Mapping[str, Vector] = field(default_factory=dict)
