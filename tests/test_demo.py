"""The demo keeps its promises, looks right in 80 columns, and fails loudly when one is broken."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engramdb_tools.demo import story
from engramdb_tools.demo.stage import DemoFailed, Stage, duration, expect, size, visible

ROOT = Path(__file__).parent.parent
SECONDS_MAX = 30.0


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "engramdb_tools.demo", *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONIOENCODING": "utf-8",
        },
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


def test_the_demo_shows_what_it_promises(tmp_path: Path) -> None:
    began = time.perf_counter()
    finished = run(cwd=tmp_path)
    seconds = time.perf_counter() - began
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stderr == ""
    lines = finished.stdout.splitlines()
    words = " ".join(finished.stdout.split())
    for shown in (
        "87 memories, 9 revisions and 29 connections",
        "because the garboard plank split",
        "Pip is allergic to hazelnuts, ",
        "Pip is allergic to cashews and",
        "delayed by: Mr. Halloran knows a yard",
        "because: The garboard plank split",
        "Mr. Halloran takes his tea black, without sugar",
        "undone",
        "with a brass band",
        "ReadOnlyError",
        "SIGKILL to process",
        "Lost: 0.",
        '"day-9" is tagged, so it still answers',
        "all is well",
        "What you have seen",
    ):
        assert shown in words
    acknowledged = re.search(r"(\d+) of (\d+) acknowledged memories are there", words)
    assert acknowledged is not None
    assert acknowledged[1] == acknowledged[2]
    assert int(acknowledged[1]) > 0
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in finished.stdout, "no colour in a pipe"
    assert seconds < SECONDS_MAX
    assert list(tmp_path.iterdir()) == [], "the demo leaves nothing behind"


def test_keep_leaves_the_database_and_never_overwrites(tmp_path: Path) -> None:
    finished = run("--keep", "kept", cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (tmp_path / "kept" / "memory").is_dir()
    again = run("--keep", "kept", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_the_story_is_whole() -> None:
    events = story.read()
    memories = [event for event in events if event.text and not event.revise]
    assert len(memories) >= 80
    assert [day for day, _ in story.by_day(events)] == list(range(1, story.DAYS + 1))
    told: set[str] = set()
    for event in events:
        kinds = [bool(event.connect), bool(event.revise), bool(event.kind)]
        assert sum(kinds) == 1, f"one thing at a time: {event}"
        assert {*(event.connect or ()), *filter(None, [event.revise])} <= told, event
        if event.revise:
            assert event.because, f"a revision has a reason: {event}"
        if event.name:
            assert event.name not in told, f"a name is used once: {event}"
            told.add(event.name)
    moments = [event.when for event in events if event.text]
    assert moments == sorted(moments)
    assert len({event.text for event in memories}) == len(memories)


def test_the_calendar_of_the_story_is_right() -> None:
    """ "Saturday 22 March" must be a Saturday: readers notice."""
    months = {"March": 3, "April": 4}
    dates = re.compile(r"(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day (\d+) (March|April)")
    found = [match for event in story.read() for match in dates.finditer(event.text)]
    assert len(found) >= 5
    for match in found:
        moment = story.EVE.replace(month=months[match[3]], day=int(match[2]))
        assert moment.strftime("%A") == f"{match[1]}day", match[0]


def test_a_broken_promise_is_an_exception_not_an_assert() -> None:
    expect(True, "fine")
    with pytest.raises(DemoFailed, match="two and two"):
        expect(False, "two and two is five")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0000004, "0 us"),
        (0.000012, "12 us"),
        (0.0123, "12.3 ms"),
        (0.9996, "1.00 s"),
        (75, "75.00 s"),
    ],
)
def test_durations_have_the_unit_a_person_would_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes() -> None:
    assert size(1_234) == "1 KB"
    assert size(999_999) == "1,000 KB"
    assert size(17_345_678) == "17.3 MB"


def test_colour_changes_nothing_but_the_colour() -> None:
    plain, coloured = io.StringIO(), io.StringIO()
    for out, colour in ((plain, False), (coloured, True)):
        stage = Stage(out, colour)
        stage.title("A title", "and what is below it " * 8)
        stage.step("A step", "with an introduction")
        stage.question("A question?", took=0.0012)
        stage.hit(0.71, "an answer that goes on for longer than one line has room " * 3, "dim")
        stage.columns(("left", ["one", "two " * 20]), ("right", ["three"]))
        stage.good("done", took=1.5)
    assert "\x1b[" in coloured.getvalue()
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured.getvalue())
    assert [line.rstrip() for line in stripped.splitlines()] == plain.getvalue().splitlines()
    assert max(visible(line) for line in coloured.getvalue().splitlines()) <= 80


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Stage(Terminal()).colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Stage(Terminal()).colour
