"""Notices what hangs: runs something in a thread, and if it does not come back, prints where every
thread stands and fails."""

from __future__ import annotations

import faulthandler
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 120.0  # nothing here takes seconds; a loaded machine may make it take some

T = TypeVar("T")


def bounded(act: Callable[[], T], line: str, patience_s: float = PATIENCE_S) -> T:
    """What `act` returns or raises; AssertionError with `line` if it hangs."""
    done: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            done.append((act(), None))
        except BaseException as error:  # handed to the caller
            done.append((None, error))

    thread = threading.Thread(target=run, name="watched", daemon=True)
    thread.start()
    thread.join(patience_s)
    if not done:
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        raise AssertionError(f"{line}: hangs")
    result, error = done.pop()
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
