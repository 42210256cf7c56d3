"""One forgery, checked: what may come out of it, how long it may take, how much memory it may ask.

Memory: while a database is opened, read and written again, the peak (tracemalloc, which numpy tells
of its arrays) stays below BYTES_AT_LEAST + BYTES_PER_FILE_BYTE for each byte of its files. The
constant is what an empty database and the largest compressed block of a forgery (4 MiB of zeros,
decompressed, and once more while it is compared) take. The factor is what rows cost: a row takes a
byte and less in a file, and some 20 numbers of 8 bytes while it is merged. What is refused must be
refused before it is allocated: a forged count asks for exabytes, not for twice too much.

Numpy's warnings about numbers that overflow or are none are no errors: forged vectors are not
numbers that anybody saved.
"""

from __future__ import annotations

import gc
import signal
import threading
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from types import FrameType
from typing import Final, NamedTuple

from tests.fuzz.databases import forged
from tests.fuzz.reading import exercise
from tests.fuzz.samples import disk_of

BYTES_AT_LEAST: Final = 16 * 2**20
BYTES_PER_FILE_BYTE: Final = 256
HANG_S: Final = 120  # an input takes 0.1 s; the machine may be busy


class Hang(Exception):
    """It has not come back."""


class Checked(NamedTuple):
    """What one forgery did: errors of EngramDB by type; the bytes of its files; the peak of memory,
    0 if it was not traced."""

    errors: Counter[str]
    file_bytes: int
    peak_bytes: int


@contextmanager
def no_hang(seconds: int = HANG_S) -> Iterator[None]:
    """Raises Hang in the middle of what takes longer. Only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def alarm(number: int, frame: FrameType | None) -> None:
        raise Hang(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def traced(peak: list[int]) -> Iterator[None]:
    """Appends the peak of memory above what there was, in bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield
        peak.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()


def check(kind: str, name: str, seed: int, *, trace: bool = False) -> Checked:
    """Forge a sample, open it, do everything with it. Raises what escapes; AssertionError if it
    took too much memory."""
    files = forged(Random(f"{kind}/{name}/{seed}"), name, kind)
    disk = disk_of(files)
    file_bytes = sum(map(len, files.values()))
    peak: list[int] = []
    with warnings.catch_warnings(), no_hang():
        warnings.simplefilter("ignore", RuntimeWarning)
        if trace:
            with traced(peak):
                errors = exercise(disk).errors
        else:
            errors = exercise(disk).errors
    allowed = BYTES_AT_LEAST + BYTES_PER_FILE_BYTE * file_bytes
    assert not peak or peak[0] <= allowed, f"{peak[0]} bytes of memory for files of {file_bytes}"
    return Checked(errors, file_bytes, peak[0] if peak else 0)


def failure_of(line: str, work: Callable[[], object]) -> str:
    """Do something; "" if nothing escapes, else one line that does it again and what escaped."""
    try:
        work()
    except Exception as error:
        return f"{line}  # {type(error).__name__}: {error}".replace("\n", " ")
    return ""
