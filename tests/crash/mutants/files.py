"""Flush, merge, purge and bulk load: what is written, what is dropped, and what is let go."""

from __future__ import annotations

from typing import Any

import numpy as np

from engramdb.lsm import bulk, flush, manifest, retention, rewrite
from engramdb.lsm.core import DIRECTORIES, Core, number_of
from engramdb.lsm.marks import Marks
from engramdb.lsm.purge import _Targets
from engramdb.lsm.records import MEMORY, NEVER
from engramdb.lsm.rewrite import Carrier
from engramdb.lsm.supersede import Superseder
from tests.crash.mutants.mutant import Patch, called_by, crashes, mutant


def log_unlinked_before_the_manifest(monkeypatch: Patch) -> None:
    real = Core.publish

    def publish(core: Core, *files: Any, log_floor: int, **changes: Any) -> None:
        for name in core.environment.list(f"{core.directory}/wal"):
            if number_of(name) < log_floor:
                core.environment.unlink(f"{core.directory}/wal/{name}")
        real(core, *files, log_floor=log_floor, **changes)

    monkeypatch.setattr(Core, "publish", publish)


def files_unlinked_before_the_manifest(monkeypatch: Patch) -> None:
    real = manifest.publish

    def publish(environment: Any, directory: str, new: manifest.Manifest) -> None:
        names = {f"{entry.number:06d}.seg" for entry in new.segments}
        if directory == "/db" and environment.exists(f"{directory}/seg"):
            for name in environment.list(f"{directory}/seg"):
                if name.endswith(".seg") and name not in names:
                    environment.unlink(f"{directory}/seg/{name}")
        real(environment, directory, new)

    monkeypatch.setattr(manifest, "publish", publish)


def log_floor_too_high(monkeypatch: Patch) -> None:
    """The log of commits that came during a flush is let go with the flushed one."""
    monkeypatch.setattr(Core, "log_floor", lambda core, version: core._next_file)


def marks_beyond_the_flushed_seq(monkeypatch: Patch) -> None:
    real = Core.save_marks

    def save_marks(core: Core, files: Any, kind: str, seq: int) -> Any:
        return real(core, files, kind, NEVER)

    monkeypatch.setattr(Core, "save_marks", save_marks)


def marks_forgotten(monkeypatch: Patch) -> None:
    monkeypatch.setattr(
        Core, "save_marks", lambda core, files, kind, seq: [file.entry for file in files]
    )


def marks_that_came_meanwhile_dropped(monkeypatch: Patch) -> None:
    """What was superseded while files were written is not carried over to the new ones."""
    monkeypatch.setattr(Carrier, "carry", lambda *ignored: None)


def late_marks_of_a_flush_dropped(monkeypatch: Patch) -> None:
    real = Marks.extend

    def extend(marks: Marks, rows: Any, seqs: Any) -> None:
        if marks.number or len(marks) or not called_by("_flush"):
            real(marks, rows, seqs)

    monkeypatch.setattr(Marks, "extend", extend)


def tombstone_dropped_above_older_runs(monkeypatch: Patch) -> None:
    def retain(core: Core, rows: Any, *, durable_seq: int, has_oldest: bool) -> Any:
        return rewrite.retain(core, rows, durable_seq=durable_seq, has_oldest=True)

    monkeypatch.setattr(flush, "retain", retain)


def dropped_for_a_commit_that_may_be_lost(monkeypatch: Patch) -> None:
    """What superseded a version need not be durable for the version to go."""
    real = rewrite.retain

    def retain(core: Core, rows: Any, *, durable_seq: int, **options: Any) -> rewrite.Kept:
        return real(core, rows, durable_seq=NEVER - 1, **options)

    for module in ("flush", "compaction", "purge"):
        monkeypatch.setattr(f"engramdb.lsm.{module}.retain", retain)


def pins_not_looked_at(monkeypatch: Patch) -> None:
    real = retention.droppable

    def droppable(rows: Any, policy: Any, pins: Any, durable_seq: int, window_seq: int) -> Any:
        return real(rows, policy, pins[:0], durable_seq, window_seq)

    monkeypatch.setattr(rewrite, "droppable", droppable)


