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

import struct
from datetime import timedelta
from typing import Final

import msgspec
import xxhash

from engramdb.errors import CorruptionError, IncompatibleFormatError
from engramdb.lsm.environment import Environment
from engramdb.lsm.limits import MANIFESTS_KEPT
from engramdb.lsm.retention import History, KeepAll, KeepFor, KeepLast

MAGIC: Final = b"ENGRAMMF"
FORMAT: Final = 1
FEATURES: Final = frozenset[str]()  # what this version understands beyond format 1
HEADER: Final = struct.Struct("<8sII16s")
assert HEADER.size == 32
_PREFIX: Final = "MANIFEST-"


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
    """A vector space: all its vectors have one dimension. Part of the format; so far there is
    one."""

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
        if name.startswith(_PREFIX) and name.isascii() and name[len(_PREFIX) :].isdigit()
    )


def encode(manifest: Manifest) -> bytes:
    """The bytes of the file."""
    body = msgspec.json.encode(manifest)
    head = HEADER.pack(MAGIC, FORMAT, len(body), bytes(16))[:16]
    return head + xxhash.xxh3_128_digest(head + body) + body


def decode(data: bytes, path: str) -> Manifest:
    """Raises CorruptionError or IncompatibleFormatError."""
    if len(data) < HEADER.size:
        raise CorruptionError(path, 0, f"at least {HEADER.size} bytes", len(data))
    magic, version, length, digest = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise IncompatibleFormatError(f"{path} is not a manifest of EngramDB: it starts {magic!r}")
    body = data[HEADER.size :]
    if len(body) != length or xxhash.xxh3_128_digest(data[:16] + body) != digest:
        raise CorruptionError(
            path, 16, "a sound checksum", f"{digest.hex()} over {len(body)} bytes"
        )
    if version != FORMAT:
        raise IncompatibleFormatError(f"{path} has format {version}, this reads {FORMAT}: upgrade")
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except msgspec.MsgspecError as error:
        raise CorruptionError(path, HEADER.size, "a manifest", error) from error
    unknown = set(manifest.features) - FEATURES
    if unknown:
        raise IncompatibleFormatError(f"{path} needs {sorted(unknown)}: upgrade EngramDB")
    return manifest


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
