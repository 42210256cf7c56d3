"""What a connection says: its relationship type and its strength."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from engramdb.errors import InvalidInputError
from engramdb.model.limits import RELATIONSHIP_TYPE_BYTES_MAX


class RelationshipType(StrEnum):
    """The usual relationships, read from source to target. Any other text is a type too."""

    ASSOCIATION = "Association"  # has to do with
    CAUSATION = "Causation"  # led to
    PART_OF = "PartOf"  # is a part of
    CONTAINS = "Contains"  # has as a part
    SEQUENCE = "Sequence"  # was followed by
    REFERENCE = "Reference"  # mentions
    SIMILARITY = "Similarity"  # resembles
    CONTRADICTION = "Contradiction"  # speaks against
    SUPPORT = "Support"  # speaks for
    DERIVATION = "Derivation"  # was concluded from
    SUPERSEDES = "Supersedes"  # takes the place of


def check_relationship_type(relationship_type: object, argument: str = "relationship_type") -> str:
    """The type as a plain str of 1 to 256 bytes of UTF-8 that does not start with NUL, or
    InvalidInputError."""
    if not isinstance(relationship_type, str):
        raise InvalidInputError(
            argument,
            f"expected a RelationshipType or str, got {type(relationship_type).__name__}",
        )
    try:
        size = len(relationship_type.encode())
    except UnicodeEncodeError:
        raise InvalidInputError(
            argument, f"{relationship_type!r:.80} has a lone surrogate, so it is not text"
        ) from None
    if not 0 < size <= RELATIONSHIP_TYPE_BYTES_MAX:
        raise InvalidInputError(
            argument,
            f"{relationship_type!r:.80} has {size} bytes of UTF-8; "
            f"a type has 1 to {RELATIONSHIP_TYPE_BYTES_MAX}",
        )
    if relationship_type.startswith("\0"):
        raise InvalidInputError(
            argument, f"{relationship_type!r:.80} begins with NUL, as only reserved types do"
        )
    return str.__str__(relationship_type)


def check_strength(strength: object, argument: str = "strength") -> float:
    """The strength as a float from 0 to 1, or InvalidInputError."""
    if isinstance(strength, (int, float, np.integer, np.floating)) and not isinstance(
        strength, bool
    ):
        if 0 <= strength <= 1:  # NaN compares false
            return float(strength)
        raise InvalidInputError(argument, f"expected a number from 0 to 1, got {strength!r:.80}")
    raise InvalidInputError(
        argument, f"expected a number from 0 to 1, got {type(strength).__name__}"
    )
