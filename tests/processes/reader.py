"""A process that follows the writer, whoever that is at the moment, and checks all that it sees.

A commit that was acknowledged is seen, and none that was not asked for. An open database never goes
back. One that is opened anew while a writer recovers may: without a writer every sound record is
shown, and a recovering writer has yet to say that it will show the last ones.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress

from engramdb import Database, HistoryUnavailableError, InvalidInputError
from tests.processes.contents import Violation, state_of
from tests.processes.pipes import Board, send

REMEMBERED = 64  # moments that are looked at again
REOPENED_EVERY = 40  # looks
LOOKING_BACK = 0.3  # how often that is done, for each look at the present
PAUSE_S_MAX = 0.02  # between looks: the writer needs the processor too


def read(path: str, seed: int, board: Board, fd: int) -> None:
    """Until it is told to stop, or killed. Reports each state that it has seen."""
    rng = random.Random(seed)
    known: dict[int, int] = {}
    while not board.stopped:
        certain = board.acknowledged
        try:
            db = Database.open(path, read_only=True)
        except InvalidInputError:  # nobody has made it yet
            if known:
                raise
            time.sleep(0.001)
            continue
        last = 0
        with db:
            seq = db.last_seq
            for _ in range(rng.randrange(REOPENED_EVERY)):
                if not max(last, certain) <= seq <= board.asked:
                    raise Violation(
                        f"commit {seq} is seen, after {last}; {certain} was acknowledged, "
                        f"{board.asked} asked for"
                    )
                if seq != last or not known:
                    digest = state_of(db).digest()
                    if known.setdefault(seq, digest) != digest:
                        raise Violation(f"commit {seq} is not what it was")
                    send(fd, "saw", seq, digest)
                if rng.random() < LOOKING_BACK:
                    _look_back(db, known, rng)
                last = seq
                time.sleep(rng.uniform(0, PAUSE_S_MAX))
                if board.stopped:
                    break
                certain = board.acknowledged
                seq = db.refresh()


def _look_back(db: Database, known: dict[int, int], rng: random.Random) -> None:
    while len(known) > REMEMBERED:
        del known[next(iter(known))]
    seqs = [seq for seq in known if seq <= db.last_seq]
    if not seqs:
        return
    seq = rng.choice(seqs)
    with suppress(HistoryUnavailableError), db.as_of(seq) as past:  # a policy may drop it
        if state_of(past).digest() != known[seq]:
            raise Violation(f"commit {seq} looks otherwise when it is looked back at")
