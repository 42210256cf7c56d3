"""The process that reads while another one writes.

Run as `python -m engramdb_tools.demo.reader DIRECTORY`. It says "ready" once it is open. Then, for
each line on standard input, it refreshes, searches for that text and answers with one line of JSON
(an Answer). It ends with its input.
"""

from __future__ import annotations

import os
import sys

import msgspec

from engramdb import Database, EngramError
from engramdb_tools.demo.stage import timed
from engramdb_tools.demo.story import embed, text_of


class Answer(msgspec.Struct):
    """What the reader found, and the seconds from the question to the answer."""

    pid: int
    memories: int
    text: str
    score: float
    seconds: float
    refusal: str = ""  # what happened when the reader tried to write


def main() -> None:
    with Database.open(sys.argv[1], read_only=True) as db:
        print("ready", flush=True)
        for question in sys.stdin:
            (memories, text, score), seconds = timed(_ask, db, question)
            answer = Answer(os.getpid(), memories, text, score, seconds, _try_to_write(db, text))
            print(msgspec.json.encode(answer).decode(), flush=True)


def _ask(db: Database, question: str) -> tuple[int, str, float]:
    db.refresh()
    memory_id, score = db.search_similar(embed([question])[0], limit=1)[0]
    return len(db), text_of(db.load(memory_id)), score


def _try_to_write(db: Database, _text: str) -> str:
    try:
        db.clear_all()
    except EngramError as error:
        return type(error).__name__
    return ""


if __name__ == "__main__":
    main()
