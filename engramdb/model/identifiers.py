"""Memory ids: 16-byte keys inside, canonical UUID text outside.

A new key is a UUIDv7 (RFC 9562): keys sort by the time they were made, so that what was saved
together lies together on disk.

    48 bits  milliseconds since the epoch
     4 bits  version, 7
    12 bits  random part, upper bits
     2 bits  variant, binary 10
    62 bits  random part, lower bits

Keys are monotone within a process (method 2 of section 6.2): the first key of a millisecond has a
fresh random part, every further one is its predecessor plus one. Seen without version and variant,
a key is a 122-bit number, and that number is the whole state. If the clock steps back, or the
random part runs over, the number simply goes on counting.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.errors import InvalidInputError

KEY_BYTES: Final = 16

_RANDOM_BITS: Final = 74
_LOW_BITS: Final = 62
_LOW_MASK: Final = (1 << _LOW_BITS) - 1
_VARIANT: Final = 0b10 << _LOW_BITS
_FORMAT_IN_BULK_MIN: Final = 24  # from here on numpy is faster than one key after the other

_HEX_PAIRS: Final = np.frombuffer(bytes(range(256)).hex().encode(), dtype="<u2")

_lock = threading.Lock()
_last = 0  # the 122-bit number of the last key that was made


def parse_id(text: object, argument: str = "memory_id") -> bytes:
    """The key of an id: a UUID as 36-character text, as 32 hex digits, or as a uuid.UUID.

    Raises InvalidInputError naming `argument` for anything else.
    """
    if isinstance(text, str):
        length = len(text)
        if length == 36 and text[8:24:5] == "----":
            digits = text.replace("-", "")
        elif length == 32:
            digits = text
        else:
            raise _not_an_id(text, argument)
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            raise _not_an_id(text, argument) from None
        if len(key) != KEY_BYTES:  # fromhex skips white space; hyphens in excess fall short too
            raise _not_an_id(text, argument)
        return key
    if isinstance(text, uuid.UUID):
        return text.bytes
    raise _not_an_id(text, argument)


def format_key(key: bytes) -> str:
    """The canonical text of a key: 36 characters, lower case."""
    pairs = key.hex("-", 2)  # eight groups of four; only four of the seven hyphens stay
    return f"{pairs[:4]}{pairs[5:29]}{pairs[30:34]}{pairs[35:]}"


def format_keys(keys: list[bytes]) -> list[str]:
    """The canonical texts of many keys, in their order."""
    count = len(keys)
    if count < _FORMAT_IN_BULK_MIN:
        return [format_key(key) for key in keys]
    digits = _HEX_PAIRS[np.frombuffer(b"".join(keys), np.uint8)].view(np.uint8).reshape(count, 32)
    text = np.full((count, 36), ord("-"), np.uint8)
    text[:, 0:8] = digits[:, 0:8]
    text[:, 9:13] = digits[:, 8:12]
    text[:, 14:18] = digits[:, 12:16]
    text[:, 19:23] = digits[:, 16:20]
    text[:, 24:36] = digits[:, 20:32]
    joined = text.tobytes().decode("ascii")
    return [joined[start : start + 36] for start in range(0, count * 36, 36)]


def new_key() -> bytes:
    """A new UUIDv7; sorts after every key made before in this process."""
    number = _take(1)
    high = (number >> _RANDOM_BITS) << 16 | 0x7000 | (number >> _LOW_BITS) & 0xFFF
    return (high << 64 | _VARIANT | number & _LOW_MASK).to_bytes(KEY_BYTES, "big")


def new_keys(count: int) -> npt.NDArray[np.uint8]:
    """`count` new keys, (count, 16) uint8, each the successor of the one before."""
    if count < 0:
        raise InvalidInputError("count", f"cannot be negative, got {count}")
    words = np.empty((count, 2), dtype=">u8")
    number, done = _take(count), 0
    while done < count:  # a second round only where the lower 62 bits run over
        low = number & _LOW_MASK
        rows = min(count - done, _LOW_MASK + 1 - low)
        words[done : done + rows, 0] = (
            (number >> _RANDOM_BITS) << 16 | 0x7000 | (number >> _LOW_BITS) & 0xFFF
        )
        words[done : done + rows, 1] = np.arange(rows, dtype=np.uint64) + np.uint64(_VARIANT | low)
        number, done = number + rows, done + rows
    return words.view(np.uint8)


def _take(count: int) -> int:
    """Reserve `count` consecutive numbers and return the first."""
    global _last
    with _lock:
        now_ms = time.time_ns() // 1_000_000
        if now_ms > _last >> _RANDOM_BITS:
            first = now_ms << _RANDOM_BITS | _random_part()
        else:
            first = _last + 1
        _last = first + count - 1
        return first


def _random_part() -> int:
    """73 random bits: the uppermost of 74 stays clear, as room to count within a millisecond."""
    return int.from_bytes(os.urandom(10), "big") & ((1 << (_RANDOM_BITS - 1)) - 1)


def _reseed_in_child() -> None:
    """After fork, parent and child must not count on from the same number. The next millisecond
    keeps the child's keys after everything that the parent had made."""
    global _lock, _last
    _lock = threading.Lock()  # another thread of the parent may have held it
    _last = ((_last >> _RANDOM_BITS) + 1) << _RANDOM_BITS | _random_part()


def _not_an_id(given: object, argument: str) -> InvalidInputError:
    shown = repr(given)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    return InvalidInputError(
        argument,
        f"expected a UUID (36 characters such as 0190b6a4-7e1f-7c3a-9d2b-5f0e8a6c1d42, 32 hex "
        f"digits, or uuid.UUID), got {shown} of type {type(given).__name__}",
    )


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork either
    os.register_at_fork(after_in_child=_reseed_in_child)
