"""Everything about time: past moments, what changed between them, and going back."""

from __future__ import annotations

from typing import cast

from engramdb.commit import Commit, commits_since
from engramdb.comparison import Difference, compare
from engramdb.errors import ConflictError, InvalidInputError
from engramdb.lsm.records import Commit as Sequenced
from engramdb.lsm.records import GuardFailed
from engramdb.lsm.retention import History
from engramdb.lsm.snapshot import Snapshot
from engramdb.model.identifiers import parse_id
from engramdb.model.moments import from_microseconds
from engramdb.past import Past
from engramdb.query.arguments import check_limit, check_seq, check_sync
from engramdb.query.moment import Moment, Tag, check_name, look_back, moment_us
from engramdb.saving import Saving
from engramdb.undo import inverse_of, inverse_of_last, restored


class Timeline(Saving):
    """A moment, wherever one is asked for, is an aware datetime (the last commit at or before it),
    the number of a commit (0: before the first) or the name of a tag. One that is not there raises
    InvalidInputError, one that the retention policy has dropped HistoryUnavailableError."""

    def as_of(self, moment: Moment) -> Past:
        """The database as it was: every read, similarity search included."""
        snapshot = self._past(moment)
        seen_us = moment_us(moment, snapshot)
        return Past(self._engine, snapshot, seen_us, self._access, self._indexer)

    def diff(self, a: Moment, b: Moment | None = None) -> Difference:
        """What became of moment `a` in moment `b`; None is now.

        .added, .removed      ids
        .changed              each with .id, .attributes (name: .old, .new), .embeddings_changed,
                              .validity_changed and .vectors_changed (names of spaces)
        .connections          .added, .removed (Connection) and .changed (each with .old, .new)
        """
        before = self._complete(a, "a")
        after = self._engine.latest() if b is None else self._complete(b, "b")
        return compare(before, after)

    def restore(
        self,
        memory_id: str,
        as_of: Moment,
        *,
        reason: str | None = None,
        sync: bool | None = None,
    ) -> None:
        """Make a memory again what it was at a moment: a new version of it, deleted or not.

        Its connections stay as they are; undo() of the commit that deleted a memory is what brings
        its connections back. Raises MemoryNotFoundError if it was not there at that moment.
        """
        key, sync = parse_id(memory_id), check_sync(sync)
        source = self._past(as_of)
        if reason is None:
            reason = f"restored as of commit {source.seq}"
        batch = restored(source, key, as_of, reason, self._engine.latest())
        self._engine.commit(batch, sync=sync)

    def undo(
        self,
        n: int | Commit | Sequenced = 1,
        *,
        commit: int | None = None,
        sync: bool | None = None,
    ) -> int:
        """Append the inverse of the last `n` commits, or of one commit.

        undo(), undo(3)     what the last commit, or the last three, have written is as before them
        undo(commit=17)     what commit 17 has written is as before it; also undo(a_commit), with
                            one of changes()

        An undo is a commit like every other: undoing it does it again. Deleted connections come
        back with the deleted memory. Returns the number of the new commit, or of the last one if
        there was nothing to write. Raises ConflictError if anything that would be changed has been
        changed since, or if a connection would be left without one of its ends; InvalidInputError
        if there is no such commit. What was purged stays purged.
        """
        sync = check_sync(sync)
        if commit is not None:
            if n != 1:
                raise InvalidInputError("n", "give a number of commits or a commit, not both")
            check_seq(commit, "commit")
        elif isinstance(n, (Commit, Sequenced)):
            commit = n.seq
        if commit is None:
            batch = inverse_of_last(self._engine, check_limit(cast(int, n), "n"))
        else:
            batch = inverse_of(self._engine, commit)
        if not batch.operations:
            return self._engine.last_seq
        try:
            return self._engine.commit(batch, sync=sync).seq
        except GuardFailed:
            raise ConflictError(
                "a connection would be left without one of its memories, because later commits "
                "connected or deleted them; undo those first. Nothing was written"
            ) from None

    def tag(self, name: str, as_of: Moment | None = None) -> Tag:
        """Give this moment, or an earlier one, a name: the retention policy never drops it.

        Raises InvalidInputError if the name is in use or is not 1 to 256 bytes of text.
        """
        if check_name(name) in self._engine.pins():
            raise InvalidInputError("name", f"{name!r:.80} is a tag already; untag() it first")
        seq = None if as_of is None else self._complete(as_of, "as_of").seq
        return _tag(self._engine.pin(name, seq))

    def tags(self) -> dict[str, Tag]:
        """All tags, in the order of their moments: each with .seq and .timestamp."""
        pins = self._engine.pins().items()
        return {name: _tag(pin) for name, pin in sorted(pins, key=lambda pin: (pin[1].seq, pin[0]))}

    def untag(self, name: str) -> bool:
        """Remove a tag; its moment may be dropped from now on. False if there is no such tag."""
        return self._engine.unpin(check_name(name))

    def changes(self, since_seq: int) -> list[Commit]:
        """The commits after `since_seq` (0: all), oldest first, each with what it wrote.

        Raises HistoryUnavailableError if some of them are not kept any more.
        """
        return commits_since(self._engine, check_seq(since_seq, "since_seq"))

    def set_history(self, policy: History) -> None:
        """Decide which older versions stay: KeepAll(), KeepLast(n) or KeepFor(timedelta).

        Takes effect as files are merged; compact() does it at once. Tagged moments stay.
        """
        self._engine.set_history(policy)

    def _complete(self, moment: Moment, argument: str) -> Snapshot:
        newest_seq = self._engine.last_seq
        return look_back(self._engine, moment, newest_seq, argument, partial=False)


def _tag(pin: Sequenced) -> Tag:
    return Tag(pin.seq, from_microseconds(pin.time))
