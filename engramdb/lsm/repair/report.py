"""What a repair found, brought back and could not bring back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from engramdb.lsm.records import MEMORY

MEMORIES_LISTED_MAX: Final = 10_000
HEALS_MAX: Final = 100  # tries that may take a second each
_ENDLESS: Final = 2**63


@dataclass(frozen=True, slots=True)
class RepairReport:
    """`problems`: every fault that was found, with file and place; none, and nothing was changed.

    `is_complete`: nothing was lost: what was damaged could be made anew from the rest.
    `settings_of`: the manifest that tags and history policy are from; if it is not the last one,
    changes of them may be lost, and nothing else need be.
    `commits_lost`: (first, last) of each stretch of commits of which something is, or may be, lost.
    `versions_lost`, `vectors_lost`: how many are known to be; a version whose vector alone was lost
    is kept without it. `memories`: ids of memories that lost a version or a vector, as far as
    they are known (10,000 at most). `restored`: how many memories and connections are back at an
    older version, because the newer one is lost; `disconnected`: connections that were ended
    because a memory at an end of them is lost. `tags_lost`: tags whose moment is not complete any
    more. `moved`: what was damaged, now under `lost_directory`. `seq`: the last commit now; where
    something was lost that is one of the repair itself.
    """

    problems: tuple[str, ...]
    is_complete: bool
    settings_of: int
    versions: int
    vectors: int
    versions_lost: int
    vectors_lost: int
    commits_lost: tuple[tuple[int, int], ...]
    memories: tuple[str, ...]
    restored: int
    disconnected: int
    tags_lost: tuple[str, ...]
    moved: tuple[str, ...]
    lost_directory: str
    seq: int


@dataclass(slots=True)
class Findings:
    """Collects what a report is made of."""

    problems: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)  # paths to be moved out of the way
    stretches: list[tuple[int, int]] = field(default_factory=list)  # of commits
    memories: set[str] = field(default_factory=set)
    heals_left: int = HEALS_MAX
    versions_lost: int = 0
    vectors_lost: int = 0
    must_rebuild: bool = False

    def reset(self, known: Findings) -> None:
        """Forget all but this."""
        for name in self.__slots__:
            setattr(self, name, getattr(known, name))

    def note(self, problem: object) -> None:
        """Something is wrong, and no file has to be moved for it."""
        self._say(problem)
        self.must_rebuild = True

    def damage(self, path: str, problem: object) -> None:
        """This file is damaged: it is kept, out of the way."""
        self.note(problem)
        self.damaged.add(path)

    def mishap(self, path: str, problem: object) -> None:
        """This file is damaged, and nothing depends on it: moving it out of the way is enough."""
        self._say(problem)
        self.damaged.add(path)

    def _say(self, problem: object) -> None:
        line = str(problem)
        if line not in self.problems:  # what is healed may be read, and healed, twice
            self.problems.append(line)

    def lose_commits(self, first: int, last: int) -> None:
        """Something of these commits is lost."""
        self.stretches.append((first, max(first, last)))

    def lose_versions(self, versions: list[tuple[int, bytes, int]]) -> None:
        """These versions (class, key, seq) are lost."""
        self.versions_lost += len(versions)
        for record_class, key, seq in versions:
            self.lose_commits(seq, seq)
            if record_class == MEMORY:
                self._name(key)

    def lose_vectors(self, owners: list[tuple[bytes, int]]) -> None:
        """The vectors of these versions (key, seq) are lost."""
        self.vectors_lost += len(owners)
        for key, seq in owners:
            self.lose_commits(seq, seq)
            self._name(key)

    def _name(self, key: bytes) -> None:
        if len(self.memories) < MEMORIES_LISTED_MAX:
            digits = key.hex()
            parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
            self.memories.add("-".join(parts))

    def may_heal(self) -> bool:
        """Whether to try once more: where much is damaged it is not by single bits."""
        self.heals_left -= 1
        return self.heals_left >= 0

    def lost_from(self) -> int:
        """The first commit of which something is lost; above all commits if nothing is."""
        return min((first for first, _ in self.stretches), default=_ENDLESS)

    def commits_lost(self) -> tuple[tuple[int, int], ...]:
        """The stretches, in order and joined."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted(self.stretches):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(joined[-1][1], last))
            else:
                joined.append((first, last))
        return tuple(joined)
