"""How the processes talk: lines of JSON over pipes, and counters in shared memory.

A message is one write of less than PIPE_BUF bytes, which is never torn, not even by SIGKILL.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

THREADS_MAX = 4
_STOP = THREADS_MAX  # the slot after those of the threads
_ACKNOWLEDGED = _STOP + 1


class Board:
    """Shared by a process and those it forks: how much each thread has asked for, its last commit
    that was acknowledged, and whether to stop. Each slot has one writer at a time."""

    def __init__(self) -> None:
        self._slots = np.frombuffer(mmap.mmap(-1, 4096), np.uint64)

    def count(self, thread: int) -> None:
        """This thread is about to ask for one commit more."""
        self._slots[thread] += np.uint64(1)

    def acknowledge(self, thread: int, seq: int) -> None:
        """A call of this thread has returned: this commit is there."""
        self._slots[_ACKNOWLEDGED + thread] = seq

    @property
    def acknowledged(self) -> int:
        """The last commit that is certain."""
        return int(self._slots[_ACKNOWLEDGED : _ACKNOWLEDGED + THREADS_MAX].max())

    @property
    def asked(self) -> int:
        """By all threads of all writers that there were."""
        return int(self._slots[:THREADS_MAX].sum())

    @property
    def stopped(self) -> bool:
        """Whether everybody is to go."""
        return bool(self._slots[_STOP])

    def stop(self) -> None:
        """Everybody is to go."""
        self._slots[_STOP] = 1


class Child:
    """A forked process and the pipe on which it reports."""

    def __init__(self, work: Callable[[int], None]) -> None:
        """`work` gets the descriptor to report on. What it raises is reported as "failed"."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.fd, theirs = os.pipe()
        self._rest = b""
        self.killed = False
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                os.close(self.fd)
                work(theirs)
                status = 0
            except BaseException:
                send(theirs, "failed", traceback.format_exc()[-3000:])
            finally:
                os._exit(status)
        os.close(theirs)

    def messages(self, seconds: float) -> list[list[Any]] | None:
        """What has come, after waiting at most so long for something; None at the end."""
        ready, _, _ = select.select([self.fd], [], [], max(0.0, seconds))
        if not ready:
            return []
        data = os.read(self.fd, 1 << 16)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Reap it. Returns its exit code, negative for a signal. All messages must be read."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        code = os.waitstatus_to_exitcode(status)
        self.killed = code == -signal.SIGKILL
        return code


def send(fd: int, *message: object) -> None:
    """One message, in one write."""
    data = json.dumps(message).encode() + b"\n"
    assert len(data) <= select.PIPE_BUF
    os.write(fd, data)


def deadline_in(seconds: float) -> Callable[[], float]:
    """A function that tells how many seconds are left."""
    end = time.monotonic() + seconds
    return lambda: end - time.monotonic()
