"""The manifest: a numbered full snapshot of which files are the database.

    MANIFEST-00000000000000000042
     0  8s  magic b"ENGRAMMF"
     8  u32 format version (1)
    12  u32 length of the body in bytes
    16  16s xxh3-128 of bytes 0..16 and the body
    32  body: JSON of the fields of Manifest

It is published create-exclusive: written and synced under tmp/, then linked to its number. Two
writers cannot both publish a number; there is no CURRENT file to fall out of step. The highest
number counts. If that one fails its checksum the database is refused: only repair may fall back.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import msgspec
import xxhash

from engramdb.errors import CorruptionError, IncompatibleFormatError
from engramdb.lsm.environment import Environment
from engramdb.lsm.limits import (
    DIMENSION_MAX,
    MANIFESTS_KEPT,
    NUMBER_MAX,
    RUN_ROWS_MAX,
    SPACES_MAX,
    TIME_MAX,
    VECTOR_NUMBER_MAX,
)
from engramdb.lsm.records import DEFAULT_SPACE, is_space_name
from engramdb.lsm.retention import History, KeepAll, KeepFor, KeepLast

MAGIC: Final = b"ENGRAMMF"
FORMAT: Final = 1
SPACES: Final = "spaces"  # a feature: there are vector spaces with names
FEATURES: Final = frozenset({SPACES})  # what this version understands beyond format 1
HEADER: Final = struct.Struct("<8sII16s")
assert HEADER.size == 32
_PREFIX: Final = "MANIFEST-"
_DIGITS: Final = re.compile(r"[0-9]{20}")
_UUID: Final = re.compile(r"[0-9a-f]{32}")
_EPOCH_MAX: Final = 2**32 - 2  # the next one has to fit the header of a log


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What every live file has. `origin` is the uuid that its header must carry (a fork shares
    files of the database it was forked from). `marks` is the number of its mark file, 0 if none."""

    number: int
    origin: str
    size: int
    fingerprint: str
    rows: int
    marks: int = 0
    marks_origin: str = ""
    marks_size: int = 0
    marks_fingerprint: str = ""
    commit_seq: int = 0  # of a bulk load: the seq and time of all its rows
    commit_time: int = 0


class SegmentEntry(FileEntry, frozen=True, kw_only=True):
    """A live segment. `dropped` tells that older versions of its keys may have been dropped."""

    seq_min: int
    seq_max: int
    time_min: int
    time_max: int
    live: tuple[int, int, int]  # current rows of each class when written, tombstones apart


class VectorEntry(FileEntry, frozen=True, kw_only=True):
    """A live vector file."""

    dimension: int
    space: int
    number_min: int  # vector numbers
    number_max: int
    unreferenced: int = 0  # rows that no version refers to any more


class Space(msgspec.Struct, frozen=True):
    """A vector space: all its vectors have one dimension. The first is the default space, with the
    name "", whose dimension is 0 if only others have vectors."""

    name: str
    dimension: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the database's files and settings."""

    features: list[str] = []
    database: str
    number: int
    epoch: int
    next_file: int
    next_vector: int
    last_seq: int  # everything up to here is in the files below
    last_time: int
    log_floor: int  # logs below this number are not needed
    segments: list[SegmentEntry] = []
    vectors: list[VectorEntry] = []
    spaces: list[Space] = []
    pins: dict[str, tuple[int, int]] = {}
    history: tuple[str, int] = ("all", 0)
    history_floor: int = 0  # states before this seq are not complete any more
    copies: list[str] = []  # forks and checkpoints made of this database

    def policy(self) -> History:
        """The retention policy."""
        kind, amount = self.history
        if kind == "all":
            return KeepAll()
        if kind == "last":
            return KeepLast(amount)
        if kind == "for":
            return KeepFor(timedelta(microseconds=amount))
        raise IncompatibleFormatError(f"unknown history policy {kind!r}: upgrade EngramDB")


_HISTORY_MIN: Final = {"all": 0, "last": 1, "for": 0}
_HISTORY_MAX: Final = {
    "all": NUMBER_MAX,
    "last": 2**32 - 1,
    "for": timedelta.max // timedelta(microseconds=1),
}


def encode_policy(policy: History) -> tuple[str, int]:
    """As the manifest stores it."""
    if isinstance(policy, KeepLast):
        return "last", policy.versions
    if isinstance(policy, KeepFor):
        return "for", policy.duration // timedelta(microseconds=1)
    return "all", 0


