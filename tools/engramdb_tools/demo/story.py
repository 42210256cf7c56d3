"""The story of the demo: its file, and how it becomes memories."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from itertools import groupby
from typing import Final

import msgspec

from engramdb import Database, MemoryNode
from engramdb.embedding import LexicalEmbedder

EVE: Final = datetime(2025, 3, 2, tzinfo=UTC)  # the day before day 1, which is a Monday
DAYS: Final = 28

embed: Final = LexicalEmbedder()


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of story.jsonl: a memory (text), a revision of one, or a connection of two."""

    day: int
    at: str = ""
    name: str = ""
    kind: str = ""
    about: list[str] = []
    text: str = ""
    because: str = ""
    revise: str = ""
    connect: tuple[str, str] | None = None
    relation: str = msgspec.field(default="", name="as")
    strength: float = 1.0

    @property
    def when(self) -> datetime:
        return moment(self.day, self.at)


def moment(day: int, at: str) -> datetime:
    """The moment of the story: a day from 1 on, and a time such as "17:45"."""
    hours, minutes = at.split(":")
    return EVE + timedelta(days=day, hours=int(hours), minutes=int(minutes))


def read() -> list[Event]:
    """Every event, in the order in which it happened."""
    lines = resources.files(__package__).joinpath("story.jsonl").read_bytes().splitlines()
    decoder = msgspec.json.Decoder(Event)
    return [decoder.decode(line) for line in lines]


def by_day(events: list[Event]) -> Iterator[tuple[int, list[Event]]]:
    for day, group in groupby(events, key=lambda event: event.day):
        yield day, list(group)


def tag_of(day: int) -> str:
    return f"day-{day}"


class Narrator:
    """Saves events one by one, each as a durable commit of its own, and knows their ids."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.ids: dict[str, str] = {}  # the name of an event -> the id of its memory
        self.memories = self.revisions = self.connections = 0

    def tell(self, *events: Event) -> None:
        for event in events:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        if event.connect is not None:
            source, target = (self.ids[name] for name in event.connect)
            self.db.connect(source, target, event.relation, event.strength)
            self.connections += 1
        elif event.revise:
            node = self.db.load(self.ids[event.revise])
            revise(node, event.text, day=event.day, when=event.when)
            self.db.save(node, reason=event.because)
            self.revisions += 1
        else:
            node = MemoryNode(creation_timestamp=event.when)
            revise(node, event.text, day=event.day, when=event.when)
            node.set_attribute("kind", event.kind)
            node.set_attribute("about", event.about)
            memory_id = self.db.save(node, reason=event.because or None)
            self.memories += 1
            if event.name:
                self.ids[event.name] = memory_id


def revise(node: MemoryNode, text: str, *, day: int, when: datetime) -> None:
    """Give a memory another text, and the vector that goes with it."""
    node.embeddings = embed([text])[0]
    node.set_attribute("text", text)
    node.set_attribute("day", day)
    node.set_attribute("when", when)


def text_of(node: MemoryNode) -> str:
    return str(node.get_attribute("text"))
