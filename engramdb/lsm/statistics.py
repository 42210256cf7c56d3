"""Numbers about an open engine: what it holds, what it takes, what is dead."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from engramdb.lsm.core import Core


def collect(core: Core) -> dict[str, Any]:
    """Sizes in bytes, counts, and the settings that the files keep."""
    version = core.state.version
    seq = core.state.seq
    environment, directory = core.environment, core.directory
    log_bytes = 0
    for name in environment.list(f"{directory}/wal"):
        with suppress(FileNotFoundError):  # flushed meanwhile
            log_bytes += environment.size(f"{directory}/wal/{name}")
    segment_bytes = sum(segment.entry.size for segment in version.segments)
    vector_bytes = sum(file.entry.size for file in version.vectors)
    mark_bytes = sum(segment.entry.marks_size for segment in version.segments)
    mark_bytes += sum(file.entry.marks_size for file in version.vectors)
    return {
        "last_seq": seq,
        "history_floor": core.state.floor,
        "dimension": core.space,
        "spaces": {name: width for name, width in core.spaces.items() if width},
        "durability": core.options.durability,
        "versions": sum(s.rows for s in version.segments) + sum(map(len, version.tables())),
        "superseded_versions": sum(s.superseded.count_until(seq) for s in version.segments),
        "segments": len(version.segments),
        "vector_files": len(version.vectors),
        "vectors": sum(file.rows for file in version.vectors),
        "superseded_vectors": sum(file.dead.count_until(seq) for file in version.vectors),
        "unreferenced_vectors": sum(file.entry.unreferenced for file in version.vectors),
        "memtables": len(version.tables()),
        "memtable_bytes": sum(table.bytes_used for table in version.tables()),
        "segment_bytes": segment_bytes,
        "vector_bytes": vector_bytes,
        "mark_bytes": mark_bytes,
        "log_bytes": log_bytes,
        "disk_bytes": segment_bytes + vector_bytes + mark_bytes + log_bytes,
        "cached_blocks": len(core.cache),
        "cache_hits": core.cache.hits,
        "cache_misses": core.cache.misses,
        "stalled_seconds": core.stalled_seconds,
        "manifest": core.manifest.number,
        "log_floor": core.manifest.log_floor,
        "truncated_bytes": core.truncated_bytes,
        "pins": len(core.manifest.pins),
        "copies": list(core.manifest.copies),
    }
