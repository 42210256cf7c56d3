"""A connection: one directed, typed edge between two memories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Connection:
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

    @classmethod
    def _of(
        cls,
        source_id: str,
        target_id: str,
        relationship_type: str,
        strength: float,
        attributes: Mapping[str, Any],
        creation_timestamp: datetime,
    ) -> Connection:
        """As the constructor, in half the time: a frozen class writes its fields the long way."""
        self = _new(cls)
        for_source, for_target, for_type, for_strength, for_attributes, for_creation = _setters
        for_source(self, source_id)
        for_target(self, target_id)
        for_type(self, relationship_type)
        for_strength(self, strength)
        for_attributes(self, attributes)
        for_creation(self, creation_timestamp)
        return self


_new: Final = object.__new__
_setters: Final = tuple(vars(Connection)[field.name].__set__ for field in fields(Connection))
