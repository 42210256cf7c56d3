"""What a traversal comes by."""

from __future__ import annotations

from typing import NamedTuple


class Visit(NamedTuple):
    """A memory and the least number of hops to it."""

    id: str
    hops: int
