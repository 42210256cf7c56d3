"""The enumerator finds what is wrong with a toy log, and nothing in one that is right."""

from __future__ import annotations

import itertools
import struct
import zlib
from dataclasses import dataclass, replace

import pytest

from engramdb.lsm.environment.crash import EVERYTHING, NOTHING, CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.crash.enumerator import (
    FROM_HERE,
    Counts,
    CrashFailure,
    Workload,
    enumerate_crashes,
    reproduce,
    run_traced,
)

HEADER = b"TOYLOG01"
FRAME = struct.Struct("<II")
RECORDS = [bytes([65 + i]) * (90 + 430 * i) for i in range(6)]


@dataclass(frozen=True)
class Rules:
    """Each rule, turned off, is a bug."""

    sync_before_acknowledging: bool = True
    sync_directory: bool = True
    sync_before_rename: bool = True
    check_sums: bool = True
    cut_torn_tail: bool = True
    mend_in_place: bool = True  # otherwise recovery writes the log anew over itself
    publish_before_unlink: bool = True


class ToyLog:
    """A header, then frames of length, checksum and record. Created in a temporary file."""

    def __init__(self, disk: SimulatedDisk, rules: Rules) -> None:
        self.disk, self.rules = disk, rules
        self.records: list[bytes] = []
        disk.make_directory("/toy")
        if not disk.exists("/toy/log"):
            self._create([])
        self.file = disk.open("/toy/log", "w")
        self.end = self._recover()

    def _create(self, records: list[bytes]) -> None:
        if self.disk.exists("/toy/tmp"):
            self.disk.unlink("/toy/tmp")
        file = self.disk.open("/toy/tmp", "x")
        file.write_at(0, HEADER + b"".join(map(frame, records)))
        if self.rules.sync_before_rename:
            file.sync()
        self.disk.rename("/toy/tmp", "/toy/log")
        if self.rules.sync_directory:
            self.disk.sync_directory("/toy")

    def _recover(self) -> int:
        content = self.file.read_at(0, self.file.size())
        assert content[: len(HEADER)] == HEADER, "the log has no header"
        end = len(HEADER)
        while end + FRAME.size <= len(content):
            length, checksum = FRAME.unpack_from(content, end)
            record = content[end + FRAME.size : end + FRAME.size + length]
            if self.rules.check_sums and (length != len(record) or zlib.crc32(record) != checksum):
                break
            if not length:
                break
            self.records.append(record)
            end += FRAME.size + length
        if not self.rules.cut_torn_tail:
            return len(content)
        if end < len(content):
            self.file.truncate(end if self.rules.mend_in_place else 0)
            if not self.rules.mend_in_place:
                self.file.write_at(0, content[:end])
            self.file.sync()
        return end

    def append(self, *records: bytes) -> None:
        for record in records:
            self.file.write_at(self.end, frame(record))
            self.end += FRAME.size + len(record)
        if self.rules.sync_before_acknowledging:
            self.file.sync_data()
        self.records += records

    def compact(self) -> None:
        """The same records in a new file."""
        if not self.rules.publish_before_unlink:
            self.disk.unlink("/toy/log")
            self.disk.sync_directory("/toy")
        self._create(self.records)
        self.file = self.disk.open("/toy/log", "w")


def frame(record: bytes) -> bytes:
    return FRAME.pack(len(record), zlib.crc32(record)) + record


def workload_of(rules: Rules) -> Workload:
    def toy_log(disk: SimulatedDisk, acknowledge: object) -> None:
        log = ToyLog(disk, rules)
        for first in (0, 2, 4):
            group = RECORDS[first : first + 2]
            for record in group:
                disk.issue(record)
            log.append(*group)
            for record in group:
                disk.acknowledge(record)
            if first == 2:
                log.compact()
        log.file.sync()

    return toy_log


def check_of(rules: Rules, *, goes_on: bool = False) -> object:
    def check(disk: SimulatedDisk, issued: list[bytes], acknowledged: list[bytes]) -> None:
        log = ToyLog(disk, rules)
        assert log.records == issued[: len(log.records)], "not a prefix of what was issued"
        assert len(log.records) >= len(acknowledged), "an acknowledged record is gone"
        if goes_on:
            issued[len(log.records) :] = []
            log.append(b"after the crash")
            again = ToyLog(disk.crash([]), rules)
            assert again.records == [*issued, b"after the crash"]

    return check


def run(rules: Rules, *, goes_on: bool = False, **options: object) -> Counts:
    check = check_of(rules, goes_on=goes_on)
    return enumerate_crashes(workload_of(rules), check, seed=1, **options)


RIGHT = Rules()


def test_a_right_log_passes() -> None:
    counts = run(RIGHT, states_max=4000)
    assert counts.points > 25
    assert counts.states >= counts.distinct > 100
    assert counts.nested_states == 0


def test_a_right_log_survives_crashes_of_its_recovery() -> None:
    counts = run(RIGHT, states_max=6000, depth=2)
    assert counts.nested_states > 200


def test_a_right_log_goes_on_after_a_crash() -> None:
    run(RIGHT, goes_on=True, states_max=2000)


