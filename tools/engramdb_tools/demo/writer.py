"""The process that is killed: it saves the readings of a thermometer, as fast as it can.

Run as `python -m engramdb_tools.demo.writer DIRECTORY`. It writes one line "number id" to standard
output after each save() that returned, which is to say: after each acknowledgement. It never ends
by itself.
"""

from __future__ import annotations

import os
import sys
from itertools import count

from engramdb import Database, MemoryNode
from engramdb_tools.demo.story import embed


def reading(number: int) -> MemoryNode:
    """The memory of one reading; the same number gives the same text and vector everywhere."""
    degrees = 9 + (number * 37 % 61) / 10
    text = f"Shed thermometer, reading {number}: {degrees:.1f} degrees."
    node = MemoryNode(embed([text])[0])
    node.set_attribute("text", text)
    node.set_attribute("kind", "reading")
    node.set_attribute("number", number)
    return node


def main() -> None:
    with Database.file_based(sys.argv[1]) as db:
        for number in count(1):
            memory_id = db.save(reading(number))
            os.write(sys.stdout.fileno(), f"{number} {memory_id}\n".encode())


if __name__ == "__main__":
    main()
