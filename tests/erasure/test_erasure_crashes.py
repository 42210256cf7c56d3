"""A power cut in the middle of an erasure."""

from __future__ import annotations

import random

import pytest

from tests.erasure.crashes import OPTIONS, check_crashes, make
from tests.erasure.states import NAMED


@pytest.mark.parametrize("name", NAMED)
def test_all_or_nothing(name: str) -> None:
    options = sorted(NAMED).index(name) % len(OPTIONS)
    disk, secret = make(1, NAMED[name], options)
    count, problems = check_crashes(disk, secret, random.Random(name))
    assert not problems, problems[0]
    assert count > 5
    secret.db.close()


@pytest.mark.parametrize("seed", range(6))
def test_all_or_nothing_in_random_lives(seed: int) -> None:
    disk, secret = make(seed, None, seed % len(OPTIONS))
    _, problems = check_crashes(disk, secret, random.Random(seed))
    assert not problems, f"make({seed}, None, {seed % len(OPTIONS)}): {problems[0]}"
    secret.db.close()