@pytest.mark.parametrize(
    "bug",
    [
        "sync_before_acknowledging",
        "sync_directory",
        "sync_before_rename",
        "check_sums",
        "publish_before_unlink",
    ],
)
def test_a_bug_is_caught(bug: str) -> None:
    with pytest.raises(CrashFailure):
        run(replace(RIGHT, **{bug: False}), states_max=4000)


def test_appending_after_a_torn_tail_is_caught() -> None:
    broken = replace(RIGHT, cut_torn_tail=False)
    run(broken, states_max=2000)  # as long as nothing is appended it looks right
    with pytest.raises(CrashFailure):
        run(broken, goes_on=True, states_max=2000)


def test_a_recovery_that_is_not_safe_itself_is_caught_only_by_crashing_it() -> None:
    broken = replace(RIGHT, mend_in_place=False)
    run(broken, states_max=2000)
    with pytest.raises(CrashFailure) as caught:
        run(broken, states_max=2000, depth=2)
    assert ">" in caught.value.at


def test_a_disk_that_keeps_the_order_hides_bugs() -> None:
    run(replace(RIGHT, check_sums=False), ordered=True)
    with pytest.raises(CrashFailure):
        run(replace(RIGHT, sync_before_acknowledging=False), ordered=True)


def test_few_states_are_never_exceeded() -> None:
    for states_max in (1, 7, 50, 300):
        assert run(RIGHT, states_max=states_max).states <= states_max
        assert run(RIGHT, states_max=states_max, depth=2).states <= states_max


def test_the_same_seed_looks_at_the_same_states() -> None:
    assert run(RIGHT, states_max=500, depth=2) == run(RIGHT, states_max=500, depth=2)


@pytest.mark.parametrize("bug", ["check_sums", "mend_in_place"])
def test_the_line_of_a_failure_reproduces_it(bug: str, capsys: pytest.CaptureFixture[str]) -> None:
    broken = replace(RIGHT, **{bug: False})
    with pytest.raises(CrashFailure) as caught:
        run(broken, states_max=4000, depth=2)
    line, *details = str(caught.value).splitlines()
    assert line.startswith("reproduce(toy_log, check, seed=1, at='")
    assert details[0].startswith("  crash after event ")
    with pytest.raises(AssertionError) as again:
        reproduce(workload_of(broken), check_of(broken), seed=1, at=caught.value.at)
    assert str(again.value).splitlines()[0] in line
    assert capsys.readouterr().out.splitlines() == details


def test_without_issue_markers_one_more_than_acknowledged_may_be_there() -> None:
    def workload(disk: SimulatedDisk, acknowledge: object) -> None:
        log = ToyLog(disk, RIGHT)
        for record in RECORDS:
            log.append(record)
            acknowledge(record)

    enumerate_crashes(workload, check_of(RIGHT), states_max=1500)


def test_where_few_operations_are_pending_every_subset_of_them_is_tried() -> None:
    def workload(disk: SimulatedDisk, acknowledge: object) -> None:
        disk.make_directory("/toy")
        file = disk.open("/toy/one", "x")
        file.write_at(0, b"a" * 700)
        disk.open("/toy/two", "x").write_at(0, b"b" * 40)
        file.write_at(700, b"c" * 900)
        disk.rename("/toy/two", "/toy/three")

    wanted = set()
    trace = run_traced(workload, 1)
    for point in range(len(trace.events) + 1):
        state = CrashState(trace, point)
        for choice in itertools.product((NOTHING, EVERYTHING), repeat=len(state.pending)):
            wanted.add(state.image(choice).fingerprint)
    found, sizes = set(), set()

    def check(disk: SimulatedDisk, issued: list[object], acknowledged: list[object]) -> None:
        found.add(disk.trace.base.fingerprint)
        if disk.exists("/toy/one"):
            content = disk.open("/toy/one", "r").read_at(0, 2000)
            sizes.add((len(content), len(content.rstrip(b"\0"))))

    enumerate_crashes(workload, check, states_max=4000, seed=1)
    assert wanted <= found
    assert (700, 0) in sizes, "the size before the data"
    assert (700, 512) in sizes, "one sector of two"
    assert (1600, 700) in sizes and (1600, 1536) in sizes


def test_crashes_begin_where_the_workload_says() -> None:
    def workload(disk: SimulatedDisk, acknowledge: object) -> None:
        disk.make_directory("/toy")
        disk.make_directory("/toy/before")
        disk.issue(FROM_HERE)
        disk.open("/toy/after", "x")

    def check(disk: SimulatedDisk, issued: list[object], acknowledged: list[object]) -> None:
        assert disk.exists("/toy/before")

    assert enumerate_crashes(workload, check, states_max=100, seed=1).distinct >= 2


def test_what_was_seen_in_one_call_is_not_checked_in_another() -> None:
    seen: set[int] = set()
    first = run(RIGHT, states_max=500, seen=seen)
    again = run(RIGHT, states_max=500, seen=seen)
    assert first.distinct == len(seen) > 100 and again.distinct == 0
