"""The campaigns of `make stress` are there, and their runner adds up what they find."""

from __future__ import annotations

import importlib
import inspect

import pytest

from tests.stress.__main__ import LAST, SHARES, run, run_all, summed
from tests.stress.outcome import Outcome


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


def test_the_runner_runs_campaigns_beside_each_other() -> None:
    done = run_all(["erasure", "histories"], 0.05, 3, 2)
    assert done.keys() == {"erasure", "histories"}
    assert all(not outcome.failures for _, outcomes in done.values() for outcome in outcomes)
