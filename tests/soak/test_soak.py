"""A small soak: each part at a hundredth of its size or less."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.parts import Broken, Meter
from tests.soak.run import PARTS, run_part

SIZES = {
    "one_memory": 10_000,
    "in_bulk": 100_000,
    "openings": 160,
    "looks": 800,
    "rewriting": 3_000,
    "vectors": 2**23,
    "payloads": 2**23,
}


@pytest.mark.parametrize("name", PARTS)
def test_a_small_soak(name: str) -> None:
    figures, failure = run_part(name, SIZES[name], 1)
    assert failure is None, failure
    assert len(figures) > 2


def test_a_leak_is_found(tmp_path: Path) -> None:
    meter, kept = Meter(), []
    for _ in range(40):
        kept.append((tmp_path / "leak").open("w"))
        meter.sample()
    with pytest.raises(Broken, match="descriptors grow"):
        meter.figures("leak", 40)
    for file in kept:
        file.close()


def test_growing_memory_is_found() -> None:
    meter, kept = Meter(), []
    for _ in range(40):
        kept.append(bytearray(b"x") * 2**23)  # much, beside what the other tests have left
        meter.sample()
    with pytest.raises(Broken, match="memory grows"):
        meter.figures("growth", 40)


def test_a_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(directory: Path, size: int, seed: int) -> None:
        raise Broken("for example")

    monkeypatch.setitem(PARTS, "looks", (broken, 1, 1))
    _, failure = run_part("looks", 17, 4)
    assert failure is not None and failure.startswith("python -m tests.soak looks 17 4  # ")
    assert "\n" not in failure
