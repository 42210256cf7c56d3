"""The same code on a database in memory and on one in a directory that outlives the process.

Run: python examples/memory_and_file_storage.py [DIRECTORY]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import engramdb


def fill(db: engramdb.Database) -> str:
    """Save three memories in one commit: all of them or none. Returns the id of the first."""
    return db.save_many(
        [
            engramdb.MemoryNode([1.0, 0.0, 0.0], attributes={"title": "north"}),
            engramdb.MemoryNode([0.0, 1.0, 0.0], attributes={"title": "east"}),
            engramdb.MemoryNode([0.0, 0.0, 1.0], attributes={"title": "up"}),
        ]
    )[0]


# In memory: fast, and gone when it is closed. The engine is the same as on disk.
with engramdb.Database.in_memory() as db:
    fill(db)
    print(f"in memory: {len(db)} memories")

with tempfile.TemporaryDirectory() as scratch:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch) / "memories"

    # In a directory: created if it is not there. By default every commit is on the disk before
    # save() returns, so neither a killed process nor a power cut loses what was acknowledged.
    with engramdb.Database.file_based(directory) as db:
        north = fill(db)
        print(f"in a directory: {len(db)} memories")

        # One process writes; any number may read meanwhile.
        with engramdb.Database.open(directory, read_only=True) as reader:
            print(f"a reader beside it: {len(reader)} memories")
            try:
                reader.delete(north)
            except engramdb.ReadOnlyError as error:
                print(f"the reader cannot write: {type(error).__name__}")

        # A second writer is refused at once, and told who holds the database.
        try:
            engramdb.Database.file_based(directory)
        except engramdb.DatabaseLockedError as error:
            print(f"a second writer is refused: {type(error).__name__}")

    # Opened again, everything is there. A weaker promise is a choice for bulk work: "os" leaves
    # syncing to the operating system, and a power cut can cost the last seconds.
    config = engramdb.DatabaseConfig(storage_dir=str(directory), durability="os")
    with engramdb.Database(config) as db:
        found, similarity = db.search_similar([0.9, 0.1, 0.0], limit=1)[0]
        print(f"opened again: {db.load(found).get_attribute('title')}, {similarity:.3f}")
        report = db.verify()  # reads every byte and compares it with its checksum
        print(f"verified: {report.versions} versions, {len(report.problems)} problems")
