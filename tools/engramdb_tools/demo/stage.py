"""How the demo looks: headings, wrapped text, bars and timings in a plain terminal of 80 columns.

Colour only where a person is watching: standard output is a terminal, NO_COLOR is unset
(no-color.org) and TERM is not "dumb".
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TextIO, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

WIDTH_MIN: Final = 76
WIDTH_MAX: Final = 96
MARGIN: Final = "   "
TIMING_COLUMNS: Final = 10  # kept free at the right for "  123.4 ms"

_STYLES: Final = {
    "": "",
    "bold": "1",
    "dim": "2",
    "title": "1;36",
    "good": "32",
    "bad": "31",
    "warm": "33",
    "quote": "3",
    "time": "2;36",
}
_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")


class DemoFailed(Exception):
    """Something that the demo promises did not hold. The exit code is 1."""


def expect(condition: bool, promise: str) -> None:
    """The demo's hard assertion: never compiled away, and it says what was promised."""
    if not condition:
        raise DemoFailed(promise)


def timed(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """What `call` returns for these arguments, and the seconds that it took."""
    began = time.perf_counter()
    result = call(*args, **kwargs)
    return result, time.perf_counter() - began


def duration(seconds: float) -> str:
    """A time in the unit that a person would use."""
    if seconds < 0.000_9995:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s"


def size(size_bytes: int) -> str:
    """A size in KB or MB of 1,000s, as disks are sold."""
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:,.0f} KB"
    return f"{size_bytes / 1e6:,.1f} MB"


class Stage:
    """Prints the demo. Everything that is printed goes through here."""

    def __init__(self, out: TextIO | None = None, colour: bool | None = None) -> None:
        self._out = sys.stdout if out is None else out
        terminal = self._out.isatty()
        if colour is None:
            wanted = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
            colour = terminal and wanted
        self.colour = colour
        columns = shutil.get_terminal_size().columns if terminal else WIDTH_MIN
        self.width = max(WIDTH_MIN, min(WIDTH_MAX, columns - 2))
        self._step = 0

    def styled(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.colour and style else text

    def write(self, line: str = "") -> None:
        self._out.write(line.rstrip(" ") + "\n")
        self._out.flush()

    def title(self, text: str, below: str) -> None:
        self.write()
        self.write(MARGIN + self.styled(text, "bold"))
        self.write(MARGIN + self.styled("━" * (self.width - len(MARGIN)), "title"))
        self.prose(below)

    def step(self, name: str, introduction: str) -> None:
        """Open the next numbered step."""
        self._step += 1
        self.write()
        self.write(f"{self.styled(f'{self._step:2} {name}', 'title')}")
        self.prose(introduction)
        self.write()

    def prose(self, text: str) -> None:
        for line in textwrap.wrap(text, self.width - len(MARGIN)):
            self.write(MARGIN + self.styled(line, "dim"))

    def say(
        self,
        text: str,
        *,
        style: str = "",
        took: float | None = None,
        lead: str = "",
        hang: str = "",
    ) -> None:
        """A paragraph; its timing, if there is one, stands at the right edge of the first line.

        `lead` comes before the text, `hang` before every further line (blanks if not given); both
        may be styled already.
        """
        first, further = MARGIN + lead, MARGIN + (hang or " " * visible(lead))
        room = self.width - visible(first) - (0 if took is None else TIMING_COLUMNS)
        lines = textwrap.wrap(text, room) or [""]
        for number, line in enumerate(lines):
            shown = (further if number else first) + self.styled(line, style)
            if took is not None and number == 0:
                timing = duration(took).rjust(self.width - visible(shown))
                shown += self.styled(timing, "time")
            self.write(shown)

    def question(self, text: str, took: float | None = None) -> None:
        self.say(text, style="bold", took=took, lead=self.styled("? ", "title"))

    def hit(self, score: float, text: str, style: str = "") -> None:
        """A search result: its score as a bar and as a number."""
        full = max(0, min(10, round(score * 10)))
        bar = self.styled("━" * full, "good") + self.styled("╌" * (10 - full), "dim")
        self.say(text, style=style, lead=f"  {bar} {score:.2f}  ")

    def good(self, text: str, took: float | None = None) -> None:
        self.say(text, took=took, lead=self.styled("✔ ", "good"))

    def aside(self, text: str) -> None:
        self.say(text, style="dim", lead="  ")

    def columns(self, left: tuple[str, list[str]], right: tuple[str, list[str]]) -> None:
        """Two headed columns side by side; each item is wrapped and marked with a dot."""
        room = (self.width - len(MARGIN) - 6) // 2
        sides = []
        for heading, items in (left, right):
            lines = [(heading, "warm"), ("─" * room, "dim")]
            for item in items:
                wrapped = textwrap.wrap(item, room - 2)
                lines += [(("  " if n else "· ") + line, "") for n, line in enumerate(wrapped)]
            sides.append(lines)
        for number in range(max(map(len, sides))):
            cells = [side[number] if number < len(side) else ("", "") for side in sides]
            shown = [self.styled(text.ljust(room), style) for text, style in cells]
            self.write(f"{MARGIN}  {shown[0]}    {shown[1]}")


def visible(text: str) -> int:
    """How many columns a text takes, its colours not counted."""
    return len(_ESCAPE.sub("", text))
