"""Faults planted in the files of a small database: one `Damage` at a time, each printed as the
expression that makes it again.

    disk = disk_of("crashed_database")
    Damage("flip", "/db/VISIBLE", at=77).apply(disk)
    ... open it, and see ...

    for damage in damages("crashed_database"):      # everything but the flips
    for damage in flips("crashed_database"):        # every bit of every file

The paths are those of the databases in `databases`; two names of one file (a fork's) are one file.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from itertools import combinations, pairwise

from engramdb.lsm import container
from engramdb.lsm.environment.crash import CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.environment.trace import SECTOR_BYTES, Acknowledged, Image
from tests.crash.databases import CHECKPOINT, FORK, PATH, contents_of, database, kind_of, paths_of

END = -1
BYTES_OF = {"zeros": b"\0", "ones": b"\xff", "text": b"EREC"}
PARTNERS = 2  # with so many others a sector is swapped, if not with all


@dataclass(frozen=True, slots=True, repr=False)
class Damage:
    """What happens to the file `path`:

    flip            the bit `at` flips
    zero            the sector that begins at `at` becomes zeros
    duplicate       the sector that begins at `at` is written over the next one too
    swap_sectors    the sector at `at` and the one at `other_at` of `other` change places
    truncate        only `at` bytes are left
    extend          `at` bytes of BYTES_OF[`fill`] are appended
    missing         the name is gone
    swap_files      it and the file `other` change their contents
    copy            it becomes the file `other` of the database that `donor` makes, as it was after
                    the event `at` of its trace (END: in the end)
    """

    kind: str
    path: str
    at: int = 0
    other: str = ""
    other_at: int = 0
    donor: str = ""
    fill: str = "zeros"

    def __repr__(self) -> str:
        values = [repr(self.kind), repr(self.path)]
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default:
                values.append(f"{field.name}={value!r}")
        return f"Damage({', '.join(values)})"

    def apply(self, disk: SimulatedDisk) -> None:
        """Plant it, beneath whoever uses the disk."""
        if self.kind == "flip":
            disk.rot(self.path, self.at)
            return
        for path, content in self._contents(disk).items():
            disk.plant(path, content)

    def _contents(self, disk: SimulatedDisk) -> dict[str, bytes | None]:
        """What becomes of which file."""
        path, other, at = self.path, self.other, self.at
        if self.kind == "missing":
            return {path: None}
        if self.kind == "copy":
            return {path: version_of(self.donor, other, at)}
        data = disk.content(path)
        if self.kind == "swap_files":
            return {path: disk.content(other), other: data}
        if self.kind == "swap_sectors":
            if path == other:
                swapped = _with(data, at, _sector(data, self.other_at))
                return {path: _with(swapped, self.other_at, _sector(data, at))}
            theirs = disk.content(other)
            return {
                path: _with(data, at, _sector(theirs, self.other_at)),
                other: _with(theirs, self.other_at, _sector(data, at)),
            }
        return {path: self._alone(data)}

    def _alone(self, data: bytes) -> bytes:
        """What becomes of one file for itself."""
        at = self.at
        if self.kind == "zero":
            return _with(data, at, bytes(len(_sector(data, at))))
        if self.kind == "duplicate":
            return _with(data, at + SECTOR_BYTES, _sector(data, at))
        if self.kind == "truncate":
            return data[:at]
        if self.kind == "extend":
            fill = BYTES_OF[self.fill]
            return data + (fill * (at // len(fill) + 1))[:at]
        raise ValueError(f"no damage of the kind {self.kind!r}")


def _sector(data: bytes, at: int) -> bytes:
    return data[at : at + SECTOR_BYTES]


def _with(data: bytes, at: int, part: bytes) -> bytes:
    """The same with `part` at `at`, as much of it as the file has room for."""
    part = part[: len(data) - at]
    return data[:at] + part + data[at + len(part) :]


@cache
def version_of(name: str, path: str, event: int) -> bytes:
    """What a file of this database held after so many events of the trace that made it."""
    disk, image = database(name)
    if event == END:
        return contents_of(image)[path]
    state = CrashState(disk.trace, event)
    return contents_of(state.image((-1,) * len(state.pending)))[path]


@cache
def older_versions(name: str) -> list[tuple[int, str]]:
    """(event, path) of each content that a file of this database once had and has no more; as it
    was when something was acknowledged."""
    disk, image = database(name)
    now = contents_of(image)
    known = {(path, content) for path, content in now.items()}
    found = []
    state = CrashState(disk.trace)
    for event, what in enumerate(disk.trace.events):
        if not isinstance(what, Acknowledged):
            continue
        state.advance_to(event)
        then = contents_of(state.image((-1,) * len(state.pending)))
        for path, content in then.items():
            if path in now and (path, content) not in known:
                known.add((path, content))
                found.append((event, path))
    return found


def files_of(image: Image) -> dict[str, bytes]:
    """The files of an image, each under one name: the original's, where a copy shares it."""
    nodes: dict[int, str] = {}
    for path, node in sorted(
        paths_of(image).items(), key=lambda found: (not found[0].startswith(PATH), found[0])
    ):
        nodes.setdefault(node, path)
    return {path: image.files[node].data for node, path in nodes.items()}


