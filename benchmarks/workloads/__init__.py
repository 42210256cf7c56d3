"""The workloads, by the name that --only takes, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.bench import Bench
from benchmarks.figures import Line
from benchmarks.workloads import (
    adaptive,
    attributes,
    batches,
    bulk,
    calls,
    compaction,
    disk,
    filters,
    graph,
    indexing,
    million,
    moments,
    opening,
    prefetch,
    recovery,
    save,
    search,
    similar,
    size,
    threads,
    versions,
)

Workload = Callable[[Bench], Iterator[Line]]

WORKLOADS: dict[str, Workload] = {
    "disk": disk.run,
    "save": save.run,
    "threads": threads.run,
    "batches": batches.run,
    "bulk": bulk.run,
    "calls": calls.run,
    "open": opening.run,
    "size": size.run,
    "search": search.run,
    "filter": filters.run,
    "similar": similar.run,
    "moments": moments.run,
    "indexing": indexing.run,
    "adaptive": adaptive.run,
    "attributes": attributes.run,
    "recovery": recovery.run,
    "compaction": compaction.run,
    "million": million.run,
    "versions": versions.run,
    "graph": graph.run,
    "prefetch": prefetch.run,
}
