"""Checkpoints and forks: hard links to the immutable files, and a manifest of their own."""

from __future__ import annotations

import errno

import msgspec

from engramdb.errors import EngramError, InvalidInputError
from engramdb.lsm import manifest as manifests
from engramdb.lsm.core import DIRECTORIES, Core, live_names
from engramdb.lsm.environment import Environment
from engramdb.lsm.flush import flush_table


def copy_database(core: Core, destination: str, *, new_identity: bool) -> None:
    """Make `destination`, which must not exist or be empty, a database of its own with everything
    committed so far. A fork gets a new identity; a checkpoint keeps the old one. On disk it takes
    only what is written to it later, where hard links reach.

    Raises EngramError if the copy cannot be made; the database itself is unharmed then.
    """
    environment = core.environment
    core.check_writable()
    try:
        taken = environment.exists(destination) and bool(environment.list(destination))
    except OSError as error:
        raise InvalidInputError("path", f"{destination} is no directory: {error}") from error
    if taken:
        raise InvalidInputError("path", f"{destination} is not empty; name a new directory")
    with core.flush_lock:
        with core.write_lock:
            core.freeze()
        while frozen := core.state.version.frozen:
            flush_table(core, frozen[0], core.manifest_lock, core.write_lock)
        with core.manifest_lock:
            # first: whatever happens then, an erasure knows where copies may be
            copies = dict.fromkeys([*core.manifest.copies, destination])  # each once
            core.republish(copies=list(copies))
            core.remove_obsolete()
            manifest = core.manifest
            identity = environment.random_bytes(16).hex() if new_identity else manifest.database
            try:
                _copy_files(environment, core.directory, destination, live_names(manifest))
                manifests.publish(
                    environment,
                    destination,
                    msgspec.structs.replace(
                        manifest,
                        database=identity,
                        number=1,
                        copies=[],
                        log_floor=manifest.next_file,
                    ),
                )
            except OSError as error:
                raise EngramError(
                    f"the copy at {destination} could not be made: {error}; the database itself "
                    "is unharmed: remove what is there, mend the cause and copy again"
                ) from error


def _copy_files(environment: Environment, source: str, destination: str, names: set[str]) -> None:
    environment.make_directory(destination)
    for name in DIRECTORIES:
        environment.make_directory(f"{destination}/{name}")
    for name in sorted(names):
        link_or_copy(environment, f"{source}/{name}", f"{destination}/{name}")
    for name in ("seg", "vec"):
        environment.sync_directory(f"{destination}/{name}")


def link_or_copy(environment: Environment, source: str, destination: str) -> None:
    """A second name for a file; a copy, synced, where the file system has no such thing. Raises
    FileExistsError if `destination` is there."""
    try:
        environment.link(source, destination)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        environment.copy(source, destination)
