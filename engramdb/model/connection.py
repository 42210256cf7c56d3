"""A connection: one directed, typed edge between two memories."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple


class Connection(NamedTuple):
    """`relationship_type` is plain text and equals the RelationshipType of that name; `strength`
    lies from 0 to 1. Two memories have at most one connection of each type and direction."""

    source_id: str
    target_id: str
    relationship_type: str
    strength: float
    attributes: Mapping[str, Any]
    creation_timestamp: datetime

    # Attributes are a mapping and cannot be hashed; connections that are equal agree on these.
    def __hash__(self) -> int:
        return hash((self.source_id, self.target_id, self.relationship_type))
