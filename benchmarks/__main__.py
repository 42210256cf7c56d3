"""The command line: `python -m benchmarks [--rows N] [--only NAME,...] [--peers NAME,...|none]
[--million] [--quick] [--markdown FILE] [--data DIR] [--directory DIR]`."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace

# No peer may report home: said before any of them is imported, and inherited by child processes.
os.environ.update(ANONYMIZED_TELEMETRY="False", DO_NOT_TRACK="1", OTEL_SDK_DISABLED="true")
os.environ.setdefault("LANCE_LOG", "error")

from benchmarks import host, table
from benchmarks.bench import Bench, Scale
from benchmarks.corpus import Corpus
from benchmarks.figures import Absence, Line
from benchmarks.stores import PEERS, STORES, Engram
from benchmarks.workloads import WORKLOADS

PEER_NAMES = {peer.name.lower().replace(" ", "-"): peer.name for peer in PEERS}


def main(arguments: list[str] | None = None) -> int:
    """0 if everything could be measured, reached or not; 1 if a workload failed."""
    options = _parser().parse_args(arguments)
    scale = Scale().quick() if options.quick else Scale()
    if options.rows:
        scale = replace(scale, rows=options.rows, few_rows=min(scale.few_rows, options.rows))
    scale = replace(scale, with_million=options.million)
    bench = Bench(scale, Corpus(directory=options.data), options.peers, options.directory)
    try:
        preamble = _preamble(bench, options.quick)
        print("\n".join(preamble))
        print("\nwhat a returned insert guarantees:")
        print(table.guarantees(store.name for store in bench.contestants))
        lines = [line for name in options.only for line in _workload(bench, name)]
    finally:
        bench.close()
    preamble.append(f"load average at the end: {host.load_average()}")
    print(f"\n{preamble[-1]}\n{table.summary(lines)}")
    if options.markdown:
        with open(options.markdown, "w", encoding="utf-8") as file:
            file.write(table.markdown(lines, preamble))
    return int(any(isinstance(line, Absence) and line.failed for line in lines))


def _workload(bench: Bench, name: str) -> list[Line]:
    """Run one, and print its block at once."""
    bench.say(f"{name} ...")
    started = time.perf_counter()
    lines = list(_measure(bench, name))
    print(f"\n{table.text(lines)}", flush=True)
    bench.say(f"{name}: {time.perf_counter() - started:.0f} s")
    return lines


def _measure(bench: Bench, name: str) -> Iterator[Line]:
    """The lines of one workload; a failure becomes a line, and the others still run."""
    try:
        yield from WORKLOADS[name](bench)
    except Exception as error:
        bench.say(traceback.format_exc())
        bench.trouble(Engram.name, error)
    for subject, reason in {**bench.absent, **bench.troubles}.items():
        if name != "disk":
            yield Absence(name, subject, reason, failed=subject == Engram.name)
    bench.troubles.clear()


def _preamble(bench: Bench, quick: bool) -> list[str]:
    versions = [f"{store.name} {store.version()}" for store in bench.contestants]
    lines = [
        host.machine(),
        f"load average at the begin: {host.load_average()}",
        f"file system {host.file_system(bench.directory)}",
        f"data: {bench.corpus.description}; about 200 bytes of text and fields",
        "versions: " + ", ".join([*versions, STORES["bare files"].version()]),
        "ratio: the figure divided by the yardstick named, both measured in this run",
    ]
    if host.is_busy():
        lines.append("OTHER PROGRAMS ARE RUNNING: the figures are disturbed, ratios less so")
    if quick:
        lines.insert(0, "--quick: a smoke test; its figures say nothing")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, help="rows of the main workloads (100,000)")
    parser.add_argument(
        "--only", type=_workloads, default=list(WORKLOADS), help=", ".join(WORKLOADS)
    )
    parser.add_argument(
        "--peers",
        type=_peers,
        default=list(PEER_NAMES.values()),
        help=f"none, or some of {', '.join(PEER_NAMES)}; all that are installed otherwise",
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test of every workload")
    parser.add_argument("--markdown", metavar="FILE", help="write the table there, too")
    parser.add_argument("--million", action="store_true", help="search among a million rows, too")
    parser.add_argument(
        "--data", "--locomo", metavar="DIR", help="draw around turns.npy, ask questions.npy"
    )
    parser.add_argument(
        "--directory", metavar="DIR", help="where to write (the system's temporary directory)"
    )
    return parser


def _workloads(text: str) -> list[str]:
    return _chosen(text, {name: name for name in WORKLOADS}, "workload")


def _peers(text: str) -> list[str]:
    return [] if text == "none" else _chosen(text, PEER_NAMES, "peer")


def _chosen(text: str, known: dict[str, str], what: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no {what} {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names]


if __name__ == "__main__":
    sys.exit(main())