def name_of(number: int) -> str:
    """The file name of a manifest."""
    return f"{_PREFIX}{number:020d}"


def numbers_in(names: list[str]) -> list[int]:
    """The manifest numbers among these file names, ascending."""
    return sorted(
        int(name[len(_PREFIX) :])
        for name in names
        if name.startswith(_PREFIX) and _DIGITS.fullmatch(name, len(_PREFIX))
    )


def encode(manifest: Manifest) -> bytes:
    """The bytes of the file."""
    body = msgspec.json.encode(manifest)
    head = HEADER.pack(MAGIC, FORMAT, len(body), bytes(16))[:16]
    return head + xxhash.xxh3_128_digest(head + body) + body


def is_sound(data: bytes) -> bool:
    """Whether header and body fit their checksum."""
    if len(data) < HEADER.size:
        return False
    magic, _, length, digest = HEADER.unpack_from(data)
    body = data[HEADER.size :]
    return (
        magic == MAGIC
        and len(body) == length
        and bool(xxhash.xxh3_128_digest(data[:16] + body) == digest)
    )


def decode(data: bytes, path: str) -> Manifest:
    """Raises CorruptionError or IncompatibleFormatError."""
    if len(data) < HEADER.size:
        raise CorruptionError(path, 0, f"at least {HEADER.size} bytes", len(data))
    magic, version, _, digest = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise IncompatibleFormatError(f"{path} is not a manifest of EngramDB: it starts {magic!r}")
    body = data[HEADER.size :]
    if not is_sound(data):
        raise CorruptionError(
            path, 16, "a sound checksum", f"{digest.hex()} over {len(body)} bytes"
        )
    if version != FORMAT:
        raise IncompatibleFormatError(f"{path} has format {version}, this reads {FORMAT}: upgrade")
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptionError(path, HEADER.size, "a manifest", error) from error
    unknown = set(manifest.features) - FEATURES
    if unknown:
        raise IncompatibleFormatError(f"{path} needs {sorted(unknown)}: upgrade EngramDB")
    if manifest.history[0] not in _HISTORY_MAX:
        manifest.policy()
    for what, sound in _facts(manifest):
        if not sound:
            raise CorruptionError(path, HEADER.size, what, "something else")
    return manifest


def _facts(manifest: Manifest) -> Iterator[tuple[str, bool]]:
    """What is true of every manifest that was written here: what it is, and whether it is so."""
    yield "a uuid", _UUID.fullmatch(manifest.database) is not None
    yield f"an epoch up to {_EPOCH_MAX}", 0 <= manifest.epoch <= _EPOCH_MAX
    for name in ("number", "next_file", "log_floor"):
        yield f"{name} from 1 to {NUMBER_MAX}", 1 <= getattr(manifest, name) <= NUMBER_MAX
    yield "next_vector in range", 1 <= manifest.next_vector <= VECTOR_NUMBER_MAX
    last_seq = manifest.last_seq
    yield f"last_seq up to {NUMBER_MAX}", 0 <= last_seq <= NUMBER_MAX
    yield f"last_time up to {TIME_MAX}", 0 <= manifest.last_time <= TIME_MAX
    yield "a history floor up to last_seq", 0 <= manifest.history_floor <= last_seq
    kind, amount = manifest.history
    yield f"a history policy, {kind}", _HISTORY_MIN[kind] <= amount <= _HISTORY_MAX[kind]
    yield from _facts_of_spaces(manifest)
    for name, (seq, time) in manifest.pins.items():
        yield f"a moment of {name!r}", 0 <= seq <= NUMBER_MAX and 0 <= time <= TIME_MAX
    for copy in manifest.copies:
        yield "a path of a copy", bool(copy) and "\0" not in copy
    entries: list[FileEntry] = [*manifest.segments, *manifest.vectors]
    numbers = [n for entry in entries for n in (entry.number, entry.marks) if n]
    yield "each file once", len(set(numbers)) == len(numbers)
    for entry in entries:
        yield from _facts_of_file(entry, manifest)
    for segment in manifest.segments:
        yield from _facts_of_segment(segment, last_seq)
    for vectors in manifest.vectors:
        yield from _facts_of_vectors(vectors, manifest.spaces)


