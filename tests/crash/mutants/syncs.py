"""Something is not synced, or too late, or shown before it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from engramdb.lsm import manifest
from engramdb.lsm.committer import Committer
from engramdb.lsm.core import Core
from engramdb.lsm.environment.simulated import SimulatedDisk, SimulatedFile
from engramdb.lsm.log_writer import LogWriter, Shown, Visible, encode_visible
from engramdb.lsm.records import Commit
from engramdb.lsm.version import State
from tests.crash.mutants.mutant import Mutant, Patch, called_by, crashes, mutant


def no_sync_of(part: str, monkeypatch: Patch) -> None:
    """Files whose path has this in it are not synced."""
    for name in ("sync", "sync_data"):
        real = getattr(SimulatedFile, name)

        def sync(file: SimulatedFile, real: Callable[[Any], None] = real) -> None:
            if part not in file.path:
                real(file)

        monkeypatch.setattr(SimulatedFile, name, sync)


def no_sync_of_directory(path: str, monkeypatch: Patch) -> None:
    """The names in this directory are not synced."""
    real = SimulatedDisk.sync_directory

    def sync(disk: SimulatedDisk, directory: str) -> None:
        if directory != path:
            real(disk, directory)

    monkeypatch.setattr(SimulatedDisk, "sync_directory", sync)


def acknowledged_before_the_sync(monkeypatch: Patch) -> None:
    def sync(log: LogWriter) -> None:
        log.synced = log.size

    monkeypatch.setattr(LogWriter, "sync", sync)


def log_not_synced_before_the_next(monkeypatch: Patch) -> None:
    real = Core.freeze

    def freeze(core: Core) -> None:
        log = core.log
        if log is not None:
            log.synced = log.size
        real(core)

    monkeypatch.setattr(Core, "freeze", freeze)


def manifest_linked_before_it_is_synced(monkeypatch: Patch) -> None:
    no_sync_of("tmp/MANIFEST", monkeypatch)
    real = manifest.publish

    def publish(environment: Any, directory: str, new: manifest.Manifest) -> None:
        real(environment, directory, new)
        file = environment.open(f"{directory}/{manifest.name_of(new.number)}", "r")
        file.sync()
        file.close()

    monkeypatch.setattr(manifest, "publish", publish)


def published_before_the_vectors_are_synced(monkeypatch: Patch) -> None:
    real_publish, real_sync = Core.publish, SimulatedFile.sync
    no_sync_of(".vec", monkeypatch)

    def publish(core: Core, segments: Any, vectors: Any, **changes: Any) -> None:
        real_publish(core, segments, vectors, **changes)
        for file in vectors:
            opened = core.environment.open(file.reader.path, "r")
            assert isinstance(opened, SimulatedFile)
            real_sync(opened)

    monkeypatch.setattr(Core, "publish", publish)


def pin_durable_before_its_commit(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Core, "sync_log", lambda core: None)


def group_told_before_its_sync(monkeypatch: Patch) -> None:
    """The leader syncs, but those that follow it are told when their records are written."""
    real = LogWriter.append
    committers: list[Committer] = []
    real_lead = Committer._lead

    def lead(committer: Committer, mine: Any) -> None:
        committers.append(committer)
        try:
            real_lead(committer, mine)
        finally:
            committers.pop()

    def append(log: LogWriter, data: bytes) -> None:
        real(log, data)
        if committers:
            committer = committers[-1]
            leader, core = committer._leader, committer._core
            for number, request in enumerate(committer._group):
                if request is not leader and request.error is None:
                    request.commit = _commit_of(core, committer._group, number)
                    request.ended = True
                    request.turn.release()

    monkeypatch.setattr(Committer, "_lead", lead)
    monkeypatch.setattr(LogWriter, "append", append)


def _commit_of(core: Core, group: list[Any], number: int) -> Commit:
    behind = sum(1 for request in group[number + 1 :] if request.error is None)
    return Commit(core.last_seq - behind, core.last_time)


def shown_before_it_is_durable(monkeypatch: Patch) -> None:
    """Readers, in this process and in others, see a commit when it is written."""
    real = LogWriter.append
    cores: list[Core] = []
    real_open = Core.open_log

    def open_log(core: Core) -> LogWriter:
        cores[:] = [core]
        return real_open(core)

    def append(log: LogWriter, data: bytes) -> None:
        real(log, data)
        core = cores[0]
        core.state = State(core.state.version, core.last_seq, core.last_time, core.state.floor)
        core.show()

    monkeypatch.setattr(Core, "open_log", open_log)
    monkeypatch.setattr(LogWriter, "append", append)


def reader_shows_a_name_that_is_not_durable(monkeypatch: Patch) -> None:
    """A bulk load is visible to others when its manifest has its name."""
    real = SimulatedDisk.sync_directory

    def sync_directory(disk: SimulatedDisk, path: str) -> None:
        if not called_by("load_to_read"):
            real(disk, path)

    monkeypatch.setattr(SimulatedDisk, "sync_directory", sync_directory)
    monkeypatch.setattr("tests.crash.followers.Replica.sync_directory", sync_directory)


def visible_tells_of_a_sync_that_was_not(monkeypatch: Patch) -> None:
    def encode(shown: Shown) -> bytes:
        visible = Visible(*shown)
        return encode_visible(visible._replace(synced=visible.visible))

    monkeypatch.setattr("engramdb.lsm.core.encode_visible", encode)


def visible_written_before_the_sync(monkeypatch: Patch) -> None:
    """What it tells is true when the call returns, and not when it is written."""
    cores: list[Core] = []
    real_open, real_sync = Core.open_log, LogWriter.sync

    def open_log(core: Core) -> LogWriter:
        cores[:] = [core]
        return real_open(core)

    def sync(log: LogWriter) -> None:
        if cores and cores[0].log is log:
            before, log.synced = log.synced, log.size
            cores[0].show()
            log.synced = before
        real_sync(log)

    monkeypatch.setattr(Core, "open_log", open_log)
    monkeypatch.setattr(LogWriter, "sync", sync)


def _files(part: str, what: str, *workloads: str) -> Mutant:
    return Mutant(f"no_sync_of_{what}", partial(no_sync_of, part), crashes(*workloads))


def _names(path: str, what: str, *workloads: str) -> Mutant:
    name = f"no_sync_of_names_of_{what}"
    return Mutant(name, partial(no_sync_of_directory, path), crashes(*workloads))


def _mutant(
    patch: Callable[[Patch], None], *workloads: str, with_followers: bool = False
) -> Mutant:
    return mutant(patch, crashes(*workloads, with_followers=with_followers))


SYNCS = [
    _mutant(acknowledged_before_the_sync, "single_puts"),
    _mutant(group_told_before_its_sync, "groups"),
    _mutant(shown_before_it_is_durable, "single_puts", with_followers=True),
    _mutant(reader_shows_a_name_that_is_not_durable, "bulk", with_followers=True),
    _mutant(visible_tells_of_a_sync_that_was_not, "mixed_syncs"),
    _mutant(visible_written_before_the_sync, "single_puts"),
    _files(".wal", "logs", "single_puts"),
    _files(".seg", "segments", "flushes"),
    _files(".vec", "vectors", "flushes"),
    _files(".mark", "marks", "flushes", "deletes"),
    _files("MANIFEST", "manifests", "flushes"),
    _names("/db", "manifests", "flushes"),
    _names("/db/wal", "logs", "single_puts"),
    _names("/db/seg", "segments", "flushes"),
    _names("/db/vec", "vectors", "flushes"),
    _names("/fork", "the_manifest_of_a_fork", "forks"),
    _names("/fork/seg", "the_segments_of_a_fork", "forks"),
    _names("/checkpoint/vec", "the_vectors_of_a_checkpoint", "forks"),
    _mutant(log_not_synced_before_the_next, "rotation_left_to_the_system"),
    _mutant(manifest_linked_before_it_is_synced, "flushes"),
    _mutant(published_before_the_vectors_are_synced, "flushes"),
    _mutant(pin_durable_before_its_commit, "pins"),
]
