"""One seeded list of operations through the public API, as plain data.

Ids, times, vectors and values are in the list. A moment in it is a share of all commits, a name of
a tag, or a share with an offset in time; it becomes a number when the list is run, and the same
one under every setting, because every setting has the same commits.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

DIMENSION: Final = 4
TYPES: Final = ("Association", "Causation", "Reminds")
TAGS: Final = ("monday", "tuesday", "a day with ä")
START_US: Final = 1_700_000_000_000_000

Row = tuple[str, dict[str, Any], list[float] | None]
"""Id, attributes, vector."""


class Operation(NamedTuple):
    """`clock_us` is what the clocks say meanwhile."""

    name: str
    arguments: dict[str, Any]
    clock_us: int


@dataclass(frozen=True)
class OperationList:
    """`lossy`: policies other than KeepAll are set on the way, so it does without undo, which
    they may or may not leave possible."""

    seed: int
    lossy: bool
    operations: list[Operation]


class _Maker:
    """Draws operations from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"operations {seed}")
        self.lossy = seed % 5 < 2
        common = self.random.getrandbits(64)
        self.ids = [  # some differ in their lower half only
            str(uuid.UUID(int=(common if i % 3 else self.random.getrandbits(64)) << 64 | low))
            for i, low in enumerate(self.random.getrandbits(64) for _ in range(14))
        ]

    def id(self) -> str:
        return self.random.choice(self.ids)

    def vector(self) -> list[float]:
        if self.random.random() < 0.7:  # small numbers: ties, zeros
            return [float(self.random.randint(-2, 2)) for _ in range(DIMENSION)]
        return [self.random.gauss(0, 1) for _ in range(DIMENSION)]

    def value(self) -> Any:
        return self.random.choice(
            [
                None,
                True,
                0,
                -1,
                self.random.getrandbits(40),
                0.5,
                -0.0,
                "",
                "tea",
                b"\0\1",
                [1, [2]],
            ]
        )

    def attributes(self) -> dict[str, Any]:
        made: dict[str, Any] = {"n": self.random.randint(0, 3)}
        for name in self.random.sample(["text", "any", "deep", "long"], self.random.randint(0, 3)):
            if name == "long":
                made[name] = "long " * self.random.randint(1, 60)
            elif name == "deep":
                made[name] = {"k": self.random.randint(0, 2)}
            else:
                made[name] = self.value()
        return made

    def row(self) -> Row:
        return self.id(), self.attributes(), self.vector() if self.random.random() < 0.85 else None

    def rows(self, most: int) -> list[Row]:
        return [self.row() for _ in range(self.random.randint(0, most))]

    def sync(self) -> bool | None:
        return self.random.choice([None, None, None, True, False])

    def where(self) -> dict[str, Any] | None:
        return self.random.choice(
            [
                None,
                {"n": {"$gte": self.random.randint(0, 3)}},
                {"text": "tea"},
                {"deep.k": self.random.randint(0, 2)},
                {"any": {"$exists": self.random.random() < 0.5}},
            ]
        )

    def moment(self) -> tuple[str, Any]:
        kind = self.random.random()
        if kind < 0.25:
            return "tag", self.random.choice(TAGS)
        if kind < 0.4:
            return "time", (self.random.random(), self.random.randint(-1, 1))
        return "share", self.random.choice([0.0, 1.0, *(self.random.random() for _ in range(6))])

    # One maker for each kind of operation

    def save(self) -> dict[str, Any]:
        reason = self.random.choice([None, "because"])
        expected = self.random.choice([None, None, None, "newest", "wrong"])
        return {"row": self.row(), "reason": reason, "sync": self.sync(), "expected": expected}

    def patch(self) -> dict[str, Any]:
        return {"id": self.id(), "value": self.value(), "sync": self.sync()}

    def save_many(self) -> dict[str, Any]:
        return {"rows": self.rows(6), "sync": self.sync()}

    def save_columns(self) -> dict[str, Any]:
        ids = self.random.sample(self.ids, self.random.randint(1, len(self.ids)))
        vectors = [self.vector() for _ in ids] if self.random.random() < 0.8 else None
        return {"ids": ids, "vectors": vectors, "attributes": [self.attributes() for _ in ids]}

    def transaction(self) -> dict[str, Any]:
        steps: list[tuple[str, Any]] = []
        for _ in range(self.random.randint(1, 5)):
            name = self.random.choice(
                ["save", "save", "patch", "delete", "connect", "disconnect", "search", "list"]
            )
            arguments: Any = {
                "save": self.row,
                "patch": lambda: (self.id(), self.value()),
                "delete": self.id,
                "connect": lambda: (self.id(), self.id(), self.random.choice(TYPES)),
                "disconnect": lambda: (self.id(), self.id(), None),
                "search": self.vector,
                "list": lambda: None,
            }[name]()
            steps.append((name, arguments))
        meanwhile = self.row() if self.random.random() < 0.2 else None
        return {"steps": steps, "meanwhile": meanwhile, "fails": self.random.random() < 0.15}

    def delete(self) -> dict[str, Any]:
        return {"id": self.id(), "sync": self.sync()}

    def clear_all(self) -> dict[str, Any]:
        return {}

    def connect(self) -> dict[str, Any]:
        return {
            "ends": (self.id(), self.id()),
            "type": self.random.choice(TYPES),
            "strength": self.random.choice([0.0, 0.25, 1.0, self.random.random()]),
            "attributes": self.random.choice([None, {"why": "seen"}, {"n": 1, "any": [None]}]),
            "sync": self.sync(),
        }

    def disconnect(self) -> dict[str, Any]:
        kind = self.random.choice([None, *TYPES])
        return {"ends": (self.id(), self.id()), "type": kind, "sync": self.sync()}

    def restore(self) -> dict[str, Any]:
        moment = ("tag", self.random.choice(TAGS)) if self.lossy else self.moment()
        return {"id": self.id(), "moment": moment}

    def undo(self) -> dict[str, Any]:
        return {
            "count": self.random.randint(1, 4),
            "commit": self.random.choice([None, None, self.random.random()]),
        }

    def tag(self) -> dict[str, Any]:
        now = self.lossy or self.random.random() < 0.5
        return {"name": self.random.choice(TAGS), "moment": None if now else self.moment()}

    def untag(self) -> dict[str, Any]:
        return {"name": self.random.choice(TAGS)}

    def set_history(self) -> dict[str, Any]:
        policy = ("last", self.random.choice([1, 2, 5]))
        if self.random.random() < 0.3:
            policy = ("for", self.random.choice([0, 20, 500]))
        return {"policy": policy}

    def purge(self) -> dict[str, Any]:
        return {"id": self.id()}

    def load(self) -> dict[str, Any]:
        return {"id": self.id()}

    def everything(self) -> dict[str, Any]:
        return {}

    def search(self) -> dict[str, Any]:
        return {
            "vector": self.vector(),
            "limit": self.random.randint(1, 9),
            "threshold": self.random.choice([-1.0, 0.0, 0.5, 1.0]),
            "where": self.where(),
            "moment": self.moment() if self.random.random() < 0.4 else None,
        }

    def search_many(self) -> dict[str, Any]:
        return {
            "vectors": [self.vector() for _ in range(self.random.randint(1, 4))],
            "limit": self.random.randint(1, 9),
            "threshold": self.random.choice([-1.0, 0.2]),
            "where": self.where(),
        }

    def query(self) -> dict[str, Any]:
        return {
            "vector": self.vector() if self.random.random() < 0.5 else None,
            "where": self.where(),
            "age_us": self.random.choice([None, None, 10, 1000]),
            "ids": self.random.choice([None, self.random.sample(self.ids, 5)]),
            "without": self.random.sample(self.ids, 2),
            "moment": self.moment() if self.random.random() < 0.4 else None,
            "limit": self.random.choice([None, 1, 4]),
        }

    def history(self) -> dict[str, Any]:
        return {"id": self.id()}

    def as_of(self) -> dict[str, Any]:
        return {"moment": self.moment(), "id": self.id(), "vector": self.vector()}

    def everything_as_of(self) -> dict[str, Any]:
        return {"moment": self.moment()}

    def diff(self) -> dict[str, Any]:
        return {"a": self.moment(), "b": self.random.choice([None, self.moment()])}

    def changes(self) -> dict[str, Any]:
        return {"since": self.random.random()}

    def hold(self) -> dict[str, Any]:
        return {"moment": ("share", self.random.random())}

    def read_held(self) -> dict[str, Any]:
        return {"vector": self.vector()}

    def follow(self) -> dict[str, Any]:
        return {"moment": self.moment()}

    def fork(self) -> dict[str, Any]:
        return {"row": self.row(), "purged": self.id()}

    def read_fork(self) -> dict[str, Any]:
        return {}

    def checkpoint(self) -> dict[str, Any]:
        return {}

    def flush(self) -> dict[str, Any]:
        return {}

    def compact(self) -> dict[str, Any]:
        return {}

    def reopen(self) -> dict[str, Any]:
        return {}


