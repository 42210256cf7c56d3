"""Every workload of the benchmark runs and yields a figure. No figure is judged here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_workload_yields_a_figure(tmp_path: Path) -> None:
    from benchmarks.workloads import WORKLOADS

    report = tmp_path / "report.md"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--peers", "none"]
        + ["--markdown", str(report), "--directory", str(tmp_path)],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    sections = report.read_text(encoding="utf-8").split("\n### ")
    figures = {
        section.splitlines()[0]: [line for line in section.splitlines() if "| EngramDB |" in line]
        for section in sections
    }
    for name in WORKLOADS:
        assert name == "disk" or figures[name], f"{name} has no figure of EngramDB:\n{done.stdout}"
    assert [path.name for path in tmp_path.iterdir()] == [report.name], "it tidies up"
