"""`python -m engramdb_tools.demo`: run the demo in a directory that is removed afterwards."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import engramdb
from engramdb import Database
from engramdb_tools.demo import beliefs, processes, space
from engramdb_tools.demo.stage import DemoFailed, Stage, duration

SHOWN = (
    "memories with layers, reasons and connections, in one embedded database",
    "any past moment, answered by the same search as now",
    "a mistake undone, and still on record",
    "a killed writer that lost nothing it had acknowledged",
    "a disk that gives its room back, except for what a tag still needs",
)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 if everything that the demo promises held, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m engramdb_tools.demo",
        description="Four weeks in the memory of an agent, on a real database.",
    )
    parser.add_argument(
        "--keep",
        metavar="DIRECTORY",
        nargs="?",
        const="demo-data",
        help="leave the database in DIRECTORY (demo-data if not given), which must not exist yet",
    )
    options = parser.parse_args(arguments)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a terminal that cannot show a dot can still show the text
    stage = Stage()
    if options.keep is None:
        folder = Path(tempfile.mkdtemp(prefix="engramdb-demo-"))
    else:
        folder = Path(options.keep)
        if folder.exists():
            parser.error(f"{folder} exists already: remove it, or name another directory")
    began = time.perf_counter()
    try:
        perform(stage, str(folder / "memory"))
    except DemoFailed as failure:
        stage.write()
        stage.say(f"Not shown: {failure}", style="bad", lead=stage.styled("✘ ", "bad"))
        return 1
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    stage.write()
    stage.write("   " + stage.styled("What you have seen", "bold"))
    for line in SHOWN:
        stage.good(line)
    stage.write()
    stage.prose(f"The whole demo took {duration(time.perf_counter() - began)}.")
    if options.keep is not None:
        stage.prose(f"The database is in {folder / 'memory'}.")
    return 0


def perform(stage: Stage, path: str) -> None:
    """All steps, on a new database at `path`."""
    stage.title(
        f"EngramDB {engramdb.__version__}  ·  four weeks in the memory of an agent",
        "An embedded database that AI agents remember with. No server, one directory.",
    )
    with Database.file_based(path) as db:
        ids = beliefs.remember(stage, db)
        beliefs.recall(stage, db)
        beliefs.layers(stage, db, ids["launch"])
        beliefs.look_back(stage, db)
        beliefs.connections(stage, db, ids["launch"])
        beliefs.undo(stage, db, ids)
        processes.read_beside(stage, db, path, ids["launch"])
        memories = len(db)
    with processes.kill_a_writer(stage, path, memories) as db:
        space.drop_history(stage, db, path)
        space.verify(stage, db)


if __name__ == "__main__":
    sys.exit(main())
