"""Makes, locks and opens a directory."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Final

import msgspec

from engramdb.errors import (
    CorruptionError,
    DatabaseLockedError,
    EngramError,
    IncompatibleFormatError,
    InvalidInputError,
    StoragePoisonedError,
)
from engramdb.lsm import manifest as manifests
from engramdb.lsm.block_cache import BlockCache
from engramdb.lsm.core import DIRECTORIES, Core, live_names, number_of
from engramdb.lsm.environment import Environment, Lock, LockHeld
from engramdb.lsm.log_writer import Visible, encode_visible
from engramdb.lsm.manifest import Manifest, encode_policy
from engramdb.lsm.options import Options
from engramdb.lsm.recovery import Recovered, Replay, close_files, open_files

_PID = re.compile(r"[0-9]{1,18}")
REPAIR_NOTE: Final = "-repair-made-files-from-"
"""In the name of a note under lost/ that a repair which was cut short has left there."""

_OURS = {*DIRECTORIES, "LOCK", "VISIBLE", "derived", "lost", "readers"}


def open_core(
    environment: Environment, directory: str, options: Options, *, create: bool, read_only: bool
) -> Core:
    """Open for writing, or to read. Raises what StorageEngine.open documents."""
    try:
        if read_only:
            return _open_to_read(environment, directory, options)
        return _lock_and_open(environment, directory, options, create=create)
    except OSError as error:
        raise StoragePoisonedError(error) from error


def _lock_and_open(
    environment: Environment, directory: str, options: Options, *, create: bool
) -> Core:
    if not environment.exists(directory):
        if not create:
            raise InvalidInputError("path", f"there is no database at {directory}")
        environment.make_directory(directory)
    elif not create and not manifests.numbers_in(environment.list(directory)):
        raise InvalidInputError("path", f"there is no database at {directory}")
    lock = lock_directory(environment, directory)
    try:
        manifest = _manifest(environment, directory, options)
        return _open_to_write(environment, directory, options, manifest, lock)
    except BaseException:
        lock.release()
        raise


def lock_directory(environment: Environment, directory: str) -> Lock:
    """Be the only writer. Raises DatabaseLockedError."""
    try:
        return environment.lock(f"{directory}/LOCK", str(environment.process_id()).encode())
    except LockHeld as held:
        pid = held.content.decode("ascii", "replace")
        raise DatabaseLockedError(directory, int(pid) if _PID.fullmatch(pid) else None) from held


def _manifest(environment: Environment, directory: str, options: Options) -> Manifest:
    names = environment.list(directory)
    manifest = manifests.load_latest(environment, directory)
    if manifest is not None:
        return manifest
    foreign = sorted(set(names) - _OURS)
    if foreign:
        raise IncompatibleFormatError(
            f"{directory} holds {foreign[0]!r} and no database: name an empty directory"
        )
    for name in ("wal", "seg", "vec"):
        if name in names and environment.list(f"{directory}/{name}"):
            raise CorruptionError(directory, 0, "a manifest beside its files", "none")
    for name in DIRECTORIES:
        environment.make_directory(f"{directory}/{name}")
    spaces = [] if options.dimension is None else [manifests.Space("", options.dimension)]
    manifest = Manifest(
        database=environment.random_bytes(16).hex(),
        number=1,
        epoch=0,
        next_file=1,
        next_vector=1,
        last_seq=0,
        last_time=0,
        log_floor=1,
        spaces=spaces,
        history=encode_policy(options.history),
    )
    manifests.publish(environment, directory, manifest)
    return manifest


def highest_number(environment: Environment, directory: str) -> int:
    """The highest number of a file in the directory; 0 if there is none."""
    return max(
        number_of(name)
        for kind in DIRECTORIES
        for name in ["0", *environment.list(f"{directory}/{kind}")]
    )


def _open_to_write(
    environment: Environment, directory: str, options: Options, manifest: Manifest, lock: Lock
) -> Core:
    for name in DIRECTORIES:
        if not environment.exists(f"{directory}/{name}"):
            environment.make_directory(f"{directory}/{name}")
    next_file = max(manifest.next_file, highest_number(environment, directory) + 1)
    cache = BlockCache(options.cache_blocks)
    with ExitStack() as unless_opened:
        segments, vectors = open_files(
            environment, directory, manifest, cache, columns_of=options.columns_of
        )
        unless_opened.callback(close_files, (*segments, *vectors))
        recovered = Replay(
            environment, directory, manifest, options, segments, vectors, read_only=False
        ).run()
        # only now: a database that is refused is left as it is, for whoever repairs it
        if environment.exists(f"{directory}/tmp/{manifests.name_of(manifest.number)}"):
            # its writer did not live to see it durable, and files are removed on its word
            manifest = msgspec.structs.replace(manifest, number=manifest.number + 1)
            manifests.publish(environment, directory, manifest)
        _remove_leftovers(environment, directory, manifest)
        if environment.is_persistent:
            _show(environment, directory, recovered, manifest)
        unless_opened.pop_all()
    return _core(environment, directory, options, manifest, recovered, cache, next_file, lock)


def _show(
    environment: Environment, directory: str, recovered: Recovered, manifest: Manifest
) -> None:
    """What counts of the last log is synced now, and visible."""
    number, length = recovered.predecessor
    path = f"{directory}/VISIBLE"
    visible = environment.open(path, "w" if environment.exists(path) else "x")
    try:
        state = recovered.state
        shown = Visible(number, length, length, state.seq, state.time, manifest.number)
        visible.write_at(0, encode_visible(shown))
    finally:
        visible.close()


def _core(
    environment: Environment,
    directory: str,
    options: Options,
    manifest: Manifest,
    recovered: Recovered,
    cache: BlockCache,
    next_file: int,
    lock: Lock | None,
) -> Core:
    core = Core(
        environment,
        directory,
        options,
        manifest,
        recovered.state,
        next_file=next_file,
        next_vector=recovered.next_vector,
        read_only=lock is None,
        cache=cache,
        lock=lock,
        predecessor=recovered.predecessor,
    )
    core.spaces = recovered.spaces
    core.truncated_bytes = recovered.truncated_bytes
    return core


def _remove_leftovers(environment: Environment, directory: str, manifest: Manifest) -> None:
    """What a writer that died had begun and not published. Logs are recovery's business."""
    live = live_names(manifest)
    for name in environment.list(f"{directory}/tmp"):
        if number_of(name) or manifests.numbers_in([name]):
            environment.unlink(f"{directory}/tmp/{name}")
    for kind in ("seg", "vec"):
        for name in environment.list(f"{directory}/{kind}"):
            if f"{kind}/{name}" not in live and number_of(name):
                environment.unlink(f"{directory}/{kind}/{name}")
    for name in environment.list(f"{directory}/wal"):
        if 0 < number_of(name) < manifest.log_floor:
            environment.unlink(f"{directory}/wal/{name}")
    if environment.exists(f"{directory}/lost"):
        for name in environment.list(f"{directory}/lost"):
            if REPAIR_NOTE in name:  # what it tells of is gone now
                environment.unlink(f"{directory}/lost/{name}")


