"""Filters on attributes alone: a million memories without vectors, now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.corpus import SEED
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import Engram
from benchmarks.stores.base import module

LIMIT: Final = 10
CHUNK_ROWS: Final = 100_000
YARDSTICK: Final = "numpy range and count"
NOW: Final = "now"
KINDS: Final = 10
TAGS: Final = 50
PREFIX: Final = "user-0001"  # a thousand names start with it
REACH: Final = Reach(10, "most")
CALLS_MOST: Final = 50
CALLS_LEAST: Final = 3
BUDGET_S: Final = 0.5  # of the calls of one round: slow ones are repeated less often


@dataclass(frozen=True)
class Facts:
    """The attributes, column by column; the names come in no order."""

    importance: npt.NDArray[np.float64]  # from 0 to 1, evenly
    name: list[str]  # all different
    kind: list[str]
    tags: list[list[str]]  # two of each

    def chunks(self, size: int) -> Iterator[dict[str, Any]]:
        """As save_columns takes them."""
        for start in range(0, len(self.name), size):
            part = slice(start, start + size)
            yield {
                "importance": self.importance[part],
                "name": self.name[part],
                "kind": self.kind[part],
                "tags": self.tags[part],
            }


@dataclass(frozen=True)
class Question:
    """A filter, how many memories of all it keeps as counted without the database."""

    text: str
    rule: Any
    expected: int
    reach: Reach | None = None


def run(bench: Bench) -> Iterator[Line]:
    """Counted right after opening and warm; then once more beside the past, after some saves."""
    if Engram.name in bench.absent:
        return
    facts = _draw(bench.scale.million)
    questions = _questions(facts)
    with bench.scratch() as path:
        store = Engram(path)
        ids: list[str] = []
        for columns in facts.chunks(CHUNK_ROWS):
            bench.say(f"  {len(ids):,} of {len(facts.name):,} rows")
            ids += store.database.save_columns(attributes=columns)
        store.database.compact()
        store.close()
        yardstick = _yardstick(facts)
        yield Figure(
            "attributes",
            f"range of a bare array of {len(facts.name):,}",
            YARDSTICK,
            yardstick.median() * 1e3,
            "ms",
            detail=yardstick.spread(),
        )
        for question in questions:
            bench.say(f"  {question.text}")
            yield from _fresh(path, question, len(facts.name), yardstick.median() * 1e3)
        yield from _then_and_now(bench, path, ids, questions)


def _draw(count: int) -> Facts:
    generator = np.random.default_rng([SEED, 5])
    pairs = generator.integers(0, TAGS, (count, 1)) + np.array([0, 1])
    return Facts(
        importance=generator.random(count),
        name=[f"user-{number:07}" for number in generator.permutation(count).tolist()],
        kind=[f"kind-{number}" for number in generator.integers(0, KINDS, count).tolist()],
        tags=[[f"tag-{number:02}" for number in pair] for pair in pairs.tolist()],
    )


def _questions(facts: Facts) -> list[Question]:
    rule = module("engramdb").AttributeFilter

    def within(low: float, high: float) -> int:
        return int(np.count_nonzero((facts.importance >= low) & (facts.importance <= high)))

    return [
        Question(
            "importance, 1%", rule.between("importance", 0.40, 0.41), within(0.40, 0.41), REACH
        ),
        Question(
            "importance, 50%", rule.between("importance", 0.25, 0.75), within(0.25, 0.75), REACH
        ),
        Question(
            "prefix of name",
            rule.starts_with("name", PREFIX),
            sum(name.startswith(PREFIX) for name in facts.name),
            REACH,
        ),
        Question("kind equals", rule.equals("kind", "kind-3"), facts.kind.count("kind-3")),
        Question(
            "tags contain",
            rule.contains("tags", "tag-07"),
            sum("tag-07" in tags for tags in facts.tags),
        ),
    ]


def _yardstick(facts: Facts) -> clock.Timing:
    values = facts.importance

    def count(_: int) -> int:
        return int(np.count_nonzero((values >= 0.40) & (values <= 0.41)))

    return clock.Timing([clock.seconds_each(count, range(CALLS_MOST))])


def _count(source: Any, rule: Any, _: int = 0) -> int:
    found: int = source.query().with_attribute_filter(rule).count()
    return found


def _list(source: Any, rule: Any, _: int = 0) -> int:
    return len(source.query().with_attribute_filter(rule).with_limit(LIMIT).ids())


def _first(call: Callable[[], int]) -> tuple[float, int]:
    """Its seconds and its answer."""
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found


def _calls(first_s: float) -> range:
    """As many as the budget allows."""
    return range(int(np.clip(BUDGET_S / first_s, CALLS_LEAST, CALLS_MOST)))


def _fresh(path: str, question: Question, rows: int, yardstick_ms: float) -> Iterator[Line]:
    """Each way to ask in a database that was opened for it, so that the first call is the first."""
    ways: list[tuple[str, Callable[..., int], int]] = [
        ("count", _count, question.expected),
        (f"ids, limit {LIMIT}", _list, min(LIMIT, question.expected)),
    ]
    for way, ask, expected in ways:
        store = Engram(path)
        call = partial(ask, store.database, question.rule)
        first, found = _first(call)
        if found != expected:
            raise RuntimeError(f"{question.text}, {way}: {found} instead of {expected}")
        warm = clock.Timing([clock.seconds_each(call, _calls(first))])
        store.close()
        yield Figure(
            "attributes",
            f"{question.text}: {way}",
            Engram.name,
            warm.median() * 1e3,
            "ms",
            {YARDSTICK: yardstick_ms},
            question.reach if ask is _count else None,
            f"first {clock.duration(first)}; p99 {clock.duration(warm.percentile(99))}; "
            f"{question.expected:,} of {rows:,} match",
        )


def _then_and_now(
    bench: Bench, path: str, ids: list[str], questions: list[Question]
) -> Iterator[Line]:
    """As of the load, after a thousand saves of other memories and of changed ones."""
    store = Engram(path)
    database = store.database
    then, saves = database.last_seq, bench.scale.thousand
    _change(database, ids, saves)
    with database.as_of(then) as past:
        for question in questions:
            bench.say(f"  {question.text}, now and then")
            if _count(past, question.rule) != question.expected:
                raise RuntimeError(f"{question.text}: the past has changed")
            contestants = {
                name: _rounds(partial(_count, source, question.rule))
                for name, source in ((NOW, database), (Engram.name, past))
            }
            timings = clock.in_turn(contestants, min(3, bench.scale.rounds))
            now = timings[NOW].median() * 1e3
            yield Figure(
                "attributes",
                f"{question.text}: count as of {saves:,} saves ago",
                Engram.name,
                timings[Engram.name].median() * 1e3,
                "ms",
                {NOW: now},
                detail=f"now {now:.2f} ms; {timings[Engram.name].spread()}",
            )
    store.close()


def _change(database: Any, ids: list[str], saves: int) -> None:
    """That many saves: every second one of a new memory, the others of one that was there."""
    generator = np.random.default_rng(0)
    memory_node = module("engramdb").MemoryNode
    for number, row in enumerate(generator.permutation(len(ids))[:saves].tolist()):
        node = memory_node() if number % 2 else database.load(ids[row])
        node.set_attribute("importance", float(generator.random()))
        node.set_attribute("name", f"{PREFIX}{number % 1_000:03}")
        node.set_attribute("kind", f"kind-{number % KINDS}")
        node.set_attribute("tags", [f"tag-{number % TAGS:02}"])
        database.save(node, sync=False)


def _rounds(call: Callable[[int], int]) -> Callable[[int], clock.Seconds]:
    calls = _calls(_first(partial(call, 0))[0])
    return lambda _: clock.seconds_each(call, calls)