_OFTEN: Final = {"save": 14, "connect": 12, "patch": 8, "transaction": 8, "search": 8}
_RARE: Final = {"clear_all": 0.6, "fork": 0.7, "checkpoint": 0.7, "compact": 1, "reopen": 1}
_NAMES: Final = (
    *("save", "patch", "save_many", "save_columns", "transaction", "delete", "clear_all"),
    *("connect", "disconnect", "restore", "undo", "tag", "untag", "set_history", "purge"),
    *("load", "everything", "search", "search_many", "query", "history", "as_of", "diff"),
    *("everything_as_of", "changes", "hold", "read_held", "follow", "fork", "read_fork"),
    *("checkpoint", "flush", "compact", "reopen"),
)
WEIGHTS: Final[dict[str, float]] = dict.fromkeys(_NAMES, 3.5) | _OFTEN | _RARE
"""How often each operation is drawn."""


def make_list(seed: int, length: int) -> OperationList:
    """The list of a seed. Its first operations fill the database, the last one reads everything."""
    maker = _Maker(seed)
    weights = dict(WEIGHTS)
    weights["undo" if maker.lossy else "set_history"] = 0
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        name: getattr(maker, name) for name in weights
    }
    names = ["save_many", "save_columns", "connect", "connect", "connect"]
    names += maker.random.choices(list(weights), list(weights.values()), k=length)
    names += ["everything", "everything_as_of", "everything_as_of", "follow", "read_fork"]
    clock_us, operations = START_US, []
    for name in names:
        # mostly forward; a clock that stands still or was set back must not matter either
        clock_us += maker.random.choice([0, 1, 7, 100, -50])
        operations.append(Operation(name, makers[name](), clock_us))
    return OperationList(seed, maker.lossy, operations)
