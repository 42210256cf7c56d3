"""The campaign finds a wrong answer, and the line that it prints reproduces it."""

from __future__ import annotations

import pytest

from engramdb.lsm import Snapshot
from tests.stress import model
from tests.stress.model import campaign, run_round


def test_a_wrong_answer_is_found_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(snapshot: Snapshot, record_class: int) -> int:
        found: int = right(snapshot, record_class)
        return found - (found > 2)

    right = Snapshot.count
    monkeypatch.setattr(model, "EXAMPLES", 5)
    monkeypatch.setattr(Snapshot, "count", count)
    outcome = campaign(0.001, 7)
    assert outcome.figures["wrong answers"] == 1
    (line,) = outcome.failures
    assert "run_round(7000000)" in line and "\n" not in line
    with pytest.raises(AssertionError):
        run_round(7_000_000)


def test_without_one_there_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "EXAMPLES", 5)
    outcome = campaign(0.001, 8)
    assert outcome.failures == [] and outcome.figures["examples"] == 5
