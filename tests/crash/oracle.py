"""What the engine must answer: a dict of versions for every key, built from what was issued.

A workload marks on its disk what it asks for (a `Step`) before it asks, and acknowledges how much
of it was promised (`Promise`). `World` folds the markers of all lives of a disk into the commits
and the settings that may be there, and says how many of both must be; an `Oracle` answers for one
choice of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from engramdb.lsm.records import EDGE, MEMORY, NEVER
from engramdb.lsm.retention import History, KeepAll, KeepFor, KeepLast

Key = tuple[int, bytes]  # record class and key


class Write(NamedTuple):
    """One operation. `payload` is None for a tombstone; `ends` are source, target and type."""

    record_class: int
    key: bytes
    payload: bytes | None
    vector: bytes = b""  # the float32 bytes, b"" if it has none
    ends: tuple[bytes, bytes, str] | None = None
    strength: float = 0.0


class Commit(NamedTuple):
    """A batch was issued; `sync`: nobody may see it before it is durable."""

    writes: tuple[Write, ...]
    sync: bool = True


class Pin(NamedTuple):
    """A moment was pinned."""

    name: str
    seq: int


class Unpin(NamedTuple):
    """A pin was taken away."""

    name: str


class SetHistory(NamedTuple):
    """The retention policy was changed."""

    policy: History


class Purge(NamedTuple):
    """Memories were erased, with everything of them up to `seq`."""

    keys: tuple[bytes, ...]
    seq: int


class Recovered(NamedTuple):
    """A recovery showed so many commits and settings: the others are gone, these must stay."""

    commits: int
    settings: int


class Promise(NamedTuple):
    """So many commits and settings are durable."""

    commits: int
    settings: int


class Copied(NamedTuple):
    """A fork or a checkpoint of so many commits and settings is durable."""

    path: str
    commits: int
    settings: int


Setting = Pin | Unpin | SetHistory | Purge
Step = Commit | Setting | Recovered


class Version(NamedTuple):
    """A version of a key; `until` is the seq of the next one, or NEVER."""

    seq: int
    write: Write
    until: int


@dataclass(slots=True)
class World:
    """What may be there after the markers of all lives so far, and what must be."""

    commits: list[Commit] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    must_commits: int = 0
    must_settings: int = 0
    copies: list[tuple[Copied, tuple[Commit, ...], tuple[Setting, ...]]] = field(
        default_factory=list
    )

    @classmethod
    def of(cls, issued: Iterable[object], acknowledged: Iterable[object]) -> World:
        """Fold the markers of a disk."""
        world = cls()
        for step in issued:
            if isinstance(step, Commit):
                world.commits.append(step)
            elif isinstance(step, Recovered):
                del world.commits[step.commits :]
                del world.settings[step.settings :]
                world.must_commits = max(world.must_commits, step.commits)
                world.must_settings = max(world.must_settings, step.settings)
            elif isinstance(step, Pin | Unpin | SetHistory | Purge):
                world.settings.append(step)
        for promise in acknowledged:
            if isinstance(promise, Copied):
                commits = tuple(world.commits[: promise.commits])
                settings = tuple(world.settings[: promise.settings])
                world.copies.append((promise, commits, settings))
            if isinstance(promise, Promise):
                world.must_commits = max(world.must_commits, promise.commits)
                world.must_settings = max(world.must_settings, promise.settings)
        return world


class Oracle:
    """The answers when exactly these commits were made and these settings."""

    def __init__(self, commits: tuple[Commit, ...], settings: tuple[Setting, ...]) -> None:
        self.last_seq = len(commits)
        self._hash = hash((commits, settings))
        self.nearest: dict[int, list[tuple[bytes, float]]] = {}  # of searches, by seq
        self.pins: dict[str, int] = {}
        self.policy: History = KeepAll()
        self.policies: list[History] = [self.policy]
        purges = []
        for step in settings:
            match step:
                case Pin(name, seq):
                    self.pins[name] = seq
                case Unpin(name):
                    self.pins.pop(name, None)
                case SetHistory(policy):
                    self.policy = policy
                    self.policies.append(policy)
                case Purge():
                    purges.append(step)
        self.versions: dict[Key, list[Version]] = {}
        for seq, commit in enumerate(commits, 1):
            for write in commit.writes:
                if not any(_is_purged(write, seq, purge) for purge in purges):
                    self._add(seq, write)
        self._states = [self._state(seq) for seq in range(self.last_seq + 1)]
        # a purge flushes first: the policy may have dropped, then, what it goes on to erase
        self.before_purges = self
        if purges:
            kept = tuple(step for step in settings if not isinstance(step, Purge))
            self.before_purges = Oracle(commits, kept)

    def __hash__(self) -> int:
        return self._hash  # the same for the same steps, though made anew

    def _add(self, seq: int, write: Write) -> None:
        listed = self.versions.setdefault((write.record_class, write.key), [])
        if listed:
            listed[-1] = listed[-1]._replace(until=seq)
        listed.append(Version(seq, write, NEVER))

    def _state(self, seq: int) -> dict[Key, Version]:
        state = {}
        for key, versions in self.versions.items():
            for version in versions:
                if version.seq <= seq < version.until and version.write.payload is not None:
                    state[key] = version
        return state

    def state(self, seq: int) -> dict[Key, Version]:
        """What is visible at a seq, tombstones left out."""
        return self._states[seq]

    def memories(self, seq: int) -> dict[bytes, tuple[int, bytes, bytes]]:
        """seq, payload and vector of each visible memory."""
        return {
            key: (version.seq, version.write.payload or b"", version.write.vector)
            for (record_class, key), version in self.state(seq).items()
            if record_class == MEMORY
        }

    def carried(self, seq: int) -> dict[tuple[bytes, str], bytes]:
        """The vectors of memories in named spaces, by memory and type of the edge."""
        return {
            (v.write.ends[0], v.write.ends[2]): v.write.vector
            for v in self.state(seq).values()
            if v.write.ends is not None and v.write.vector
        }

    def edges(self, seq: int) -> dict[bytes, tuple[int, bytes, tuple[bytes, bytes, str], float]]:
        """seq, payload, ends and strength of each visible edge."""
        return {
            key: (v.seq, v.write.payload or b"", v.write.ends or (b"", b"", ""), v.write.strength)
            for (record_class, key), v in self.state(seq).items()
            if record_class == EDGE
        }

    def history(self, key: Key, seq: int) -> list[Version]:
        """The versions up to a seq, oldest first, tombstones at the start left out: what has
        nothing below it may go."""
        return without_leading_tombstones(
            version for version in self.versions.get(key, []) if version.seq <= seq
        )

    def may_be_dropped(self, key: Key, version: Version) -> bool:
        """Whether one of the policies so far lets this version go, and no pin holds it."""
        if version.until == NEVER:
            return False
        if any(version.seq <= pin < version.until for pin in self.pins.values()):
            return False
        versions = self.versions[key]
        rank = len(versions) - 1 - versions.index(version)
        for policy in self.policies:
            if isinstance(policy, KeepLast) and rank >= policy.versions:
                return True
            if isinstance(policy, KeepFor) and not policy.duration:
                return True
        return False


def _is_purged(write: Write, seq: int, purge: Purge) -> bool:
    if seq > purge.seq:
        return False
    if write.ends is not None:
        return write.ends[0] in purge.keys or write.ends[1] in purge.keys
    return write.key in purge.keys


def without_leading_tombstones(versions: Iterable[Version]) -> list[Version]:
    """The versions from the first that is no tombstone on."""
    return list(_from_first_put(versions))


def _from_first_put(versions: Iterable[Version]) -> Iterator[Version]:
    begun = False
    for version in versions:
        begun = begun or version.write.payload is not None
        if begun:
            yield version
