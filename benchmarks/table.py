"""The table: for the terminal and as Markdown. Passes and misses are shown alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from benchmarks.figures import Absence, Figure, Line, number
from benchmarks.stores import STORES

HEADINGS = ("what", "who", "figure", "ratio", "to reach", "", "remarks")


def cells(line: Line) -> tuple[str, ...]:
    """One line as the seven columns of HEADINGS."""
    if isinstance(line, Absence):
        return ("", line.subject, "-", "", "", "failed" if line.failed else "", line.reason)
    verdict = {True: "pass", False: "MISS", None: ""}[line.reached()]
    reach = line.reach.text(line.unit) if line.reach else ""
    if line.reach and line.reach.of != "value":
        reach += f" {line.reach.of}"
    figure = f"{number(line.value)} {line.unit}"
    return (line.what, line.subject, figure, line.ratios(), reach, verdict, line.detail)


def text(lines: Sequence[Line]) -> str:
    """Aligned columns, one block per workload."""
    blocks = []
    for workload, group in _by_workload(lines):
        rows = [HEADINGS, *(cells(line) for line in group)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
        rendered = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        blocks.append("\n".join([f"== {workload}", *rendered]))
    return "\n\n".join(blocks)


def markdown(lines: Sequence[Line], preamble: Iterable[str]) -> str:
    """The same, to paste into a README."""
    out = [*(f"- {line}" for line in preamble), ""]
    for workload, group in _by_workload(lines):
        out += [f"### {workload}", "", _row(HEADINGS), _row(["---"] * len(HEADINGS))]
        out += [_row([_bold(cell) for cell in cells(line)]) for line in group]
        out.append("")
    out += ["### What a returned insert guarantees", "", _row(("who", "guarantee", "bulk path"))]
    out.append(_row(["---"] * 3))
    subjects = {line.subject for line in lines}
    for name, store in STORES.items():
        if name in subjects:
            out.append(_row((name, store.guarantee, store.bulk_path)))
    return "\n".join([*out, "", summary(lines), ""])


def guarantees(names: Iterable[str]) -> str:
    """What each store has synced when an insert returns: figures mean little without it."""
    return "\n".join(f"  {name}: {STORES[name].guarantee}" for name in names)


def summary(lines: Sequence[Line]) -> str:
    """How many figures are reached, and which are not."""
    verdicts = [(line, line.reached()) for line in lines if isinstance(line, Figure)]
    reached = sum(verdict is True for _, verdict in verdicts)
    missed = [line for line, verdict in verdicts if verdict is False]
    failed = [line for line in lines if isinstance(line, Absence) and line.failed]
    parts = [f"{reached} of {reached + len(missed)} figures reached"]
    if missed:
        parts.append("missed: " + "; ".join(f"{line.workload}: {line.what}" for line in missed))
    if failed:
        parts.append("failed: " + "; ".join(f"{line.workload} ({line.reason})" for line in failed))
    return ". ".join(parts) + "."


def _by_workload(lines: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    for workload, group in groupby(lines, key=lambda line: line.workload):
        yield workload, list(group)


def _row(row: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _bold(cell: str) -> str:
    return f"**{cell}**" if cell in ("MISS", "failed") else cell
