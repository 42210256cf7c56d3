"""Spreading activation: how strongly a few memories remind of others.

After Collins and Loftus, "A spreading-activation theory of semantic processing" (Psychological
Review 82, 1975), and Anderson, "A spreading activation theory of memory" (Journal of Verbal
Learning and Verbal Behavior 22, 1983).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from engramdb.index.graph import Edges, Keys, Rule, step
from engramdb.lsm.keys import U64, from_list, join, split, to_list

Energies = npt.NDArray[np.float64]


def spread(
    source: Edges,
    seeds: Mapping[bytes, float],
    rule: Rule,
    *,
    decay: float,
    hops_max: int,
    activation_min: float,
) -> list[tuple[bytes, float]]:
    """(key, activation) of all memories that were activated, strongest first, ties by key.

    With e(0, m) the energy of a seed, and 0 for all other memories, a hop brings to a memory

        e(h + 1, m) = sum over the connections c from any n to m:  e(h, n) * decay * strength(c)

    or 0 if that is below `activation_min`. The activation of m is the sum of e(h, m) over all h
    from 0 to `hops_max`. Sums are taken in an order that depends on their terms alone, so that the
    result is the same however the connections are stored.
    """
    runs = source.edge_runs()
    high, low = split(from_list(list(seeds)))
    order = np.lexsort((low, high))
    frontier: Keys = high[order], low[order]
    energy: Energies = np.array(list(seeds.values()), np.float64)[order]
    arrived = [(*frontier, energy)]
    with np.errstate(over="ignore", under="ignore"):  # infinitely much is an answer
        for _ in range(hops_max):
            found = step(runs, frontier, rule)
            passed = energy[found.near] * decay * found.strength
            kept = passed > 0.0
            high, low, passed = found.high[kept], found.low[kept], passed[kept]
            # ordered by what arrives, too: so the sum does not depend on the order of the edges
            by_key = np.lexsort((passed, low, high))
            high, low, energy = _sums(high[by_key], low[by_key], passed[by_key])
            strong = energy >= activation_min
            frontier, energy = (high[strong], low[strong]), energy[strong]
            if not len(energy):
                break
            arrived.append((*frontier, energy))
        return _ranked(arrived)


def _sums(high: U64, low: U64, energy: Energies) -> tuple[U64, U64, Energies]:
    """For each of the keys, which are sorted, the sum of what came to it, in the order given."""
    new = np.ones(len(high), np.bool_)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    sums: Energies = np.bincount(np.cumsum(new) - 1, energy).astype(np.float64, copy=False)
    return high[new], low[new], sums


def _ranked(arrived: list[tuple[U64, U64, Energies]]) -> list[tuple[bytes, float]]:
    high = np.concatenate([part[0] for part in arrived])
    low = np.concatenate([part[1] for part in arrived])
    energy = np.concatenate([part[2] for part in arrived])
    order = np.lexsort((low, high))  # stable: of each key, hop after hop
    high, low, energy = _sums(high[order], low[order], energy[order])
    ranks = np.argsort(-energy, kind="stable")
    keys = to_list(join(high[ranks], low[ranks]))
    return list(zip(keys, energy[ranks].tolist(), strict=True))
