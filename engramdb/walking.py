"""Walks along connections: everything beyond one hop. As of the moment of whoever reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from engramdb.errors import MemoryNotFoundError
from engramdb.index import activation, graph, paths
from engramdb.lsm.records import MEMORY
from engramdb.model.identifiers import format_key, format_keys, parse_id
from engramdb.model.limits import ACTIVATION_HOPS_MAX
from engramdb.model.visit import Visit
from engramdb.query.arguments import check_limit
from engramdb.query.source import Source
from engramdb.query.walk_arguments import (
    Ids,
    Types,
    check_activation,
    check_decay,
    check_hops,
    check_ids,
    check_rule,
    check_seeds,
)


class Walking(ABC):
    """Traversals over whatever `_source()` returns. In all of them

    relationship_type  only connections of this type are followed, or of one of these types
    min_strength       only those that are at least so strong, from 0 to 1
    direction          "outgoing" (from source to target), "incoming" (against it) or "both"

    Each raises MemoryNotFoundError for a memory to begin with that is not there, InvalidInputError
    naming the argument, and HistoryUnavailableError as of a moment that is not complete any more.
    """

    @abstractmethod
    def _source(self) -> Source:
        """What is walked."""

    def traverse(
        self,
        start: Ids,
        max_hops: int,
        relationship_type: Types | None = None,
        min_strength: float = 0.0,
        *,
        direction: str = graph.OUTGOING,
        limit: int | None = None,
    ) -> list[Visit]:
        """The memories that can be reached in at most `max_hops` hops: pairs (id, hops).

        start  an id or several; they are not in the answer themselves
        limit  at most so many, the first ones

        Each memory once, at its least number of hops; ordered by hops, then by id.
        """
        keys = check_ids(start, "start")
        hops_max = check_hops(max_hops)
        rule = check_rule(relationship_type, min_strength, direction)
        most = None if limit is None else check_limit(limit)
        source = self._source()
        _require(source, keys)
        visits: list[Visit] = []
        for hops, level in enumerate(graph.levels(source, keys, rule), 1):
            visits += [Visit(name, hops) for name in format_keys(graph.listed(level))]
            if hops == hops_max or (most is not None and len(visits) >= most):
                break
        return visits[:most]

    def shortest_path(
        self,
        source_id: str,
        target_id: str,
        *,
        relationship_type: Types | None = None,
        min_strength: float = 0.0,
        direction: str = graph.OUTGOING,
        max_hops: int | None = None,
    ) -> list[str] | None:
        """The ids from one memory to another along the fewest connections, both included.

        Of several shortest paths it is the one whose ids come first in order, compared from the
        source on. [source_id] if both are the same; None if there is none with at most `max_hops`
        hops.
        """
        start, end = parse_id(source_id, "source_id"), parse_id(target_id, "target_id")
        rule = check_rule(relationship_type, min_strength, direction)
        hops_max = None if max_hops is None else check_hops(max_hops)
        source = self._source()
        _require(source, (start, end))
        path = paths.shortest_path(source, start, end, rule, hops_max)
        return None if path is None else format_keys(path)

    def spread_activation(
        self,
        seeds: Ids | Mapping[str, float],
        *,
        decay: float = 0.5,
        max_hops: int = 3,
        min_activation: float = 0.001,
        relationship_type: Types | None = None,
        min_strength: float = 0.0,
        direction: str = graph.OUTGOING,
        limit: int | None = None,
    ) -> list[tuple[str, float]]:
        """What the seeds remind of: pairs (id, activation), strongest first, ties by id.

        seeds           an id or several, each with an energy of 1, or a mapping of ids to energies
                        above 0
        decay           what a hop leaves of an energy, above 0, up to 1
        max_hops        from 1 to 1,000
        min_activation  what a hop brings to a memory counts, and goes on, from here on
        limit           at most so many, the strongest ones

        With each hop a memory passes on what the last hop has brought to it: along every connection
        energy * decay * strength. What comes to a memory in one hop is added up; if that is below
        `min_activation` it is dropped. The activation of a memory is the sum of all that has come
        to it, and of its own energy if it is a seed. The seeds are in the answer. In direction
        "both" each connection passes energy both ways, one from a memory to itself once.
        """
        energies = check_seeds(seeds)
        shares = check_decay(decay)
        hops_max = check_hops(max_hops, ACTIVATION_HOPS_MAX)
        least = check_activation(min_activation)
        rule = check_rule(relationship_type, min_strength, direction)
        most = None if limit is None else check_limit(limit)
        source = self._source()
        _require(source, energies)
        found = activation.spread(
            source, energies, rule, decay=shares, hops_max=hops_max, activation_min=least
        )[:most]
        names = format_keys([key for key, _ in found])
        return list(zip(names, [each for _, each in found], strict=True))


def _require(source: Source, keys: Iterable[bytes]) -> None:
    for key in keys:
        if source.get(MEMORY, key) is None:
            raise MemoryNotFoundError(format_key(key))