def _open_to_read(environment: Environment, directory: str, options: Options) -> Core:
    if not environment.exists(directory):
        raise InvalidInputError("path", f"there is no database at {directory}")
    cache = BlockCache(options.cache_blocks)
    manifest, recovered = load_to_read(environment, directory, options, cache, None)
    core = _core(environment, directory, options, manifest, recovered, cache, 0, None)
    try:
        environment.make_directory(f"{directory}/readers")
        name = f"{environment.process_id()}-{environment.random_bytes(6).hex()}"
        core.file_lock = environment.lock(f"{directory}/readers/{name}", name.encode())
        core.reader_name = name
    except (OSError, LockHeld):
        core.file_lock = None  # a directory that may only be read: nobody can be told, then
    return core


def load_to_read(
    environment: Environment,
    directory: str,
    options: Options,
    cache: BlockCache,
    known: Core | None,
) -> tuple[Manifest, Recovered]:
    """Manifest, files and visible log, of one moment although a writer goes on meanwhile."""
    version = known.state.version if known is not None else None
    problem: Exception | None = None
    for _ in range(100):
        try:
            manifest = manifests.load_latest(environment, directory)
        except FileNotFoundError as error:
            problem = error  # so many later ones came that it was removed
            continue
        if manifest is None:
            raise InvalidInputError("path", f"there is no database at {directory}")
        problem = None
        with ExitStack() as unless_read:
            try:
                if environment.exists(f"{directory}/tmp/{manifests.name_of(manifest.number)}"):
                    # its writer may not live to make the name durable: what is shown must stay
                    environment.sync_directory(directory)
                segments, vectors = open_files(
                    environment, directory, manifest, cache, version, options.columns_of
                )
                unless_read.callback(close_files, (*segments, *vectors), version)
                recovered = Replay(
                    environment, directory, manifest, options, segments, vectors, read_only=True
                ).run()
            except (OSError, EngramError) as error:
                problem = error  # the writer has swapped files under our hands, or it is damage
            latest = manifests.numbers_in(environment.list(directory))
            if latest[-1:] == [manifest.number]:
                if problem is not None:
                    raise problem
                unless_read.pop_all()
                return manifest, recovered
    raise problem or EngramError(f"{directory} changes too fast to be opened; try again")