def flips(name: str, *, every_bit: bool = True) -> Iterator[Damage]:
    """Each bit of each file; or one bit of each byte, another one in the next byte."""
    for path, content in files_of(database(name)[1]).items():
        for byte in range(len(content)):
            for bit in range(8) if every_bit else [byte * 7 % 8]:
                yield Damage("flip", path, at=8 * byte + bit)


def damages(name: str, *, thorough: bool = False) -> Iterator[Damage]:
    """Everything but the flips, nothing twice, and nothing that changes no byte. `thorough`: each
    sector swapped with each other one, and a truncation to each length."""
    image = database(name)[1]
    files = files_of(image)
    known = set()
    found = [
        *_of_sectors(name, files, thorough),
        *_of_lengths(files, thorough),
        *_of_files(name, files),
    ]
    disk = SimulatedDisk(image=image)
    for damage in found:
        changed = damage._contents(disk)
        if all(image_has(image, path, content) for path, content in changed.items()):
            continue
        effect = tuple(changed.items())
        if effect not in known:
            known.add(effect)
            yield damage


def image_has(image: Image, path: str, content: bytes | None) -> bool:
    """Whether a file holds this already."""
    node = paths_of(image).get(path)
    return (None if node is None else image.files[node].data) == content


def _of_sectors(name: str, files: dict[str, bytes], thorough: bool) -> Iterator[Damage]:
    places = [
        (path, at) for path, content in files.items() for at in range(0, len(content), SECTOR_BYTES)
    ]
    for path, at in places:
        yield Damage("zero", path, at)
        if at + SECTOR_BYTES < len(files[path]):
            yield Damage("duplicate", path, at)
    if thorough:
        for (path, at), (other, other_at) in combinations(places, 2):
            yield Damage("swap_sectors", path, at, other, other_at)
        return
    rng = random.Random(name)
    for path, at in places:
        same_place = [place for place in places if place[1] == at and place[0] != path]
        same_kind = [place for place in same_place if kind_of(place[0]) == kind_of(path)]
        in_file = [place for place in places if place[0] == path and place[1] != at]
        for some in (same_place, same_kind, in_file):
            for other, other_at in rng.sample(some, min(PARTNERS, len(some))):
                yield Damage("swap_sectors", path, at, other, other_at)


def _of_lengths(files: dict[str, bytes], thorough: bool) -> Iterator[Damage]:
    for path, content in files.items():
        for length in range(len(content)) if thorough else boundaries(path, content):
            yield Damage("truncate", path, length)
        for length in (1, 8, 64, SECTOR_BYTES):
            for fill in BYTES_OF:
                yield Damage("extend", path, length, fill=fill)


def boundaries(path: str, content: bytes) -> list[int]:
    """Lengths to which to cut a file: none, its sectors, its parts, a byte before and behind each,
    and all but one byte."""
    starts = {0, len(content), *range(0, len(content), SECTOR_BYTES), *parts_of(path, content)}
    found = {at + by for at in starts for by in (-1, 0, 1)}
    return sorted(at for at in found if 0 <= at < len(content))


def parts_of(path: str, content: bytes) -> list[int]:
    """Where something begins or ends in a file, by its format."""
    kind = kind_of(path)
    if kind in ("seg", "vec", "mark"):
        start, count = container.FOOTER.unpack_from(content, len(content) - 64)[:2]
        ends = [64, len(content) - 64]
        for at in range(start, start + 64 * count, 64):
            *_, offset, length, _ = container.ENTRY.unpack_from(content, at)
            ends += [at, offset, offset + length]
        return ends
    if kind == "wal":
        return [64] + [
            start + by
            for start in range(64, len(content), 8)
            if content.startswith(b"EREC", start)
            for by in (0, 64)
        ]
    if kind == "MANIFEST":
        return [8, 12, 16, 32]
    return list(range(0, len(content), 8))


def _of_files(name: str, files: dict[str, bytes]) -> Iterator[Damage]:
    for path in paths_of(database(name)[1]):
        yield Damage("missing", path)
    same_kind: dict[str, list[str]] = {}
    for path in files:
        same_kind.setdefault(kind_of(path), []).append(path)
    for paths in same_kind.values():
        for one, two in combinations(paths, 2):
            yield Damage("swap_files", one, other=two)
    for paths in pairwise(same_kind.values()):
        yield Damage("swap_files", paths[0][-1], other=paths[1][0])
    for event, path in older_versions(name):
        if path in files:
            yield Damage("copy", path, event, other=path, donor=name)
    yield from _strangers(name, files)


DONORS = ("other_database", "sibling_database")


def _strangers(name: str, files: dict[str, bytes]) -> Iterator[Damage]:
    """Files of other databases, and of copies that went another way, in place of ours; and those
    that are not among ours, beside them."""
    for donor in DONORS:
        if donor == name:
            continue
        for path in contents_of(database(donor)[1]):
            if path.startswith(PATH):
                yield Damage("copy", path, END, other=path, donor=donor)
    ours = paths_of(database(name)[1])
    for root in (FORK, CHECKPOINT):
        if not any(path.startswith(root) for path in ours):
            continue
        for path in ours:
            if path.startswith(root):
                theirs = PATH + path.removeprefix(root)
                yield Damage("copy", theirs, END, other=path, donor=name)
            elif path.startswith(PATH):
                theirs = root + path.removeprefix(PATH)
                yield Damage("copy", theirs, END, other=path, donor=name)
