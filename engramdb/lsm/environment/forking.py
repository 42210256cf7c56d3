"""Tells objects that they now live in a forked child, where they must not be used."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something with threads, locks or file positions that a child must not share."""

    def after_fork_in_child(self) -> None:
        """Called in the child, before anything else of it runs."""


_registered: weakref.WeakSet[Forkable] = weakref.WeakSet()


def register(forkable: Forkable) -> None:
    """Have it told. Only a weak reference is kept."""
    _registered.add(forkable)


def _tell_all() -> None:
    for forkable in list(_registered):
        forkable.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell_all)
