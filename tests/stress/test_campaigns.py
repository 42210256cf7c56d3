"""The campaigns of `make stress` are there, and their runner adds up what they find."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stress.outcome import Outcome
from tests.stress.runner import LAST, SHARES, run, summed


@pytest.mark.parametrize("name", [*SHARES, LAST])
def test_there_is_such_a_campaign(name: str) -> None:
    campaign = importlib.import_module(f"tests.stress.{name}").campaign
    assert list(inspect.signature(campaign).parameters) == ["seconds", "seed"]
    assert campaign.__doc__


@pytest.mark.parametrize("name", ["crash_states", "fuzz"])
def test_a_campaign_counts(name: str) -> None:
    _, _, outcome = run(name, 1.0, 7)
    assert outcome.failures == []
    assert any(isinstance(value, int | float) and value > 0 for value in outcome.figures.values())


def test_figures_are_added_up() -> None:
    assert summed([Outcome({"states": 2, "of": "3"}), Outcome({"states": 5, "of": "3"})]) == {
        "states": 7,
        "of": "3",
    }


def test_shares_are_a_whole() -> None:
    assert 0.3 < 1 - sum(SHARES.values()) < 1


def test_the_command_runs_campaigns_beside_each_other() -> None:
    command = [sys.executable, "-m", "tests.stress", "--minutes", "0.05", "--seed", "3"]
    done = subprocess.run(
        [*command, "--only", "erasure,histories"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "histories (" in done.stdout and "crash states scanned" in done.stdout
    assert done.stdout.endswith("\n0 violations\n")


def test_an_unknown_campaign_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress", "--only", "nothing"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2 and "unknown campaigns: nothing" in done.stderr
