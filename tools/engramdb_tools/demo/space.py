"""The steps about the disk: dropping history that nobody needs, and verifying what is left."""

from __future__ import annotations

import os
from typing import Final

from engramdb import Database, KeepLast, MemoryNode
from engramdb_tools.demo.beliefs import ALLERGY
from engramdb_tools.demo.stage import Stage, expect, size, timed
from engramdb_tools.demo.story import embed, tag_of, text_of

REVISIONS: Final = 10_000


def drop_history(stage: Stage, db: Database, path: str) -> None:
    """Many versions of one memory, then only the last one: the disk before and after."""
    stage.step(
        "Letting go of old versions",
        f"One memory, the temperature in the shed, is now saved {REVISIONS:,} times. By default "
        "every version is kept. KeepLast(1) and compact() keep the last version of each memory, "
        "and whatever a tag still needs.",
    )
    temperature, seconds = timed(_revise_often, db)
    db.flush()
    before = directory_bytes(path)
    versions = len(db.history(temperature))
    expect(versions == REVISIONS, "every revision is kept")
    stage.say(f"{versions:,} versions saved, the last one synced", lead="  ", took=seconds)
    full, seconds = timed(_let_go, db)
    after = directory_bytes(path)
    stage.say("set_history(KeepLast(1)), compact()", lead="  ", took=seconds)
    stage.write()
    _bar(stage, "before", before, before)
    _bar(stage, "after", after, before)
    stage.write()
    expect(full == 1, "one version is left")
    expect(after < before / 4, "the disk gets most of its room back")
    with db.as_of(tag_of(9)) as past:
        then = text_of(past.load(past.search_similar(embed([ALLERGY])[0], limit=1)[0][0]))
    expect("hazelnuts, not" in then, "a tagged day is still there after compaction")
    stage.good(f'{versions:,} versions became {full}; "day-9" is tagged, so it still answers:')
    stage.aside(then)


def _revise_often(db: Database) -> str:
    """Left to the operating system but for the last one, which syncs everything before it."""
    texts = [
        f"The shed is at {9 + number % 60 / 10:.1f} degrees, reading {number}."
        for number in range(REVISIONS)
    ]
    node = MemoryNode()
    memory_id = node.id
    for text, vector in zip(texts, embed(texts), strict=True):
        node = MemoryNode(vector, id=memory_id)
        node.set_attribute("text", text)
        db.save(node, sync=text is texts[-1])
    return memory_id


def _let_go(db: Database) -> int:
    db.set_history(KeepLast(1))
    db.compact()
    temperature = db.search_similar(embed(["The shed is at degrees, reading"])[0], limit=1)[0][0]
    return len(db.history(temperature))


def _bar(stage: Stage, name: str, here: int, whole: int) -> None:
    columns = max(1, round(44 * here / whole))
    stage.write(f"     {name:7} {stage.styled('█' * columns, 'warm')} {size(here)}")


def verify(stage: Stage, db: Database) -> None:
    """Every checksum of every file."""
    stage.step("Verifying", "Every byte of every file is read and held against its checksum.")
    report, seconds = timed(db.verify)
    expect(not report.problems, f"verify() finds nothing wrong, but found {report.problems}")
    read = f"{report.files} files, {size(report.bytes_read)}, {report.versions} versions"
    stage.good(f"{read}: all is well.", took=seconds)


def directory_bytes(path: str) -> int:
    """The bytes of all files below a directory."""
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
    )
