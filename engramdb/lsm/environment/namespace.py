"""A tree of names over numbered nodes, as a file system has it: for the two environments in memory.

A change of names is first planned (and refused with the errno that POSIX gives), as a list of
entries to set, and then applied; so whoever records changes records the same thing it applies.
"""

from __future__ import annotations

import errno
import os
from typing import Final, NamedTuple

ROOT: Final = 0


class Entry(NamedTuple):
    """The name `name` in the directory `directory` now stands for `node` (None: for nothing)."""

    directory: int
    name: str
    node: int | None


Change = tuple[Entry, ...]


def failure(number: int, *paths: str) -> OSError:
    """The OSError that the system raises for this errno."""
    if len(paths) == 2:
        return OSError(number, os.strerror(number), paths[0], None, paths[1])
    return OSError(number, os.strerror(number), *paths)


def split(path: str) -> list[str]:
    """The parts of an absolute path."""
    if not path.startswith("/"):
        raise failure(errno.EINVAL, path)
    return [part for part in path.split("/") if part]


class Namespace:
    """Directories by number, each a dict of name to node number. Not thread-safe by itself."""

    __slots__ = ("directories",)

    def __init__(self, directories: dict[int, dict[str, int]] | None = None) -> None:
        self.directories = {ROOT: {}} if directories is None else directories

    def find(self, path: str) -> int | None:
        """The node that `path` stands for, or None."""
        node: int | None = ROOT
        for part in split(path):
            entries = self.directories.get(node)  # type: ignore[arg-type]
            if entries is None:
                return None
            node = entries.get(part)
        return node

    def file(self, path: str) -> int:
        """The node of a file; ENOENT or EISDIR."""
        node = self.find(path)
        if node is None:
            raise failure(errno.ENOENT, path)
        if node in self.directories:
            raise failure(errno.EISDIR, path)
        return node

    def directory(self, path: str) -> int:
        """The node of a directory; ENOENT or ENOTDIR."""
        node = self.find(path)
        if node is None:
            raise failure(errno.ENOENT, path)
        if node not in self.directories:
            raise failure(errno.ENOTDIR, path)
        return node

    def place(self, path: str) -> tuple[int, str]:
        """The directory that `path` is or would be in, and the name there."""
        parts = split(path)
        if not parts:
            raise failure(errno.EEXIST, path)
        return self.directory("/" + "/".join(parts[:-1])), parts[-1]

    def plan_create(self, path: str, node: int) -> Change:
        """A new name for a new node."""
        directory, name = self.place(path)
        if name in self.directories[directory]:
            raise failure(errno.EEXIST, path)
        return (Entry(directory, name, node),)

    def plan_link(self, source: str, destination: str) -> Change:
        """A second name for a file."""
        node = self.file(source)
        directory, name = self.place(destination)
        if name in self.directories[directory]:
            raise failure(errno.EEXIST, source, destination)
        return (Entry(directory, name, node),)

    def plan_unlink(self, path: str) -> Change:
        """A file's name less."""
        self.file(path)
        directory, name = self.place(path)
        return (Entry(directory, name, None),)

    def plan_rename(self, source: str, destination: str) -> Change:
        """The destination stands for what the source stood for, in one step."""
        node = self.find(source)
        if node is None:
            raise failure(errno.ENOENT, source, destination)
        from_directory, from_name = self.place(source)
        to_directory, to_name = self.place(destination)
        replaced = self.directories[to_directory].get(to_name)
        if replaced == node:
            return ()  # two names of one file: POSIX does nothing
        moves_directory = node in self.directories
        if moves_directory and split(destination)[: len(split(source))] == split(source):
            raise failure(errno.EINVAL, source, destination)  # into itself
        if replaced is not None:
            replaces_directory = replaced in self.directories
            if moves_directory and not replaces_directory:
                raise failure(errno.ENOTDIR, source, destination)
            if replaces_directory and not moves_directory:
                raise failure(errno.EISDIR, source, destination)
            if replaces_directory and self.directories[replaced]:
                raise failure(errno.ENOTEMPTY, source, destination)
        return (Entry(from_directory, from_name, None), Entry(to_directory, to_name, node))

    def apply(self, change: Change) -> None:
        """Do what was planned."""
        for directory, name, node in change:
            if node is None:
                self.directories[directory].pop(name, None)
            else:
                self.directories[directory][name] = node
