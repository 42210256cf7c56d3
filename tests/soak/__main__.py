"""Runs one part of a soak: python -m tests.soak PART SIZE SEED [DIRECTORY]"""

from __future__ import annotations

import sys

from tests.soak.run import PARTS, run_part


def main() -> int:
    if len(sys.argv) < 4 or sys.argv[1] not in PARTS:
        print(f"{__doc__}\nparts: {', '.join(PARTS)}")
        return 2
    name, size, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    figures, failure = run_part(name, size, seed, sys.argv[4] if len(sys.argv) > 4 else None)
    for key, value in figures.items():
        print(f"{key:50} {value:,}" if isinstance(value, int) else f"{key:50} {value}")
    if failure:
        print(failure)
    return bool(failure)


if __name__ == "__main__":
    sys.exit(main())
