"""Recovery believes too much, or too little."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec

from engramdb.errors import CorruptionError
from engramdb.lsm import StorageEngine, log_reader, opening, recovery
from engramdb.lsm import manifest as manifests
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.log_format import RECORD_HEADER, RECORD_MAGIC
from engramdb.lsm.log_reader import LogRecords
from engramdb.lsm.recovery import Replay
from tests.crash.driver import PATH, SMALL, Driver, put
from tests.crash.mutants.mutant import Patch, crashes, ends, mutant, planted, probe


class EqualToAll:
    """What a checksum is that nobody looks at."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def torn_body_accepted(monkeypatch: Patch) -> None:
    monkeypatch.setattr(log_reader, "body_sum", lambda body, seed: EqualToAll())


def header_sum_not_checked(monkeypatch: Patch) -> None:
    monkeypatch.setattr(log_reader, "header_sum", lambda head, length, seed: EqualToAll())


def hole_skipped(monkeypatch: Patch) -> None:
    """Behind a damaged record the next sound one counts, and what was between is forgotten."""
    real = log_reader.scan
    real_load = Replay._load

    def scan(data: bytes, seed: int, start: int, stop: int) -> tuple[LogRecords, int]:
        offsets: list[int] = []
        end = at = start
        while at + RECORD_HEADER.size <= stop:
            records, ended = real(data, seed, at, stop)
            offsets += records.offset.tolist()
            end = ended if len(records) else end
            magic = RECORD_MAGIC.to_bytes(4, "little")
            found = data.find(magic, max(ended, at) + (0 if len(records) else 8), stop)
            if found < 0:
                break
            at = found
        return LogRecords(data, offsets), end

    def load(replay: Replay, table: Any, data: bytes, base: int, records: Any, *rest: Any) -> Any:
        if len(records):
            replay._seq = min(int(records.seq[0]) - 1, max(replay._seq, int(records.seq[0]) - 1))
        return real_load(replay, table, data, base, records, *rest)

    monkeypatch.setattr(log_reader, "scan", scan)
    monkeypatch.setattr(Replay, "_load", load)


def what_recovery_shows_is_not_synced(monkeypatch: Patch) -> None:
    monkeypatch.setattr(recovery, "_settle", lambda *ignored: None)


def recovery_cuts_and_does_not_write_again(monkeypatch: Patch) -> None:
    def settle(environment: Any, path: str, length: int, synced: int) -> None:
        file = environment.open(path, "w")
        file.truncate(length)
        file.close()

    monkeypatch.setattr(recovery, "_settle", settle)


def vector_numbers_begin_again(monkeypatch: Patch) -> None:
    real = Replay.run

    def run(replay: Replay) -> recovery.Recovered:
        found = real(replay)
        found.next_vector = replay._manifest.next_vector
        return found

    monkeypatch.setattr(Replay, "run", run)


def predecessor_not_checked(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Replay, "_check_predecessor", lambda *ignored: None)


def shortened_predecessor() -> None:
    """After a power cut: a log whose last record has rotted, and a later one that proves that it
    was synced, and holds nothing."""
    disk = SimulatedDisk()
    driver = Driver(disk, replace(SMALL, memtable_bytes_max=1024))
    driver.engine._maintenance.run_inline = lambda: None  # type: ignore[method-assign]
    driver.commit(put(1, b"one", 1))
    driver.commit(put(2, b"two" * 500, 2))
    driver.commit(put(3, b"three", 3), sync=False)
    crashed = disk.crash([])
    first, second = sorted(crashed.list(f"{PATH}/wal"))
    assert crashed.size(f"{PATH}/wal/{second}") == 64, "the second log is empty"
    path = f"{PATH}/wal/{first}"
    crashed.rot(path, 8 * (crashed.size(path) - 100))
    try:
        engine = StorageEngine.open(PATH, SMALL, environment=crashed)
    except CorruptionError:
        return
    raise AssertionError(f"{engine.last_seq} of 2 synced commits, and nobody complains")


def proof_of_visible_ignored(monkeypatch: Patch) -> None:
    monkeypatch.setattr(recovery, "read_visible", lambda environment, directory: None)


def proof_of_later_records_ignored(monkeypatch: Patch) -> None:
    monkeypatch.setattr(log_reader, "proven_synced", lambda *ignored: None)


def older_manifest_when_the_latest_is_damaged(monkeypatch: Patch) -> None:
    def load_latest(environment: Any, directory: str) -> Any:
        for number in reversed(manifests.numbers_in(environment.list(directory))):
            path = f"{directory}/{manifests.name_of(number)}"
            file = environment.open(path, "r")
            try:
                return manifests.decode(file.read_at(0, file.size()), path)
            except CorruptionError:
                continue
            finally:
                file.close()
        return None

    monkeypatch.setattr(manifests, "load_latest", load_latest)
    monkeypatch.setattr(recovery, "read_visible", lambda environment, directory: None)


def manifest_that_may_not_be_durable_trusted(monkeypatch: Patch) -> None:
    """One of which the temporary name is still there is taken as it is."""
    names = {name: getattr(manifests, name) for name in dir(manifests)}
    monkeypatch.setattr(
        opening, "manifests", SimpleNamespace(**{**names, "name_of": lambda number: "none"})
    )


def manifest_number_reused(monkeypatch: Patch) -> None:
    """Each second one replaces the one before, by way of nothing."""
    real = manifests.publish

    def publish(environment: Any, directory: str, new: manifests.Manifest) -> None:
        before = f"{directory}/{manifests.name_of(new.number - 1)}"
        if environment.exists(before):
            environment.unlink(before)
            new = msgspec.structs.replace(new, number=new.number - 1)
        real(environment, directory, new)

    monkeypatch.setattr(manifests, "publish", publish)


LOGS = [
    mutant(torn_body_accepted, crashes("large_records")),
    mutant(header_sum_not_checked, planted("crashed_database", "wal")),
    mutant(hole_skipped, crashes("mixed_syncs", "mixed_syncs_allocated", "left_to_the_system")),
    mutant(what_recovery_shows_is_not_synced, crashes("kills")),
    mutant(recovery_cuts_and_does_not_write_again, crashes("kills")),
    mutant(vector_numbers_begin_again, crashes("kills", "reopenings", "kills_between_files")),
    mutant(predecessor_not_checked, probe(shortened_predecessor)),
    mutant(proof_of_visible_ignored, planted("crashed_database", "wal")),
    mutant(proof_of_later_records_ignored, planted("power_cut_database", "wal")),
    mutant(older_manifest_when_the_latest_is_damaged, planted("published_database", "MANIFEST")),
    mutant(manifest_that_may_not_be_durable_trusted, ends("flushes")),
    mutant(manifest_number_reused, crashes("flushes")),
]
