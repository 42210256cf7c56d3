"""Durability bugs on purpose: each must be caught, or the suite would not notice it in the engine.

The list is in `mutants`. A suite that passes is worth what it would have noticed.
"""

from __future__ import annotations

import pytest

from tests.crash.mutants import MUTANTS, Mutant

MUTANTS_MIN = 60


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    hunt = mutant.catcher()
    mutant.patch(monkeypatch)
    assert hunt(), f"{mutant.name} was not caught"


def test_the_list_is_long_and_names_each_bug_once() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= MUTANTS_MIN
