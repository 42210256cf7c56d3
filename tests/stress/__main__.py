"""python -m tests.stress --minutes 60: see runner.py."""

from __future__ import annotations

import sys

from tests.stress.runner import main

if __name__ == "__main__":  # the processes that it starts look for its functions by module
    sys.exit(main())
