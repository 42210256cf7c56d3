"""Runs the campaigns: python -m tests.stress --minutes 60

Every campaign gets its share of the time; what is left goes to crash states, on all processes.
Figures are printed at the end, and for each violation one line that reproduces it. The exit code is
1 if there is one.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import sys
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from tests.stress.outcome import Outcome

SHARES = {  # of the time of all processes together; crash_states has the rest
    "soak": 0.12,
    "kills": 0.10,
    "damage": 0.09,
    "repair": 0.06,
    "faults": 0.07,
    "fuzz": 0.05,
    "model": 0.04,
    "metamorphic": 0.04,
    "histories": 0.03,
    "erasure": 0.02,
}
LAST = "crash_states"


def run(name: str, seconds: float, seed: int) -> tuple[str, float, Outcome]:
    """One campaign, in this process: its name, how many seconds it took, what it found."""
    started = time.monotonic()
    outcome = importlib.import_module(f"tests.stress.{name}").campaign(seconds, seed)
    return name, time.monotonic() - started, outcome


def run_all(
    names: list[str], minutes: float, seed: int, processes: int
) -> dict[str, tuple[float, list[Outcome]]]:
    """The campaigns of these names: the seconds and the outcomes of each."""
    deadline = time.monotonic() + 60 * minutes
    total = 60 * minutes * processes
    scale = 1.0 if LAST in names else 1 / sum(SHARES[name] for name in names)
    queue = [(name, SHARES[name] * total * scale) for name in SHARES if name in names]
    done: dict[str, tuple[float, list[Outcome]]] = {}
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        running: set[Future[tuple[str, float, Outcome]]] = set()
        seeds = iter(range(seed, seed + 10**6))
        while queue or running or (LAST in names and time.monotonic() < deadline - 1):
            while len(running) < processes:
                if queue:
                    running.add(pool.submit(run, *queue.pop(0), next(seeds)))
                elif LAST in names and (left := deadline - time.monotonic()) > 1:
                    running.add(pool.submit(run, LAST, left, next(seeds)))
                else:
                    break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                name, seconds, outcome = future.result()
                say(name, seconds, [outcome])
                before, outcomes = done.get(name, (0.0, []))
                done[name] = before + seconds, [*outcomes, outcome]
    return done


def summed(outcomes: Iterable[Outcome]) -> dict[str, int | float | str]:
    """The figures of several runs of one campaign: numbers are added up."""
    figures: dict[str, int | float | str] = {}
    for outcome in outcomes:
        for name, value in outcome.figures.items():
            before = figures.get(name)
            if isinstance(before, int | float) and isinstance(value, int | float):
                value = before + value
            figures[name] = value
    return figures


def say(name: str, seconds: float, outcomes: list[Outcome]) -> None:
    """Print what one campaign has found."""
    print(f"\n{name} ({seconds / 60:.1f} minutes of one process)")
    for what, value in summed(outcomes).items():
        print(f"  {what:<44} {value if isinstance(value, str) else format(value, ',')}")
    for outcome in outcomes:
        for failure in outcome.failures:
            print(f"  VIOLATION: {failure}")
    sys.stdout.flush()


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long, about (60)")
    parser.add_argument("--only", default="", help=f"of {', '.join([*SHARES, LAST])}")
    parser.add_argument("--seed", type=int, default=time.time_ns() // 10**9 % 10**6)
    parser.add_argument("--processes", type=int, default=2, help="at once (2)")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else [*SHARES, LAST]
    unknown = set(names) - {*SHARES, LAST}
    if unknown or arguments.minutes <= 0 or arguments.processes < 1:
        parser.error(f"unknown campaigns: {', '.join(sorted(unknown))}" if unknown else "time")
    print(f"{arguments.minutes:g} minutes, seed {arguments.seed}: {', '.join(names)}", flush=True)
    done = run_all(names, arguments.minutes, arguments.seed, arguments.processes)
    violations = sum(len(o.failures) for _, outcomes in done.values() for o in outcomes)
    print("\nALL TOGETHER")
    for name, (seconds, outcomes) in done.items():
        say(name, seconds, outcomes)
    print(f"\n{violations} violations")
    return 1 if violations else 0
