"""Any sequence of operations, against a dict of versions, on a disk that loses power.

For longer: tests/stress/model.py.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.file_rules import FileRules
from tests.model.read_rules import ReadRules
from tests.model.write_rules import WriteRules


class DatabaseMachine(WriteRules, FileRules, ReadRules):
    """Everything that a caller may do, in any order."""


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        DatabaseMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_database_answers_as_a_dict_of_versions() -> None:
    run(examples=150, steps=50)
