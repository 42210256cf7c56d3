"""What must hold after a damaged database was repaired.

A `Truth` is what the database held before it was damaged: every version, with its payload, vector
and ends. After a repair
- it opens, `verify` finds nothing wrong, and a second repair finds nothing to do;
- if the report says that nothing was lost, every answer of every moment is what it was;
- a version is gone only if the file that held it was damaged, and a vector likewise;
- otherwise every version that is there is one of the truth (perhaps without its vector), or one of
  the repair's own commit with the payload of an older one; every version that is not there lies in
  a commit that the report names; and so does every version whose vector is gone;
- each damaged file is under lost/, byte for byte;
- it can be written to, closed and opened again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from engramdb.lsm import Batch, Edge, RepairReport, StorageEngine, repair
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.keys import join, to_list
from engramdb.lsm.log_writer import log_path
from engramdb.lsm.records import EDGE, MEMORY, TOMBSTONE
from tests.crash.checks import dump
from tests.crash.damage import Damage
from tests.crash.damage_check import mixes_copies
from tests.crash.driver import PATH, SMALL, key, vector

OPTIONS = replace(SMALL, log_allocate_bytes=512)
Version = tuple[int, bytes, bytes, tuple[bytes, bytes, str, float] | None]


@dataclass(frozen=True, slots=True)
class Truth:
    """Every version: (class, key, seq) -> kind, payload, vector, ends; the files that hold it and
    its vector; and a digest of all answers."""

    versions: dict[tuple[int, bytes, int], Version]
    homes: dict[tuple[int, bytes, int], tuple[str, str]]
    last_seq: int
    answers: str


def truth_of(disk: SimulatedDisk, path: str = PATH) -> Truth:
    """What this database holds."""
    engine = StorageEngine.open(path, OPTIONS, environment=disk)
    try:
        return Truth(versions_of(engine), homes_of(engine), engine.last_seq, dump(engine))
    finally:
        engine.close()


def versions_of(
    engine: StorageEngine, known: Iterable[tuple[int, bytes, int]] = ()
) -> dict[tuple[int, bytes, int], Version]:
    """Every version that is there; of keys that are `known`, too, if nothing else names them."""
    snapshot = engine.latest()
    floor = engine.stats()["history_floor"]
    keys = {
        (record_class, row.tobytes())
        for seq in [*range(floor, engine.last_seq + 1), *(c.seq for c in engine.pins().values())]
        for record_class in (MEMORY, EDGE)
        for rows in engine.at(seq).scan(record_class)
        for row in rows.keys
    }
    keys |= {
        (record_class, key_)
        for change in engine.changes(floor)
        for record_class, key_, _ in change.operations
        if record_class in (MEMORY, EDGE)
    }
    keys |= {(MEMORY, key(number)) for number in range(100)}
    keys |= {(record_class, key_) for record_class, key_, _ in known}
    found: dict[tuple[int, bytes, int], Version] = {}
    for record_class, key_ in keys:
        for record in snapshot.history(record_class, key_):
            floats = snapshot.vector(record.vector).tobytes() if record.vector else b""
            ends = None
            if isinstance(record, Edge):
                ends = (record.source, record.target, record.type, record.strength)
            version = (record.kind, record.payload, floats, ends)
            found[record_class, key_, record.seq] = version
    return found


def homes_of(engine: StorageEngine) -> dict[tuple[int, bytes, int], tuple[str, str]]:
    """For each version the file that holds it, and the one that holds its vector."""
    version, directory = engine._core.state.version, engine.path
    vectors = {
        number: file.reader.path
        for file in version.vectors
        for number in file.numbers.array().tolist()
    }
    sources = [(s.reader.path, s.columns()) for s in version.segments]
    for table in version.tables():
        path = log_path(directory, table.log)
        sources.append((path, table.columns(len(table))))
        for arena in table.arenas.values():
            vectors |= dict.fromkeys(arena.numbers, path)
    return {
        (record_class, key_, seq): (path, vectors.get(vector_, ""))
        for path, rows in sources
        for record_class, key_, seq, vector_ in zip(
            rows.record_class.tolist(),
            to_list(join(rows.high, rows.low)),
            rows.seq.tolist(),
            rows.vector.tolist(),
            strict=True,
        )
    }


def check_repair(
    disk: SimulatedDisk, truth: Truth, damaged: set[str], path: str = PATH
) -> RepairReport:
    """Repair it, and check all that must hold. Returns the report. `damaged`: paths."""
    # the proof that the end of the last log was synced may be gone
    may_cut = any("/wal/" in name or name.endswith("VISIBLE") for name in damaged)
    before = {name: disk.content(name) for name in names_under(disk, path)}
    looked = repair(disk, path, dry_run=True)
    after_look = {name: disk.content(name) for name in names_under(disk, path)}
    assert before == after_look, "a dry run changed something"
    report = repair(disk, path)
    assert replace(report, moved=()) == looked, f"{report} is not {looked}"
    check_lost(disk, path, before, report)
    again = repair(disk, path, dry_run=True)
    assert not again.problems, f"after the repair: {again.problems}"
    engine = StorageEngine.open(path, OPTIONS, environment=disk, create=False)
    verified = engine.verify()
    assert verified.ok, f"after the repair: {verified.problems}"
    newest = max((seq for _, _, seq in versions_of(engine, truth.versions)), default=0)
    was_cut = may_cut and newest < truth.last_seq
    if report.is_complete and not was_cut:
        assert dump(engine) == truth.answers, "complete, but the answers are others"
    else:
        check_versions(engine, truth, report, damaged, may_cut=may_cut)
    check_goes_on(engine, disk, path)
    return report


def names_under(disk: SimulatedDisk, path: str) -> list[str]:
    """All files of a database, LOCK apart."""
    found = []
    for directory in ("", "/wal", "/seg", "/vec", "/lost"):
        if disk.exists(path + directory):
            for name in disk.list(path + directory):
                full = f"{path}{directory}/{name}"
                if name not in ("wal", "seg", "vec", "tmp", "lost", "readers", "LOCK"):
                    found.append(full)
    return found


def check_lost(
    disk: SimulatedDisk, path: str, before: dict[str, bytes], report: RepairReport
) -> None:
    """No damaged byte was thrown away."""
    kept = {disk.content(name) for name in report.moved}
    assert all(name.startswith(f"{path}/lost/") for name in report.moved)
    for name, content in before.items():
        if any(problem.startswith(name) for problem in report.problems):
            assert content in kept, f"{name} was damaged, and is not under lost/"


def check_versions(
    engine: StorageEngine,
    truth: Truth,
    report: RepairReport,
    damaged: set[str],
    *,
    may_cut: bool,
) -> None:
    """What is there was there, and what is not is named."""
    found = versions_of(engine, truth.versions)
    lost = [seq for first, last in report.commits_lost for seq in range(first, min(last, 999) + 1)]
    for at, version in found.items():
        record_class, key_, seq = at
        expected = truth.versions.get(at)
        # nobody knew of a commit that was cut off: the repair's own may have its number
        if expected is None or (may_cut and seq == report.seq and version != expected):
            is_own = seq == report.seq and (may_cut or seq > truth.last_seq)
            assert is_own, f"a version that never was: {at}"
            if version[0] != TOMBSTONE:
                older = [
                    other
                    for (c, k, s), other in truth.versions.items()
                    if (c, k) == (record_class, key_) and s < seq
                ]
                assert any(version[1] == other[1] for other in older), f"{at} is made up"
            continue
        if version[2] != expected[2]:
            assert not version[2] and seq in lost, f"{at} has another vector"
            assert truth.homes[at][1] in damaged, f"the vector of {at} is gone for nothing"
        assert version[1] == expected[1] and version[3] == expected[3], f"{at} is another"
        assert (version[0] == TOMBSTONE) == (expected[0] == TOMBSTONE), f"{at} is of another kind"
    until = max((seq for _, _, seq in found.keys() & truth.versions.keys()), default=0)
    for at in truth.versions.keys() - found.keys():
        if may_cut and at[2] > until:
            continue
        assert at[2] in lost, f"{at} is gone, and the report does not say so: {report}"
        assert truth.homes[at][0] in damaged, f"{at} is gone for nothing: {report}"
    if not report.commits_lost:
        return
    latest = engine.latest()
    for edge in (edge for rows in latest.scan(EDGE) for edge in rows.keys):
        ends = latest.get(EDGE, edge.tobytes())
        assert isinstance(ends, Edge)
        assert latest.get(MEMORY, ends.source) and latest.get(MEMORY, ends.target), "dangling"


def check_goes_on(engine: StorageEngine, disk: SimulatedDisk, path: str) -> None:
    """It takes a write, and has it after a power cut."""
    batch = Batch()
    batch.put(key(500), b"after the repair", vector(5) if engine.dimension in (None, 3) else None)
    seq = engine.commit(batch, sync=True).seq
    engine._core.close("its process was killed")
    again = StorageEngine.open(path, OPTIONS, environment=disk.crash([]))
    record = again.latest().get(MEMORY, key(500))
    assert again.last_seq == seq and record is not None and record.seq == seq
    assert again.verify().ok
    again.close()


def is_of_ours(damage: Damage) -> bool:
    """Whether a repair can be expected to tell right from wrong: it is of the database, and not a
    file of a checkpoint that went another way under the same uuid."""
    is_mixed = mixes_copies(damage) or damage.donor == "sibling_database"
    return damage.path.startswith(f"{PATH}/") and not is_mixed
