"""Forged files, for as long as there is time: see tests/fuzz.

Most of the time goes into whole databases, of which one in TRACED_SHARE is traced for its memory; a
part into the parsers alone, which are a thousand times faster; and a part, if atheris can be
imported, into the same parsers with inputs that are guided by coverage. Everything but the guided
part depends on the seed alone.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from tests.fuzz.checking import Checked, check, failure_of, no_hang
from tests.fuzz.databases import KINDS
from tests.fuzz.parsers import PARSERS, mutated
from tests.fuzz.samples import NAMES
from tests.stress.outcome import Outcome

TRACED_SHARE: Final = 6
PARSERS_SHARE: Final = 0.2  # of the time
GUIDED_SHARE: Final = 0.2
GUIDED_SECONDS_MIN: Final = 10  # for each parser; below it the start would be most of it
FAILURES_MAX: Final = 50
_ROOT: Final = Path(__file__).parents[2]
_UNITS: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


def campaign(seconds: float, seed: int) -> Outcome:
    """Forge until the time is over. Figures: inputs by what was forged, errors by type, memory."""
    end = time.monotonic() + seconds
    outcome = Outcome()
    is_guided = importlib.util.find_spec(
        "atheris"
    ) is not None and seconds * GUIDED_SHARE >= GUIDED_SECONDS_MIN * len(PARSERS)
    _parsers(outcome, time.monotonic() + seconds * PARSERS_SHARE, seed)
    if is_guided:
        for parser in PARSERS:
            _guided(outcome, parser, int(seconds * GUIDED_SHARE / len(PARSERS)), seed)
    _databases(outcome, end, seed)
    return outcome


def read_parser(parser: str, seed: int) -> None:
    """One input of one parser, by its seed."""
    with warnings.catch_warnings(), no_hang():
        warnings.simplefilter("ignore", RuntimeWarning)
        PARSERS[parser](mutated(Random(f"{parser}/{seed}"), parser))


def _parsers(outcome: Outcome, end: float, seed: int) -> None:
    inputs: Counter[str] = Counter()
    while time.monotonic() < end and len(outcome.failures) < FAILURES_MAX:
        for parser in PARSERS:
            at = seed * 10**9 + inputs[parser]
            inputs[parser] += 1
            line = f"from tests.stress.fuzz import read_parser; read_parser({parser!r}, {at})"
            _note(outcome, failure_of(line, partial(read_parser, parser, at)))
    for parser, count in inputs.items():
        outcome.figures[f"inputs of the parser of {parser}"] = count


def _databases(outcome: Outcome, end: float, seed: int) -> None:
    inputs: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    ratio, peak, at = 0.0, 0, seed * 10**9
    while time.monotonic() < end and len(outcome.failures) < FAILURES_MAX:
        kind, name = KINDS[at % len(KINDS)], NAMES[at // len(KINDS) % len(NAMES)]
        trace = at % TRACED_SHARE == at // TRACED_SHARE % TRACED_SHARE
        call = f"check({kind!r}, {name!r}, {at}, trace={trace})"
        done: list[Checked] = []
        work = partial(_append, done, kind, name, at, trace)
        _note(outcome, failure_of(f"from tests.fuzz.checking import check; {call}", work))
        inputs[kind] += 1
        at += 1
        for checked in done:
            errors.update(checked.errors.keys() or ["none"])
            ratio = max(ratio, checked.peak_bytes / checked.file_bytes)
            peak = max(peak, checked.peak_bytes)
    for kind, count in inputs.items():
        outcome.figures[f"databases with a forged {kind}"] = count
    for error, count in sorted(errors.items()):
        outcome.figures[f"databases that met {error}"] = count
    outcome.figures["peak of memory, bytes"] = peak
    outcome.figures["peak of memory, times the bytes of the files"] = round(ratio, 1)


def _append(done: list[Checked], kind: str, name: str, seed: int, trace: bool) -> None:
    done.append(check(kind, name, seed, trace=trace))


def _note(outcome: Outcome, failure: str) -> None:
    if failure:
        outcome.failures.append(failure)


def _guided(outcome: Outcome, parser: str, seconds: int, seed: int) -> None:
    """In a process of its own: libFuzzer ends the process that it runs in."""
    options = [f"-max_total_time={seconds}", f"-seed={seed % 2**31 + 1}", "-print_final_stats=1"]
    options += ["-max_len=65536", "-rss_limit_mb=2048", "-timeout=60", "-artifact_prefix=/dev/null"]
    with tempfile.TemporaryDirectory() as corpus:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.coverage", parser, corpus, *options],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + 300,
        )
    units = _UNITS.search(done.stderr)
    outcome.figures[f"guided inputs of {parser}"] = int(units[1]) if units else 0
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
        shown = lines[0] if lines else " ".join(done.stderr.split())[-300:]
        outcome.failures.append(f"import tests.fuzz.parsers; {shown.removeprefix('FAILED ')}")
