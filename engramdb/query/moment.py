"""Which commit a moment means: a commit's number, an aware datetime, or the name of a tag."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from engramdb.errors import InvalidInputError
from engramdb.model.moments import check_moment

if TYPE_CHECKING:
    from engramdb.lsm import Snapshot, StorageEngine

Moment = datetime | int | str
"""What `as_of` takes: an aware datetime, the number of a commit (0: before the first), a tag."""


class Tag(NamedTuple):
    """A moment that was given a name: the number and the time (UTC) of its last commit."""

    seq: int
    timestamp: datetime


NAME_BYTES_MAX: Final = 256  # UTF-8; at least one byte


def check_name(name: object, argument: str = "name") -> str:
    """The name of a tag, or InvalidInputError."""
    if not isinstance(name, str):
        raise InvalidInputError(argument, f"expected a str, got {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidInputError(argument, f"{name!r:.80} has a lone surrogate") from None
    if not 0 < size <= NAME_BYTES_MAX:
        raise InvalidInputError(
            argument, f"has {size} bytes of UTF-8; a tag has 1 to {NAME_BYTES_MAX}"
        )
    return name


def look_back(
    engine: StorageEngine,
    moment: Moment,
    newest_seq: int,
    argument: str = "as_of",
    *,
    partial: bool = True,
) -> Snapshot:
    """The database as of a moment, which is not after commit `newest_seq`.

    A datetime means the last commit at or before it. With `partial`, what the retention policy has
    left of a moment that it did not keep. Raises InvalidInputError naming `argument` for a commit
    after `newest_seq`, an unknown tag, or anything else; HistoryUnavailableError.
    """
    if isinstance(moment, datetime):
        snapshot = engine.at_time(check_moment(moment, argument), partial=partial)
        if snapshot.seq <= newest_seq:
            return snapshot
        return engine.at(newest_seq, partial=partial)
    return engine.at(_seq_of(engine, moment, newest_seq, argument), partial=partial)


def _seq_of(engine: StorageEngine, moment: object, newest_seq: int, argument: str) -> int:
    if isinstance(moment, str):
        tag = engine.pins().get(moment)
        if tag is None:
            raise InvalidInputError(argument, f"there is no tag {moment!r:.80}; see tags()")
        if tag.seq > newest_seq:
            raise InvalidInputError(
                argument, f"the tag {moment!r:.80} lies after the moment that is looked at"
            )
        return tag.seq
    if isinstance(moment, int) and not isinstance(moment, bool):
        if 0 <= moment <= newest_seq:
            return moment
        raise InvalidInputError(
            argument, f"there is no commit {moment}; commits go from 0 to {newest_seq}"
        )
    raise InvalidInputError(
        argument,
        "expected an aware datetime, the number of a commit or the name of a tag, "
        f"got {moment!r:.80} of type {type(moment).__name__}",
    )


def moment_us(moment: Moment, snapshot: Snapshot, argument: str = "as_of") -> int:
    """The time of a moment in microseconds since the epoch: "now", for one who looks from there.

    For a commit or a tag it is the time of the commit, which `snapshot` sees last.
    """
    if isinstance(moment, datetime):
        return check_moment(moment, argument)
    return snapshot.time
