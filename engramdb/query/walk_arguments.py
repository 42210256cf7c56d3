"""Checks of what a walk along connections is asked for. Each raises InvalidInputError naming the
argument."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import numpy as np

from engramdb.errors import InvalidInputError
from engramdb.index.graph import DIRECTIONS, Rule
from engramdb.model.identifiers import parse_id
from engramdb.model.relationship import check_relationship_type, check_strength

Types = str | Iterable[str]
"""One relationship type, or several."""

Ids = str | Iterable[str]
"""One id, or several."""


def check_rule(relationship_type: object, min_strength: object, direction: object) -> Rule:
    """Which connections are followed."""
    return Rule(
        None if relationship_type is None else _check_types(relationship_type),
        check_strength(min_strength, "min_strength"),
        _check_direction(direction),
    )


def _check_types(types: object) -> frozenset[str]:
    if isinstance(types, str) or not isinstance(types, Iterable):
        return frozenset((check_relationship_type(types),))
    return frozenset(check_relationship_type(each) for each in types)


def _check_direction(direction: object) -> str:
    if isinstance(direction, str) and direction in DIRECTIONS:
        return direction
    choices = ", ".join(f'"{each}"' for each in DIRECTIONS)
    raise InvalidInputError("direction", f"expected one of {choices}, got {direction!r:.80}")


def check_hops(hops: Any, most: int | None = None, argument: str = "max_hops") -> int:
    """How many hops at most: an int from 1 on, up to `most` if given."""
    whole = isinstance(hops, (int, np.integer)) and not isinstance(hops, bool)
    if whole and hops >= 1 and (most is None or hops <= most):
        return int(hops)
    choices = "on" if most is None else f"to {most:,}"
    raise InvalidInputError(argument, f"expected an int from 1 {choices}, got {hops!r:.80}")


def check_ids(ids: object, argument: str) -> list[bytes]:
    """The keys of one id or of several, each once, in their order."""
    if isinstance(ids, (str, UUID)) or not isinstance(ids, Iterable):
        return [parse_id(ids, argument)]
    return list(dict.fromkeys(parse_id(each, argument) for each in ids))


def check_seeds(seeds: object) -> dict[bytes, float]:
    """Keys with their energies: 1 for each id, or what a mapping says."""
    if not isinstance(seeds, Mapping):
        return dict.fromkeys(check_ids(seeds, "seeds"), 1.0)
    energies: dict[bytes, float] = {}
    for each, energy in seeds.items():
        key = parse_id(each, "seeds")
        if key in energies:
            raise InvalidInputError("seeds", f"{each!r:.80} stands in it twice")
        number = _finite(energy)
        if number is None or number <= 0:
            raise InvalidInputError(
                "seeds", f"expected a finite energy above 0 for {each}, got {energy!r:.80}"
            )
        energies[key] = number
    return energies


def check_decay(decay: object) -> float:
    """What a hop leaves of an energy: above 0, up to 1."""
    number = _finite(decay)
    if number is None or not 0 < number <= 1:
        raise InvalidInputError("decay", f"expected a number above 0, up to 1, got {decay!r:.80}")
    return number


def check_activation(activation: object) -> float:
    """The least energy that counts: a finite number from 0 on."""
    number = _finite(activation)
    if number is None or number < 0:
        raise InvalidInputError(
            "min_activation", f"expected a finite number from 0 on, got {activation!r:.80}"
        )
    return number


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int with more than 308 digits
        return None
    return number if math.isfinite(number) else None
