"""What an engine is given to call, before there is anybody who wants to be told."""

from __future__ import annotations

from collections.abc import Callable


class Hook:
    """What the engine calls when the files have changed, which is opened before there is anybody
    to tell. Never raises."""

    __slots__ = ("call",)

    def __init__(self) -> None:
        self.call: Callable[[], None] | None = None

    def __call__(self) -> None:
        if self.call is not None:
            self.call()
