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
    only what is written to it later, where hard links reach."""
    environment = core.environment
    if environment.exists(destination) and environment.list(destination):
        raise InvalidInputError("path", f"{destination} is not empty; name a new directory")
    with core.flush_lock:
        if not core.read_only:
            core.check_writable()
            with core.write_lock:
                core.freeze()
            while frozen := core.state.version.frozen:
                flush_table(core, frozen[0], core.manifest_lock, core.write_lock)
        with core.manifest_lock:
            manifest = core.manifest
            if core.read_only and core.state.seq > manifest.last_seq:
                raise InvalidInputError(
                    "path", "the writer has not flushed its last commits; copy from the writer"
                )
            _copy_files(environment, core.directory, destination, live_names(manifest))
            identity = environment.random_bytes(16).hex() if new_identity else manifest.database
            manifests.publish(
                environment,
                destination,
                msgspec.structs.replace(
                    manifest, database=identity, number=1, copies=[], log_floor=manifest.next_file
                ),
            )
            if not core.read_only:
                try:
                    core.republish(copies=[*manifest.copies, destination])
                    core.remove_obsolete()
                except (OSError, EngramError) as error:
                    raise core.fail(error) from error


def _copy_files(environment: Environment, source: str, destination: str, names: set[str]) -> None:
    environment.make_directory(destination)
    for name in DIRECTORIES:
        environment.make_directory(f"{destination}/{name}")
    for name in sorted(names):
        try:
            environment.link(f"{source}/{name}", f"{destination}/{name}")
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            environment.copy(f"{source}/{name}", f"{destination}/{name}")
    for name in ("seg", "vec"):
        environment.sync_directory(f"{destination}/{name}")
