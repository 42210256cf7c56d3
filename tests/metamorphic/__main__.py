"""Reproduces a difference: python -m tests.metamorphic LIST LENGTH SETTING [SETTING ...]"""

from __future__ import annotations

import sys

from tests.metamorphic.run import Comparison
from tests.metamorphic.settings import make_setting


def main() -> int:
    seed, length, *settings = map(int, sys.argv[1:])
    comparison = Comparison(seed, length)
    for setting in settings:
        print(make_setting(setting))
        difference = comparison.add(setting)
        if difference is not None:
            print(difference)
            return 1
    print("no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
