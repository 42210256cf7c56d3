"""What a power cut can leave, at every point of a trace.

A `CrashState` walks along a trace and keeps what is certainly durable apart from what is pending.
`image(choice)` builds one possible outcome: `choice` has one integer for each pending operation, in
the order in which they were issued (missing ones count as 0):

    0      nothing of it arrived
    -1     all of it arrived
    bits   of a write: bit 0, the file's size reached the end of the write (zeros where no data
           arrived); bit k+1, the k-th 512-byte sector that it touches arrived

so (0,) * n is "nothing pending was persisted", (-1,) * n is what a killed process leaves, and
(-1,) * k + (0,) * (n - k) is a disk that keeps the order. Operations on names know only whether
they happened; two on the same name of the same directory keep their order: a later one brings the
earlier ones with it. Everything else is independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from xxhash import xxh3_128_digest

from engramdb.lsm.environment import trace as t
from engramdb.lsm.environment.namespace import ROOT, Change

NOTHING: Final = 0
EVERYTHING: Final = -1
SIZE_ONLY: Final = 1


class Pending:
    """An operation whose fate a power cut decides."""

    __slots__ = ("certain", "done", "event", "hopeless", "requires")

    def __init__(self, event: t.Write | t.Truncate | t.NamesChanged) -> None:
        self.event = event
        self.hopeless = False  # a sync failed on it: no later sync makes it durable
        self.certain = False  # synced, but after a hopeless one of its file, which stays open
        self.done = False
        self.requires: list[Pending] = []  # earlier operations on the same names

    @property
    def file(self) -> int | None:
        """The file it writes, None for names."""
        return None if isinstance(self.event, t.NamesChanged) else self.event.file

    @property
    def sectors(self) -> int:
        """How many sectors can arrive independently; 0 for all but writes."""
        return self.event.sectors if isinstance(self.event, t.Write) else 0


class CrashState:
    """The state after the first `position` events of a trace."""

    def __init__(self, trace: t.Trace, position: int = 0) -> None:
        self.trace = trace
        self.position = 0
        self.issued: list[object] = []
        self.acknowledged: list[object] = []
        self.pending: list[Pending] = []
        """Undecided operations, oldest first: what `choice` decides, and some that are certain."""
        self._files = dict(trace.base.files)
        self._directories = {n: dict(names) for n, names in trace.base.directories.items()}
        self._last_change: dict[tuple[int, str], Pending] = {}
        self._contents: dict[int, dict[tuple[int, ...], t.Content]] = {}
        self.advance_to(position)

    def advance_to(self, position: int) -> None:
        """Walk on to a later point."""
        if not self.position <= position <= len(self.trace.events):
            raise ValueError(f"cannot walk from {self.position} to {position}")
        for event in self.trace.events[self.position : position]:
            self._advance(event)
        self.position = position

    def _advance(self, event: t.Event) -> None:
        match event:
            case t.Write() | t.Truncate():
                self._contents.pop(event.file, None)
                self._files.setdefault(event.file, _NO_CONTENT)
                self.pending.append(Pending(event))
            case t.NamesChanged():
                self._change_names(event)
            case t.Sync(file):
                self._sync(file)
            case t.SyncFailed(file, dropped):
                self._contents.pop(file, None)
                if dropped:
                    self.pending = [p for p in self.pending if p.file != file or p.certain]
                for pending in self.pending:
                    if pending.file == file and not pending.certain:
                        pending.hopeless = True
            case t.SyncDirectory(directory):
                self._sync_directory(directory)
            case t.SyncDirectoryFailed(directory):
                for pending in self.pending:
                    if _home(pending) == directory:
                        pending.hopeless = True
            case t.Rot(file, bit):
                self._contents.pop(file, None)
                content = self._files[file].data
                if bit < len(content) * 8:
                    self._files[file] = t.Content(flip(content, bit))
            case t.Planted(file, data):
                self._contents.pop(file, None)
                self.pending = [p for p in self.pending if p.file != file]
                self._files[file] = t.Content(data)
            case t.NamePlanted(directory, name, node):
                self._plant_name(directory, name, node)
            case t.Issued(what):
                self.issued.append(what)
            case t.Acknowledged(what):
                self.acknowledged.append(what)

    def _sync(self, file: int) -> None:
        self._contents.pop(file, None)
        operations = [p for p in self.pending if p.file == file]
        if any(p.hopeless for p in operations):
            for pending in operations:
                pending.certain = not pending.hopeless
        elif operations:
            everything = (EVERYTHING,) * len(operations)
            self._files[file] = _outcome(self._files[file], operations, everything)
            self.pending = [p for p in self.pending if p.file != file]

    def _change_names(self, event: t.NamesChanged) -> None:
        if event.makes_directory is not None:
            self._directories[event.makes_directory] = {}
        pending = Pending(event)
        for directory, name, node in event.change:
            if node is not None and node not in self._directories:
                self._files.setdefault(node, _NO_CONTENT)
            before = self._last_change.get((directory, name))
            if before is not None and not before.done:
                pending.requires.append(before)
            self._last_change[directory, name] = pending
        self.pending.append(pending)

    def _plant_name(self, directory: int, name: str, node: int | None) -> None:
        before = self._last_change.pop((directory, name), None)
        if before is not None and not before.done:
            self._persist(_with_required([before]))
        if node is None:
            self._directories[directory].pop(name, None)
        else:
            self._directories[directory][name] = node

    def _sync_directory(self, directory: int) -> None:
        self._persist(
            _with_required(p for p in self.pending if _home(p) == directory and not p.hopeless)
        )

    def _persist(self, done: set[int]) -> None:
        """These changes of names are durable."""
        kept = []
        for pending in self.pending:
            if id(pending) in done:
                pending.done = True
                _apply(self._directories, _change_of(pending))
            else:
                kept.append(pending)
        self.pending = kept

    def durable(self, file: int) -> bytes:
        """What of a file is certainly there, whatever happens to the pending operations."""
        return self._content(file, [p for p in self.pending if p.file == file], ()).data

    def image(self, choice: Sequence[int] = ()) -> t.Image:
        """One thing that a power cut now can leave."""
        files: dict[int, tuple[list[Pending], list[int]]] = {}
        kept_names = []
        for i, pending in enumerate(self.pending):
            bits = choice[i] if i < len(choice) else NOTHING
            file = pending.file
            if file is None:
                if bits:
                    kept_names.append(pending)
            else:
                operations, decided = files.setdefault(file, ([], []))
                operations.append(pending)
                decided.append(bits)
        directories = self._directories
        if kept_names:
            directories = {n: dict(names) for n, names in directories.items()}
            kept = _with_required(kept_names)
            for pending in self.pending:
                if id(pending) in kept:
                    _apply(directories, _change_of(pending))
        return self._reachable(directories, files)

    def _reachable(
        self,
        directories: dict[int, dict[str, int]],
        files: dict[int, tuple[list[Pending], list[int]]],
    ) -> t.Image:
        contents: dict[int, t.Content] = {}
        found: dict[int, dict[str, int]] = {}
        parts = []
        stack = [("", ROOT)]
        while stack:
            path, number = stack.pop()
            names = found[number] = directories[number].copy()
            parts.append(f"{path}/\0".encode())
            for name in sorted(names):
                node = names[name]
                if node in directories:
                    stack.append((f"{path}/{name}", node))
                    continue
                content = contents.get(node)
                if content is None:
                    operations, decided = files.get(node, _UNTOUCHED)
                    content = contents[node] = self._content(node, operations, tuple(decided))
                parts.append(f"{path}/{name}\0".encode())
                parts.append(content.digest)
        return t.Image(contents, found, xxh3_128_digest(b"".join(parts)))

    def _content(self, file: int, operations: list[Pending], decided: tuple[int, ...]) -> t.Content:
        if not operations:
            return self._files[file]
        known = self._contents.setdefault(file, {})
        content = known.get(decided)
        if content is None:
            content = known[decided] = _outcome(self._files[file], operations, decided)
        return content


_NO_CONTENT: Final = t.Content(b"")
_UNTOUCHED: Final[tuple[list[Pending], list[int]]] = ([], [])


def _home(pending: Pending) -> int | None:
    """The directory whose sync makes it durable; None for data."""
    event = pending.event
    return event.change[-1].directory if isinstance(event, t.NamesChanged) else None


def _change_of(pending: Pending) -> Change:
    return pending.event.change if isinstance(pending.event, t.NamesChanged) else ()


def _with_required(chosen: Iterable[Pending]) -> set[int]:
    found: set[int] = set()
    stack = list(chosen)
    while stack:
        pending = stack.pop()
        if id(pending) not in found and not pending.done:
            found.add(id(pending))
            stack += pending.requires
    return found


def _apply(directories: dict[int, dict[str, int]], change: Change) -> None:
    for directory, name, node in change:
        if node is None:
            directories[directory].pop(name, None)
        else:
            directories[directory][name] = node


def _outcome(before: t.Content, operations: Sequence[Pending], decided: Sequence[int]) -> t.Content:
    """The file after those parts of the operations that arrived."""
    content: bytearray | None = None
    for i, pending in enumerate(operations):
        bits = EVERYTHING if pending.certain else decided[i] if i < len(decided) else NOTHING
        if bits:
            if content is None:
                content = bytearray(before.data)
            _arrive(content, pending.event, bits)
    return before if content is None else t.Content(bytes(content))


def _arrive(content: bytearray, event: object, bits: int) -> None:
    if isinstance(event, t.Truncate):
        resize(content, event.length)
        return
    assert isinstance(event, t.Write)
    offset, data = event.offset, event.data
    end = offset + len(data)
    if bits == EVERYTHING:
        resize(content, max(len(content), offset))
        content[offset:end] = data
        return
    if bits & SIZE_ONLY:
        resize(content, max(len(content), end))
    sector_start = offset - offset % t.SECTOR_BYTES
    for k in range(event.sectors):
        if bits >> (k + 1) & 1:
            start = max(offset, sector_start + k * t.SECTOR_BYTES)
            stop = min(end, sector_start + (k + 1) * t.SECTOR_BYTES)
            resize(content, max(len(content), start))
            content[start:stop] = data[start - offset : stop - offset]


def resize(content: bytearray, length: int) -> None:
    """Cut, or extend with zeros."""
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))


def flip(content: bytes | bytearray, bit: int) -> bytes:
    """The content with one bit flipped (bit 0 is the lowest bit of the first byte)."""
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)
