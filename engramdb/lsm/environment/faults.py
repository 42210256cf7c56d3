"""Failures to inject into a simulated disk: which call fails, with what, and what it still did."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from engramdb.lsm.environment.namespace import failure

ANY_CALL: Final = "*"


@dataclass(slots=True)
class Fault:
    """The `nth` call of `kind` from now on fails (1 is the next), and if `sticky` each one after.

    kind      the name of the method, of Environment or of File ("write_at", "sync_data", "rename",
              ...), or ANY_CALL
    error     the errno
    partial   of write_at: so many bytes are written before the error
    happens   of a change of names, a sync or a truncation: it happens, and the error is reported
              nevertheless
    drop      of a file's sync: the pending pages are dropped, so that reads give the old content
              again; otherwise reads still give the new content, but no later sync makes it durable
    raises    raise this instead of an OSError: what a signal handler may throw out of any call, the
              only way in which a signal is noticed (Python repeats a call that EINTR has ended)
    fired     how many calls it failed
    """

    kind: str
    nth: int = 1
    error: int = errno.EIO
    sticky: bool = False
    partial: int = 0
    happens: bool = False
    drop: bool = True
    raises: type[BaseException] | None = None
    fired: int = 0
    seen: int = 0

    def is_due(self, kind: str) -> bool:
        """Count a call; whether it is to fail."""
        if self.kind not in (kind, ANY_CALL):
            return False
        self.seen += 1
        if self.seen == self.nth or (self.sticky and self.seen > self.nth):
            self.fired += 1
            return True
        return False

    def exception(self, *paths: str) -> BaseException:
        """What the call raises."""
        if self.raises is not None:
            return self.raises(f"thrown out of a call of {self.kind}")
        return failure(self.error, *paths)
