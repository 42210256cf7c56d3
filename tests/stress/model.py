"""The Hypothesis state machine of tests/model, with new examples as long as time lasts."""

from __future__ import annotations

import re
import time
import traceback

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.test_database_state_machine import DatabaseMachine
from tests.stress.outcome import Outcome

STEPS = 60
EXAMPLES = 25  # between two looks at the clock


def run_round(number: int) -> int:
    """The examples that a number stands for: the same each time. How many steps were taken; raises
    whatever a wrong answer raises, after Hypothesis has made it as short as it can."""
    taken = 0

    class Counted(DatabaseMachine):
        def check_invariants(self, *arguments: object, **named: object) -> None:
            nonlocal taken
            taken += 1
            super().check_invariants(*arguments, **named)

    run_state_machine_as_test(
        seed(number)(Counted),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    return taken


def campaign(seconds: float, seed: int) -> Outcome:
    """Rounds of 25 examples of up to 60 steps."""
    end = time.monotonic() + seconds
    rounds = steps = 0
    failures: list[str] = []
    while time.monotonic() < end:
        number = seed * 1_000_000 + rounds
        rounds += 1
        try:
            steps += run_round(number)
        except Exception as error:
            failures.append(line_of(number, error))
    figures: dict[str, int | float | str] = {
        "examples": rounds * EXAMPLES,
        "steps, each with all invariants": steps,
        "wrong answers": len(failures),
    }
    return Outcome(figures, failures)


def line_of(number: int, error: Exception) -> str:
    """What reproduces a failure, and where it was."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    told = re.sub(r"\s+", " ", repr(error))[:200]
    command = f'python -c "from tests.stress.model import *; run_round({number})"'
    return f"{command}  # {told} at {where.filename.rpartition('/')[2]}:{where.lineno}"