def _facts_of_spaces(manifest: Manifest) -> Iterator[tuple[str, bool]]:
    spaces = manifest.spaces
    names = [space.name for space in spaces]
    yield f"up to {SPACES_MAX} spaces, each once", len(set(names)) == len(names) <= SPACES_MAX
    yield "the default space first", not names or names[0] == DEFAULT_SPACE
    yield "names of spaces", all(map(is_space_name, names[1:]))
    yield "the feature that names of spaces need", len(names) < 2 or SPACES in manifest.features
    for number, space in enumerate(spaces):
        least = 0 if number == 0 and len(spaces) > 1 else 1
        yield "a dimension", least <= space.dimension <= DIMENSION_MAX


def _facts_of_file(entry: FileEntry, manifest: Manifest) -> Iterator[tuple[str, bool]]:
    number = f"of file {entry.number}:"
    yield f"{number} number below {manifest.next_file}", 1 <= entry.number < manifest.next_file
    yield f"{number} marks below {manifest.next_file}", 0 <= entry.marks < manifest.next_file
    yield f"{number} size", 0 <= entry.size <= NUMBER_MAX
    yield f"{number} rows", 1 <= entry.rows <= RUN_ROWS_MAX
    yield f"{number} origin", _UUID.fullmatch(entry.origin) is not None
    yield f"{number} fingerprint", _UUID.fullmatch(entry.fingerprint) is not None
    if entry.marks:
        yield f"{number} marks_size", 0 <= entry.marks_size <= NUMBER_MAX
        yield f"{number} marks_origin", _UUID.fullmatch(entry.marks_origin) is not None
        sound = _UUID.fullmatch(entry.marks_fingerprint) is not None
        yield f"{number} marks_fingerprint", sound
    yield f"{number} commit_seq", 0 <= entry.commit_seq <= manifest.last_seq
    yield f"{number} commit_time", 0 <= entry.commit_time <= TIME_MAX


def _facts_of_segment(entry: SegmentEntry, last_seq: int) -> Iterator[tuple[str, bool]]:
    number = f"of segment {entry.number}:"
    yield f"{number} seq_min and seq_max", 1 <= entry.seq_min <= entry.seq_max <= last_seq
    yield f"{number} time_min and time_max", 0 <= entry.time_min <= entry.time_max <= TIME_MAX
    yield f"{number} live", all(0 <= count <= entry.rows for count in entry.live)
    if entry.commit_seq:
        seqs, times = (entry.seq_min, entry.seq_max), (entry.time_min, entry.time_max)
        yield f"{number} the seq of its commit", seqs == (entry.commit_seq, entry.commit_seq)
        yield f"{number} the time of its commit", times == (entry.commit_time, entry.commit_time)


def _facts_of_vectors(entry: VectorEntry, spaces: list[Space]) -> Iterator[tuple[str, bool]]:
    number = f"of vector file {entry.number}:"
    known = 0 <= entry.space < len(spaces)
    yield f"{number} a space", known
    yield f"{number} dimension", known and entry.dimension == spaces[entry.space].dimension
    low, high = entry.number_min, entry.number_max
    yield f"{number} number_min and number_max", 1 <= low <= high < 2**64
    yield f"{number} unreferenced", 0 <= entry.unreferenced <= entry.rows


def load_latest(environment: Environment, directory: str) -> Manifest | None:
    """The manifest with the highest number, or None if there is none."""
    numbers = numbers_in(environment.list(directory))
    if not numbers:
        return None
    path = f"{directory}/{name_of(numbers[-1])}"
    file = environment.open(path, "r")
    try:
        manifest = decode(file.read_at(0, file.size()), path)
    finally:
        file.close()
    if manifest.number != numbers[-1]:
        raise CorruptionError(path, HEADER.size, f"number {numbers[-1]}", manifest.number)
    return manifest


def publish(environment: Environment, directory: str, manifest: Manifest) -> None:
    """Make it the current one. Raises FileExistsError if another writer took the number."""
    temporary = f"{directory}/tmp/{name_of(manifest.number)}"
    if environment.exists(temporary):
        environment.unlink(temporary)  # of a writer that died before it could link it
    file = environment.open(temporary, "x")
    try:
        file.write_at(0, encode(manifest))
        file.sync()
    finally:
        file.close()
    environment.link(temporary, f"{directory}/{name_of(manifest.number)}")
    environment.sync_directory(directory)
    environment.unlink(temporary)
    for number in numbers_in(environment.list(directory))[:-MANIFESTS_KEPT]:
        environment.unlink(f"{directory}/{name_of(number)}")
