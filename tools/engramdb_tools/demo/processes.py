"""The steps with a second process: one that reads, and a writer that is killed in full flight."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import IO, Final

import msgspec
import numpy as np

from engramdb import Database, DatabaseLockedError, MemoryNode
from engramdb_tools.demo import story
from engramdb_tools.demo.reader import Answer
from engramdb_tools.demo.stage import Stage, expect, timed
from engramdb_tools.demo.story import embed, revise, text_of
from engramdb_tools.demo.writer import reading

ACKNOWLEDGED_MIN: Final = 300  # the writer is killed after this many acknowledgements
ACKNOWLEDGED_MAX: Final = 900  # or up to this many, as chance will have it
FLIGHT_S_MAX: Final = 5.0  # on a very slow disk it is killed after this time instead
WAIT_S_MAX: Final = 30.0


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"engramdb_tools.demo.{module}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "Popen was asked for a pipe"
    return stream


def read_beside(stage: Stage, db: Database, path: str, launch: str) -> None:
    """A second process answers questions while this one goes on writing."""
    stage.step(
        "A second process reads while this one writes",
        "Another Python process opens the same directory with read_only=True. It sees what this "
        "one has acknowledged, and it cannot write.",
    )
    with start("reader", path) as child:
        try:
            expect(pipe(child.stdout).readline() == "ready\n", "the reader opens the database")
            question = "When is the launch of Petrel?"
            answer = _ask(child, question)
            stage.question(f"{question}  (asked in process {answer.pid})", took=answer.seconds)
            stage.hit(answer.score, answer.text)
            news = "The launch of Petrel is on Sunday 13 April at noon, with a brass band."
            node, day = db.load(launch), story.DAYS + 1
            revise(node, news, day=day, when=story.moment(day, "09:00"))
            seconds = timed(db.save, node, reason="Mr. Halloran knows a band")[1]
            stage.say("this process saves a revision", lead="  ", style="warm", took=seconds)
            stage.write()
            answer = _ask(child, question)
            stage.question(f"{question}  (the same, refresh() included)", took=answer.seconds)
            stage.hit(answer.score, answer.text)
            expect(answer.text == news, "the reader sees the new revision")
            expect(answer.memories == len(db), "the reader counts the same memories")
            expect(answer.refusal == "ReadOnlyError", "the reader cannot write")
        finally:
            pipe(child.stdin).close()
            child.wait(WAIT_S_MAX)
    stage.write()
    stage.good(f"The reader's own attempt to erase everything: {answer.refusal}.")


def _ask(child: subprocess.Popen[str], question: str) -> Answer:
    pipe(child.stdin).write(question + "\n")
    pipe(child.stdin).flush()
    return msgspec.json.decode(pipe(child.stdout).readline(), type=Answer)


def kill_a_writer(stage: Stage, path: str, memories: int) -> Database:
    """SIGKILL in full flight, then every acknowledged memory again. Returns the reopened database.

    `memories`: how many there were before. The database must be closed: the writer needs its lock.
    """
    stage.step(
        "Killing a writer in full flight",
        "A third process opens the database and saves the readings of a thermometer as fast as it "
        "can. It prints each id after save() has returned. Then it gets SIGKILL: no goodbye.",
    )
    with start("writer", path) as child:
        try:
            acknowledged = _let_it_fly(stage, child, path)
        finally:
            child.kill()
        acknowledged += _complete_lines(pipe(child.stdout).read())
        child.wait(WAIT_S_MAX)
    expect(child.returncode == -9, "the writer died of SIGKILL")
    stage.say(
        f"SIGKILL to process {child.pid} after {len(acknowledged)} acknowledged memories",
        lead=stage.styled("✘ ", "bad"),
        style="bad",
    )
    db, seconds = timed(Database.file_based, path)
    stage.say("opened again: its log is read, its lock is free", lead="  ", took=seconds)
    missing, seconds = timed(_missing, db, acknowledged)
    found = len(acknowledged) - missing
    stage.say("each one loaded: id, text and vector compared bit for bit", lead="  ", took=seconds)
    extra = len(db) - memories - len(acknowledged)
    expect(missing == 0, f"every acknowledged memory is found again ({missing} are missing)")
    expect(0 <= extra <= 1, f"at most one save was under way, not {extra}")
    number, memory_id = acknowledged[-1]
    hits = db.search_similar(embed([text_of(reading(number))])[0], limit=1)
    expect(hits[0][0] == memory_id, "the last acknowledged memory is found by similarity")
    stage.write()
    stage.good(f"{found} of {len(acknowledged)} acknowledged memories are there. Lost: {missing}.")
    if extra:
        stage.aside("One more is there: it was saved, and the kill came before it could say so.")
    return db


def _let_it_fly(stage: Stage, child: subprocess.Popen[str], path: str) -> list[tuple[int, str]]:
    """Collect acknowledgements until the moment, chosen by chance, at which it is to be killed."""
    target = random.randint(ACKNOWLEDGED_MIN, ACKNOWLEDGED_MAX)
    acknowledged: list[tuple[int, str]] = []
    began = time.perf_counter()
    while len(acknowledged) < target and time.perf_counter() - began < FLIGHT_S_MAX:
        line = pipe(child.stdout).readline()
        expect(bool(line), "the writer writes until it is killed")
        acknowledged += _complete_lines(line)
        if len(acknowledged) == 1:
            began = time.perf_counter()
            try:
                Database.file_based(path).close()
                expect(False, "a second writer is refused")
            except DatabaseLockedError as error:
                expect(str(child.pid) in str(error), "the refusal names the process")
                stage.say(f"a second writer is refused: in use by process {child.pid}", lead="  ")
    seconds = time.perf_counter() - began
    stage.say(
        f"{len(acknowledged) / seconds:,.0f} durable saves a second, until now ...",
        lead="  ",
        took=seconds,
    )
    time.sleep(random.random() * 0.003)  # so that the kill can fall anywhere within a save
    return acknowledged


def _complete_lines(text: str) -> list[tuple[int, str]]:
    """The acknowledgements in `text`; a line that the kill has cut short acknowledges nothing."""
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [(int(number), memory_id) for number, memory_id in map(str.split, lines)]


def _missing(db: Database, acknowledged: list[tuple[int, str]]) -> int:
    """How many of them are not there, or are not what was saved."""
    return sum(
        found is None or not _same(found, reading(number))
        for number, found in ((number, db.get(memory_id)) for number, memory_id in acknowledged)
    )


def _same(found: MemoryNode, saved: MemoryNode) -> bool:
    if found.embeddings is None or saved.embeddings is None:
        return False
    return dict(found.attributes) == dict(saved.attributes) and bool(
        np.array_equal(found.embeddings, saved.embeddings)
    )
