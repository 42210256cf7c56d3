"""Coverage-guided fuzzing of one parser with atheris, which `make test` does not need: the campaign
of tests/stress/fuzz.py runs this in a process of its own if atheris can be imported.

    python -m tests.fuzz.coverage log <an empty directory> -max_total_time=60
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import atheris  # type: ignore[import-not-found,unused-ignore]

with atheris.instrument_imports(include=["engramdb"]):
    from tests.fuzz.parsers import PARSERS, seeds


def main(parser: str, corpus: str, *options: str) -> None:
    """Fuzz until the time given to libFuzzer is over; that ends the process. The directory is for
    the inputs that have reached something new."""
    warnings.simplefilter("ignore", RuntimeWarning)
    for number, data in enumerate(seeds(parser)):
        Path(corpus, str(number)).write_bytes(data)
    read = PARSERS[parser]

    def once(data: bytes) -> None:
        try:
            read(data)
        except BaseException:
            line = f"tests.fuzz.parsers.PARSERS[{parser!r}](bytes.fromhex('{data.hex()}'))"
            print(f"FAILED {line}", flush=True)
            raise

    atheris.Setup([sys.argv[0], *options, corpus], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
