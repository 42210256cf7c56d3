"""Derived data: named sets of arrays beside the log, each in a file of its own under `derived/`.

What stands here can be computed again or is a mere statistic. So it is never synced, and a file
that is missing, torn, damaged, of another database or of another state of things (see `stamp`) is
the same as none: it is counted and the next store replaces it. Nothing of it goes into a checkpoint
or a fork, and a repair removes it. An erasure removes all of it, because nobody here knows what
traces it holds.

A file is a container (see `container`) of kind b"DERV"; its number is the xxh3-64 of its name. The
section "contents" says in MessagePack what the other sections are: [stamp, [[name, dtype, shape]]],
the dtype empty for bytes. Arrays are in row-major order, little-endian. Those that were stored to
be mapped are chunked sections, each followed by its sums; they come last.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from engramdb.errors import CorruptionError, EngramError, InvalidInputError
from engramdb.lsm.chunks import Chunks
from engramdb.lsm.container import (
    CHUNKED,
    DERIVED,
    ContainerReader,
    ContainerWriter,
    Matrix,
)
from engramdb.lsm.core import Core
from engramdb.lsm.environment import Environment
from engramdb.lsm.mapped import Mapped

Value = npt.NDArray[Any] | bytes
Values = dict[str, Value]
Loaded = dict[str, Value | Mapped]

_NAME: Final = re.compile(r"[a-z0-9-]{1,100}")
_VALUE_NAME: Final = re.compile(r"[a-z0-9_.-]{1,16}")
_ENDING: Final = ".drv"
_CONTENTS: Final = "contents"
_SUMS: Final = ".sums"
_DTYPES: Final = frozenset(
    ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")
)


class Streamed(NamedTuple):
    """A float32 matrix that comes in parts; see ContainerWriter.matrix() for their sizes."""

    shape: tuple[int, int]
    parts: Iterable[Matrix]


class _ErasedMeanwhile(Exception):
    """What is being written must not be."""


class _Entry(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]


class _Contents(NamedTuple):
    stamp: bytes
    values: list[_Entry]


class Derived:
    """The store of one open engine. Thread-safe."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._erasing = 0
        self._streaming = threading.Lock()  # held while a large file is written; taken before:
        self.lock = threading.Lock()
        """Held while files are written or removed. The last one to be taken."""
        self.erasures = 0
        """How many erasures were finished; see store()."""
        self.unusable = 0
        """How often a file was there and could not be used."""
        self.failed = 0
        """How often a file could not be written or removed."""

    def load(self, name: str, *, stamp: bytes = b"") -> Loaded | None:
        """What was stored under a name with this stamp, or None. Arrays are read-only; all is
        checked but what was stored to be mapped: that comes as Mapped.

        Raises ClosedError, and InvalidInputError if that cannot be a name.
        """
        path = self._path(name)
        self._core.check_open()
        try:
            contents, values = self._read(path, name)
        except FileNotFoundError:
            return None
        except (OSError, EngramError):
            self.refuse()
            return None
        if contents.stamp != stamp:
            self.refuse()
            return None
        return values

    def refuse(self) -> None:
        """Count a file that is of no use; for an owner who finds that its values make no sense."""
        self.unusable += 1

    def store(
        self,
        name: str,
        values: Mapping[str, Value],
        *,
        erasures: int,
        stamp: bytes = b"",
        mapped: Collection[str] = (),
        streamed: Mapping[str, Streamed] | None = None,
    ) -> bool:
        """Replace what is stored under a name. Not synced: a power cut may undo it.

        name       1 to 100 of a-z, 0-9 and "-"
        values     arrays of bool, int or float, and bytes; names of 1 to 16 of a-z 0-9 _ . -
        erasures   the attribute `erasures`, read before the values were taken from the database:
                   if anything was erased since, or is just being erased, nothing is stored
        stamp      what the values belong to; load() wants the same
        mapped     the names of the arrays that load() maps and does not read: large ones; of 1 to
                   11 characters
        streamed   further float32 matrices, mapped too, which are made while they are written

        False if it was not stored: for that reason, or the database was opened to be read, a write
        of it has failed, this one fails, or this thread is just writing and was interrupted. Raises
        ClosedError and InvalidInputError.
        """
        path, core = self._path(name), self._core
        sections, contents = _checked(values, stamp, mapped)
        for each, matrix in (streamed or {}).items():
            contents.values.append(_Entry(each, "<f4", matrix.shape))
        core.check_open()
        writing, me = core.writing, threading.get_ident()
        if core.read_only or core.poison is not None or me in writing:
            return False
        writer = ContainerWriter(DERIVED, core.database, _number(name))
        writer.blob(_CONTENTS, msgspec.msgpack.encode(contents))
        for section, data in sections.items():
            if section in mapped:
                writer.chunked(section, memoryview(data))
            else:
                writer.blob(section, data)
        for each, matrix in (streamed or {}).items():
            writer.matrix(each, 4 * math.prod(matrix.shape), self._unless_erasing(matrix.parts))
        try:
            writing.add(me)
            if not streamed:
                with self.lock:
                    return self._is_welcome(erasures) and self._write(
                        writer, path, erasures, nullcontext()
                    )
            with self._streaming:  # what takes long does not keep others from storing
                return self._is_welcome(erasures) and self._write(writer, path, erasures, self.lock)
        except _ErasedMeanwhile:
            return False
        finally:
            writing.discard(me)

    def _is_welcome(self, erasures: int) -> bool:
        self._core.check_open()
        return not self._erasing and erasures == self.erasures

    def _unless_erasing(self, parts: Iterable[Matrix]) -> Iterator[Matrix]:
        for part in parts:
            if self._erasing:
                raise _ErasedMeanwhile
            yield part

    def remove(self, name: str) -> bool:
        """Forget what is stored under a name. Not synced: a power cut may bring it back. What was
        mapped of it stays readable.

        False if there was nothing, or where store() would not store either. Raises ClosedError and
        InvalidInputError.
        """
        path, core = self._path(name), self._core
        core.check_open()
        writing, me = core.writing, threading.get_ident()
        if core.read_only or core.poison is not None or me in writing:
            return False
        try:
            writing.add(me)
            with self.lock:
                core.check_open()
                core.environment.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            self.failed += 1
            return False
        finally:
            writing.discard(me)
        return True

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin like this under which something lies, sound or not; sorted.

        Raises ClosedError, and EngramError if the directory cannot be read.
        """
        core = self._core
        core.check_open()
        try:
            entries = _names_in(core.environment, f"{core.directory}/derived")
        except OSError as error:
            raise EngramError(f"the directory cannot be read: {error}; try again") from error
        names = [each.removesuffix(_ENDING) for each in entries if each.endswith(_ENDING)]
        return sorted(each for each in names if each.startswith(prefix) and _NAME.fullmatch(each))

    @contextmanager
    def erasing(self) -> Iterator[None]:
        """Around an erasure: removes everything before it begins, durably; nothing is stored until
        it is over. Raises StoragePoisonedError."""
        core = self._core
        with self.lock:
            core.check_writable()
            self._erasing += 1
        try:
            with self._streaming, self.lock:  # who is writing there sees it, and gives up
                core.check_writable()  # it may have been closed meanwhile
                try:
                    remove_all(core.environment, core.directory)
                except OSError as error:
                    raise core.fail(error) from error
            yield
        finally:
            with self.lock:
                self._erasing -= 1
                self.erasures += 1

    def check(self) -> tuple[str, ...]:
        """What is wrong with the files, in words. Nothing of it is a problem of the database."""
        found = []
        for entry in _names_in(self._core.environment, f"{self._core.directory}/derived"):
            name = entry.removesuffix(_ENDING)
            path = f"{self._core.directory}/derived/{entry}"
            if name == entry or not _NAME.fullmatch(name):
                found.append(f"{path} is none of ours")
                continue
            try:
                self._read(path, name, thorough=True)
            except FileNotFoundError:
                continue  # replaced or erased meanwhile
            except (OSError, EngramError) as error:
                found.append(f"{error}; it is derived data, and will be made anew")
        return tuple(found)

    def statistics(self) -> dict[str, int]:
        """Files, their bytes, and the counters."""
        environment, directory = self._core.environment, self._core.directory
        files = size = 0
        for entry in _names_in(environment, f"{directory}/derived"):
            if entry.endswith(_ENDING):
                with suppress(FileNotFoundError):  # replaced or erased meanwhile
                    size += environment.size(f"{directory}/derived/{entry}")
                    files += 1
        return {
            "derived_files": files,
            "derived_bytes": size,
            "derived_unusable": self.unusable,
            "derived_failed": self.failed,
        }

    def _path(self, name: str) -> str:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidInputError("name", f"1 to 100 of a-z, 0-9 and '-', not {name!r:.80}")
        return f"{self._core.directory}/derived/{name}{_ENDING}"

    def _write(
        self,
        writer: ContainerWriter,
        path: str,
        erasures: int,
        lock: AbstractContextManager[object],
    ) -> bool:
        """`lock` is taken once the file is written, to put it in its place."""
        core = self._core
        environment = core.environment
        temporary = core.temporary("drv", core.new_number())
        try:
            folder = f"{core.directory}/derived"
            if not environment.exists(folder):
                environment.make_directory(folder)
            writer.write(environment, temporary, sync=False)
            with lock:
                if self._is_welcome(erasures):
                    environment.rename(temporary, path)
                    return True
                environment.unlink(temporary)
                return False
        except OSError:
            self.failed += 1
            self._discard(temporary)
            return False
        except BaseException:  # of who makes the parts, or Ctrl-C
            self._discard(temporary)
            raise

    def _discard(self, temporary: str) -> None:
        with suppress(OSError):  # else the next opening removes it
            self._core.environment.unlink(temporary)

    def _read(self, path: str, name: str, *, thorough: bool = False) -> tuple[_Contents, Loaded]:
        """Every byte of a file, checked; what is mapped only if `thorough`. Raises OSError,
        EngramError."""
        core = self._core
        reader = ContainerReader(
            core.environment,
            path,
            kind=DERIVED,
            database=core.database,
            number=_number(name),
            size=core.environment.size(path),
            fingerprint=None,
        )
        try:
            if thorough:
                reader.verify()
            else:
                reader.check_padding()
            contents = _decoded(reader)
            chunked = [each for each in contents.values if _is_chunked(reader, each.name)]
            whole = reader.mapped() if chunked else None
            return contents, {each.name: _value(reader, each, whole) for each in contents.values}
        finally:
            reader.close()


def remove_all(environment: Environment, directory: str) -> None:
    """Remove all derived files of a directory, durably, and what was left of writing them."""
    if environment.exists(f"{directory}/derived"):
        for folder in (f"{directory}/derived", f"{directory}/tmp"):
            for entry in _names_in(environment, folder):
                if entry.endswith(_ENDING):
                    environment.unlink(f"{folder}/{entry}")
            with suppress(NotADirectoryError):  # a file in its place is none of ours
                environment.sync_directory(folder)


def _names_in(environment: Environment, folder: str) -> list[str]:
    """What is there; nothing if there is no such folder."""
    try:
        return environment.list(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _number(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode())


def _checked(
    values: Mapping[str, Value], stamp: bytes, mapped: Collection[str]
) -> tuple[dict[str, bytes | memoryview], _Contents]:
    """The bytes of all values, those that are to be mapped last, and what describes them. Raises
    InvalidInputError."""
    for name in mapped:
        if not isinstance(values.get(name), np.ndarray) or not _VALUE_NAME.fullmatch(name + _SUMS):
            raise InvalidInputError("mapped", f"{name!r:.80} is no array, or its name is too long")
        if name + _SUMS in values:
            raise InvalidInputError("values", f"{name + _SUMS!r} is taken: {name!r} is mapped")
    sections: dict[str, bytes | memoryview] = {}
    entries = []
    for name, value in sorted(values.items(), key=lambda item: item[0] in mapped):
        if not _VALUE_NAME.fullmatch(name) or name == _CONTENTS:
            raise InvalidInputError("values", f"{name!r:.80} is no name for a value")
        if isinstance(value, bytes):
            sections[name] = value
            entries.append(_Entry(name, "", (len(value),)))
            continue
        array = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).reshape(value.shape)
        if array.dtype.str not in _DTYPES:
            raise InvalidInputError("values", f"{name} is an array of {value.dtype}")
        sections[name] = array.reshape(-1).view(np.uint8).data
        entries.append(_Entry(name, array.dtype.str, array.shape))
    return sections, _Contents(bytes(stamp), entries)


def _decoded(reader: ContainerReader) -> _Contents:
    """What the file says it consists of. Raises CorruptionError."""
    try:
        contents = msgspec.msgpack.decode(reader.blob(_CONTENTS), type=_Contents)
    except msgspec.DecodeError as error:
        raise CorruptionError(reader.path, 0, "a list of what it holds", error) from error
    listed = [_CONTENTS]
    for each in contents.values:
        listed.append(each.name)
        if _is_chunked(reader, each.name):
            listed.append(each.name + _SUMS)
    if listed != reader.names():
        raise CorruptionError(reader.path, 0, f"sections {listed}", reader.names())
    return contents


def _is_chunked(reader: ContainerReader, name: str) -> bool:
    return name in reader and reader.section(name).encoding == CHUNKED


def _value(reader: ContainerReader, entry: _Entry, whole: memoryview | None) -> Value | Mapped:
    """A value, read and checked; or mapped out of the `whole` file, if it is chunked."""
    chunked = _is_chunked(reader, entry.name)
    length = reader.section(entry.name).length
    if entry.dtype not in _DTYPES and (entry.dtype or chunked):
        raise CorruptionError(reader.path, 0, "a type that is known here", entry.dtype)
    size = math.prod(entry.shape) * (np.dtype(entry.dtype).itemsize if entry.dtype else 1)
    if size != length or not all(0 <= extent <= 2**48 for extent in entry.shape):
        raise CorruptionError(reader.path, 0, f"an array of shape {entry.shape}", length)
    if not entry.dtype:
        return reader.blob(entry.name)
    try:
        if not chunked:
            return np.ndarray(entry.shape, entry.dtype, reader.blob(entry.name))
        row_bytes = size // (entry.shape or (1,))[0] if size else 1
        chunks = Chunks(reader, entry.name, row_bytes, whole)
        return Mapped(np.ndarray(entry.shape, entry.dtype, chunks.data), chunks)
    except ValueError as error:  # more dimensions than arrays have, or empty ones that are too long
        raise CorruptionError(reader.path, 0, f"an array of shape {entry.shape}", error) from error