def one_version_too_few_kept(monkeypatch: Patch) -> None:
    real = retention.droppable

    def droppable(rows: Any, policy: Any, *rest: Any) -> Any:
        if isinstance(policy, retention.KeepLast) and policy.versions > 1:
            policy = retention.KeepLast(policy.versions - 1)
        return real(rows, policy, *rest)

    monkeypatch.setattr(rewrite, "droppable", droppable)


def history_floor_not_raised(monkeypatch: Patch) -> None:
    real = rewrite.retain

    def retain(*inputs: Any, **options: Any) -> rewrite.Kept:
        kept = real(*inputs, **options)
        return rewrite.Kept(kept.rows, kept.order, 0)

    for module in ("flush", "compaction", "purge"):
        monkeypatch.setattr(f"engramdb.lsm.{module}.retain", retain)


def file_number_reused(monkeypatch: Patch) -> None:
    def new_number(core: Core) -> int:
        return 1 + max(
            number_of(name)
            for kind in DIRECTORIES
            for name in ["0", *core.environment.list(f"{core.directory}/{kind}")]
        )

    monkeypatch.setattr(Core, "new_number", new_number)


def shared_vectors_dropped(monkeypatch: Patch) -> None:
    """A merge keeps the vectors of current versions only."""
    real = rewrite.referenced

    def referenced(numbers: Any, uses: Any) -> Any:
        return real(numbers, uses[-1:])

    monkeypatch.setattr("engramdb.lsm.compaction.referenced", referenced)


def purge_leaves_edges(monkeypatch: Patch) -> None:
    def rows(targets: _Targets, columns: Any) -> Any:
        return (columns.record_class == MEMORY) & targets.among(columns.high, columns.low)

    monkeypatch.setattr(_Targets, "rows", rows)


def purge_leaves_vectors(monkeypatch: Patch) -> None:
    real = _Targets.among

    def among(targets: _Targets, high: Any, low: Any) -> Any:
        if called_by("_purge"):
            return np.zeros(len(high), np.bool_)
        return real(targets, high, low)

    monkeypatch.setattr(_Targets, "among", among)


def bulk_load_before_what_the_log_holds(monkeypatch: Patch) -> None:
    """Its manifest says "everything up to here", and earlier commits are only in the log."""
    real = bulk._commit
    real_freeze = Core.freeze

    def commit(*arguments: Any) -> Any:
        monkeypatch.setattr(Core, "freeze", lambda core: None)
        try:
            return real(*arguments)
        finally:
            monkeypatch.setattr(Core, "freeze", real_freeze)

    monkeypatch.setattr(bulk, "_commit", commit)


def bulk_load_supersedes_nothing(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Superseder, "apply", lambda superseder: None)


FILES = [
    mutant(log_unlinked_before_the_manifest, crashes("flushes")),
    mutant(files_unlinked_before_the_manifest, crashes("compactions")),
    mutant(log_floor_too_high, crashes("commits_during_a_flush")),
    mutant(
        marks_beyond_the_flushed_seq, crashes("commits_during_a_merge", "mixed_flushes", "pins")
    ),
    mutant(marks_forgotten, crashes("flushes")),
    mutant(marks_that_came_meanwhile_dropped, crashes("commits_during_a_merge")),
    mutant(late_marks_of_a_flush_dropped, crashes("commits_during_a_flush")),
    mutant(tombstone_dropped_above_older_runs, crashes("deletes")),
    mutant(dropped_for_a_commit_that_may_be_lost, crashes("commits_between_a_flush_and_a_merge")),
    mutant(pins_not_looked_at, crashes("pins_and_retention")),
    mutant(one_version_too_few_kept, crashes("keep_last_in_flushes")),
    mutant(history_floor_not_raised, crashes("keep_last")),
    mutant(file_number_reused, crashes("rotation", "flushes", "compactions")),
    mutant(shared_vectors_dropped, crashes("patches", "compactions")),
    mutant(purge_leaves_edges, crashes("purges")),
    mutant(purge_leaves_vectors, crashes("purges")),
    mutant(bulk_load_before_what_the_log_holds, crashes("bulk")),
    mutant(bulk_load_supersedes_nothing, crashes("bulk")),
]
