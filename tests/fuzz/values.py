"""How single values are forged: numbers, stretches of bytes, MessagePack, JSON."""

from __future__ import annotations

import copy
from random import Random
from typing import Any, Final

EDGES: Final = tuple(
    sorted(
        {0, 1, 2, 3, 5, 7, 8, 63, 64, 65, 127, 128, 254, 255, 256, 257, 65_535, 65_536}
        | {2**bits + step for bits in (24, 31, 32, 40, 52, 57, 62, 63) for step in (-1, 0, 1)}
        | {2**64 - 1, 2**64 - 2, 2**64 - 65}
    )
)


def number(random: Random, was: int, bits: int, near: tuple[int, ...] = ()) -> int:
    """Another unsigned number of so many bits. `near` are numbers that mean something here."""
    way = random.randrange(6)
    if way == 0:
        made = was + random.choice((-1, 1))
    elif way == 1:
        made = was ^ 1 << random.randrange(bits)
    elif way == 2 and near:
        made = random.choice(near) + random.choice((-1, 0, 0, 1))
    elif way == 3:
        made = was * 2 if random.randrange(2) else was // 2
    elif way == 4:
        made = random.getrandbits(bits)
    else:
        made = random.choice(EDGES)
    return made % 2**bits


def stretch(random: Random, data: bytes, tokens: tuple[bytes, ...] = ()) -> bytes:
    """Bytes with a stretch changed, inserted, cut out, doubled or moved, or without their end."""
    if not data:
        return random.randbytes(random.randrange(1, 40))
    start = random.randrange(len(data))
    stop = min(len(data), start + random.choice((1, 1, 2, 4, 8, 16, len(data))))
    head, middle, tail = data[:start], data[start:stop], data[stop:]
    way = random.randrange(9)
    if way == 0:
        return head + random.randbytes(len(middle)) + tail
    if way == 1:
        return head + random.choice((b"\0", b"\xff", b"\x80")) * len(middle) + tail
    if way == 2:
        return head + tail
    if way == 3:
        return head
    if way == 4:
        return head + middle * random.choice((2, 2, 3, 9)) + tail
    if way == 5:
        return tail + middle + head
    if way == 6 and tokens:
        return head + random.choice(tokens) + (tail if random.randrange(2) else middle + tail)
    if way == 7:
        at = random.choice((1, 2, 4, 8))
        start -= start % at
        word = data[start : start + at]
        made = number(random, int.from_bytes(word, "little"), 8 * at)
        return data[:start] + made.to_bytes(at, "little")[: len(word)] + data[start + at :]
    return head + random.randbytes(random.randrange(1, 9)) + middle + tail


PACKED: Final = (
    b"\xc0", b"\xc1", b"\xc2", b"\x90", b"\x80", b"\xa0",
    b"\xdc\xff\xff", b"\xdc\x00\x02", b"\xdd\xff\xff\xff\xff", b"\xdd\x00\x01\x00\x00",
    b"\xde\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xda\xff\xff",
    b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xc7\x10\x01", b"\xd8\x01",
    b"\xd8\x01" + b"\xff" * 16, b"\xd8\x01" + b"\xff" * 7 + b"\x7f" + bytes(8),
    b"\xd8\x01" + bytes(8) + b"\xff" * 7 + b"\x7f", b"\xd8\x02" + bytes(16), b"\xd4\x01\x00",
    b"\xd6\xff\xff\xff\xff\xff", b"\xd7\xff" + b"\xff" * 8, b"\xd7\xff" + bytes(8),
    b"\xc7\x0c\xff" + b"\0\0\0\0" + b"\x7f" * 8, b"\xc7\x0c\xff" + b"\xff" * 12,
    b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xcb\x7f\xf8" + bytes(6),
    b"\xa2\xff\xfe", b"\xa3\xed\xa0\x80", b"\x91" * 40, b"\x91" * 2000, b"\x81\xa1a" * 40,
    b"\x81\xa1a" * 1500, b"\x81\x91\x80\x01", b"\x81\x80\x01", b"\x81\x01\x02", b"\x81\xc0\x02",
    b"\x81" * 1500, b"\x81\xa0\x02", b"\x81\xd8\x01" + bytes(16) + b"\x02", b"\xca\x7f\x80\x00\x00",
)  # fmt: skip


JSON: Final = (
    b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b'"\\ud800"', b"\xff", b"1e999", b"-0", b"[]",
)  # fmt: skip


def packed(random: Random, data: bytes) -> bytes:
    """MessagePack with something changed."""
    for _ in range(random.choice((1, 1, 2, 3))):
        data = stretch(random, data, PACKED)
    return data


_ODD: Final[tuple[Any, ...]] = (
    None, True, False, "", "x", "\0", "a" * 300, [], {}, [[]], 0.5, 1e300, -1, -(2**63), -(2**70),
    2**64, 2**70, "0" * 31, "zz" * 16, "G" * 32, "ab" * 16, " " * 32, ["x"], {"a": 1}, "0" * 40,
)  # fmt: skip


def tree(random: Random, root: Any, near: tuple[int, ...]) -> None:
    """Change one place of a JSON value, in place."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for name, child in items:
            places.append((node, name))
            if isinstance(child, dict | list):
                walk(child)

    walk(root)
    node, name = random.choice(places)
    was = node[name]
    way = random.randrange(8)
    if way == 0:
        node[name] = copy.deepcopy(random.choice(_ODD))
    elif way == 1:
        node.pop(name)
    elif way == 2 and isinstance(node, list):
        node.insert(random.randrange(len(node) + 1), copy.deepcopy(was))
    elif way == 3 and isinstance(node, list):
        random.shuffle(node)
    elif way == 4:
        holder, place = random.choice(places)
        node[name] = copy.deepcopy(holder[place])
    elif isinstance(was, bool) or not isinstance(was, int):
        node[name] = copy.deepcopy(random.choice(_ODD))
    else:
        made = number(random, was % 2**64, 64, near)
        node[name] = -made if random.randrange(12) == 0 else made
