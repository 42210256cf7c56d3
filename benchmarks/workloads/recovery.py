"""A process is killed with one large log; the next one opens the database."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from statistics import median

from benchmarks import child, clock, host
from benchmarks.bench import Bench
from benchmarks.figures import Absence, Figure, Line, Reach
from benchmarks.stores import Engram

READ_COLD = "reading it once, cold"


def run(bench: Bench) -> Iterator[Line]:
    """Single saves into one log, no close; then the time until the database is open again."""
    if Engram.name in bench.absent:
        return
    count = bench.scale.log_records
    with bench.scratch() as directory:
        origin = os.path.join(directory, "origin")
        bench.say(f"  writing {count:,} records, then ending the process")
        child.run("write_and_die", origin, str(count))
        host.sync_below(origin)
        files = host.files_below(origin)
        total = sum(os.path.getsize(path) for path in files)
        cold = clock.stopwatch(lambda: host.read_through(files, cold=True))
        warm = clock.stopwatch(lambda: host.read_through(files, cold=False))
        opened, worked = [], []
        for number in range(min(3, bench.scale.openings)):
            copy = shutil.copytree(origin, os.path.join(directory, str(number)))
            host.sync_below(copy)
            answer = child.run("reopen", copy)
            shutil.rmtree(copy)
            opened.append(answer["open_s"])
            worked.append(answer["cpu_s"])
            if answer["records"] != count:
                lost = f"{answer['records']:,.0f} of {count:,} records recovered"
                yield Absence("recovery", Engram.name, lost, failed=True)
                return
    to_us = 1e6 / count
    for what, seconds in ((READ_COLD, cold), ("reading it once, warm", warm)):
        detail = f"{total / seconds / 1e6:,.0f} MB/s"
        yield Figure("recovery", what, "bare disk", seconds * to_us, "us a record", detail=detail)
    yield Figure(
        "recovery",
        f"open with a log of {total / 1e6:,.0f} MB, {count:,} records",
        Engram.name,
        median(opened) * to_us,
        "us a record",
        {READ_COLD: cold * to_us},
        Reach(2, "most"),
        f"{median(opened):.2f} s ({median(worked):.2f} s of processor); every record is there",
    )
