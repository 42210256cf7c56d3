"""The steps inside one process: remember, recall, revise, look back, connect, undo."""

from __future__ import annotations

import textwrap
from typing import Final

from engramdb import Connection, Database
from engramdb_tools.demo import story
from engramdb_tools.demo.stage import Stage, expect, timed
from engramdb_tools.demo.story import Narrator, embed, tag_of, text_of

QUESTIONS: Final = (
    "How does Mr. Halloran take his tea?",
    "Where will Odile sleep?",
    "Where does the key of the shed hang?",
)
CAUSES: Final = {"delayed": "delayed by", "led to": "because"}  # as told from the other end
ALLERGY: Final = "May Pip eat hazelnuts and strawberries?"


def remember(stage: Stage, db: Database) -> dict[str, str]:
    """Save the story day by day. Returns the ids of the memories that have a name."""
    stage.step(
        "Remembering four weeks",
        "Wren is an assistant who helps the Venn family remember. Each note below is one durable "
        "commit: synced to the disk before save() returns. Each evening gets a tag.",
    )
    narrator = Narrator(db)
    events = story.read()
    week: list[story.Event] = []
    seconds = total = 0.0
    for day, of_the_day in story.by_day(events):
        seconds += timed(narrator.tell, *of_the_day)[1]
        db.tag(tag_of(day))
        week += of_the_day
        if day % 7 == 0:
            _show_week(stage, day // 7, week, seconds)
            total += seconds
            week, seconds = [], 0.0
    commits = narrator.memories + narrator.revisions + narrator.connections
    expect(len(db) == narrator.memories, "every memory of the story is counted")
    expect(narrator.memories >= 80, "the story has 80 memories or more")
    stage.write()
    stage.good(
        f"{narrator.memories} memories, {narrator.revisions} revisions and "
        f"{narrator.connections} connections: {commits} durable commits, "
        f"{total / commits * 1e6:.0f} us each, text to vector included.",
        took=total,
    )
    return narrator.ids


def _show_week(stage: Stage, week: int, events: list[story.Event], seconds: float) -> None:
    texts = [event for event in events if event.text]
    revisions = sum(1 for event in texts if event.revise)
    connections = len(events) - len(texts)
    dots = "".join(
        stage.styled("◆", "warm") if event.revise else stage.styled("·", "good") for event in texts
    )
    stage.say(
        f"{len(texts) - revisions} memories, {revisions} revised ◆, {connections} connections",
        lead=stage.styled(f"week {week}  ", "bold"),
        took=seconds,
    )
    stage.write(f"           {dots}")
    for event in (texts[1], texts[-1]):
        short = textwrap.shorten(event.text, stage.width - 21, placeholder=" ...")
        stage.aside(f"      day {event.day:2}  {short}")


def recall(stage: Stage, db: Database) -> None:
    """Questions, and the nearest memories."""
    stage.step(
        "Recalling by similarity",
        "A question becomes a vector and the nearest memories answer, by cosine. The vectors here "
        "are lexical (shared words and parts of words); a real model plugs in as any callable.",
    )
    for number, question in enumerate(QUESTIONS):
        if number:
            stage.write()
        vector = embed([question])[0]
        db.search_similar(vector, limit=3)  # the first search of a question warms the caches
        hits, seconds = timed(db.search_similar, vector, limit=3)
        expect(len(hits) == 3, "a search for three memories finds three")
        stage.question(question, took=seconds)
        for rank, (memory_id, score) in enumerate(hits):
            stage.hit(score, text_of(db.load(memory_id)), "" if rank == 0 else "dim")


def layers(stage: Stage, db: Database, launch: str) -> None:
    """A belief that was revised three times, layer by layer."""
    stage.step(
        "A belief and its layers",
        "The launch of the boat was put off three times. Nothing was overwritten: every version "
        "is still there, with the reason why it took the place of the one before.",
    )
    versions, seconds = timed(db.history, launch)
    expect(len(versions) == 4, "a belief that was revised three times has four layers")
    stage.say("history(launch)", style="bold", took=seconds)
    for number, layer in enumerate(versions):
        last = number == len(versions) - 1
        day = layer.attributes["day"]
        node = stage.styled("●" if last else "○", "good" if last else "dim")
        rail = " " if last else stage.styled("│", "dim")
        lead = f"  {node} day {day:2}  "
        hang = f"  {rail}         "
        stage.say(str(layer.attributes["text"]), lead=lead, hang=hang)
        stage.say(f"because {layer.reason}", style="dim", lead=hang, hang=hang)


def look_back(stage: Stage, db: Database, day: int = 9) -> None:
    """The same search, on the evening of a day and now."""
    tag = tag_of(day)
    stage.step(
        f"What did I believe on day {day}?",
        f'The same search twice: as of the tag "{tag}", and now. The whole database answers as it '
        "was that evening; the number of a commit or a datetime would do as well as a tag.",
    )
    vector = embed([ALLERGY])[0]
    db.search_similar(vector, limit=2, as_of=tag)
    then, then_seconds = timed(db.search_similar, vector, limit=2, as_of=tag)
    now, now_seconds = timed(db.search_similar, vector, limit=2)
    with db.as_of(tag) as past:
        then_texts = [text_of(past.load(memory_id)) for memory_id, _ in then]
        then_count = len(past)
    now_texts = [text_of(db.load(memory_id)) for memory_id, _ in now]
    expect("hazelnuts, not" in then_texts[0], "on day 9 it was hazelnuts")
    expect("cashews" in now_texts[0], "now it is cashews and pistachios")
    expect(then_count < len(db), "the past has fewer memories than the present")
    stage.question(ALLERGY)
    stage.columns(
        (f"on day {day}  ({then_count} memories)", then_texts),
        (f"now  ({len(db)} memories)", now_texts),
    )
    stage.write()
    stage.good(f'search_similar(question, as_of="{tag}")', took=then_seconds)
    stage.good("search_similar(question)", took=now_seconds)


def connections(stage: Stage, db: Database, launch: str) -> None:
    """Why did it slip? The causes of the causes, followed through incoming connections."""
    stage.step(
        "Following connections",
        "Memories point at each other. Asking what points at the launch, and what points at "
        "that, answers a question that no similarity can: why was it so late?",
    )
    seen = {launch}
    lines: list[tuple[str, str, str]] = []

    def walk(memory_id: str, rails: str) -> None:
        causes = [
            edge
            for edge in db.get_connected_to(memory_id)
            if edge.relationship_type in CAUSES and edge.source_id not in seen
        ]
        causes.sort(key=lambda edge: -edge.strength)
        seen.update(edge.source_id for edge in causes)
        for number, edge in enumerate(causes):
            last = number == len(causes) - 1
            lines.append((rails + ("└─ " if last else "├─ "), _label(edge), edge.source_id))
            walk(edge.source_id, rails + ("   " if last else "│  "))

    seconds = timed(walk, launch, "")[1]
    expect(len(lines) >= 6, "the causes of the delay are connected")
    stage.say(text_of(db.load(launch)), style="bold", took=seconds)
    for rails, label, memory_id in lines:
        text = text_of(db.load(memory_id))
        hang = "  " + rails.replace("├─ ", "│  ").replace("└─ ", "   ") + " " * len(label)
        stage.say(text, lead=f"  {rails}{stage.styled(label, 'warm')}", hang=hang)


def _label(edge: Connection) -> str:
    weight = "" if edge.strength == 1.0 else f" ({edge.strength:.1f})"
    return f"{CAUSES[edge.relationship_type]}{weight}: "


def undo(stage: Stage, db: Database, ids: dict[str, str]) -> None:
    """One commit that was a mistake, and its inverse."""
    stage.step(
        "Undoing a wrong belief",
        "A letter of refusal arrives, and Wren believes it: one transaction revises a memory and "
        "deletes another, its connections with it. But the letter was for Ivo Venn, at number 14.",
    )
    result, saturdays = ids["result"], ids["saturdays"]
    before = text_of(db.load(result))
    stage.say(before, lead=stage.styled("before   ", "dim"))

    def believe_the_letter() -> None:
        wrong = "Ines is not in the county youth orchestra after all."
        with db.transaction() as tx:
            node = tx.load(result)
            story.revise(node, wrong, day=28, when=story.moment(day=28, at="21:00"))
            tx.save(node, reason="a letter to I. Venn came this evening")
            tx.delete(saturdays)

    seconds = timed(believe_the_letter)[1]
    stage.say(text_of(db.load(result)), lead=stage.styled("mistaken ", "bad"), took=seconds)
    expect(saturdays not in db, "the mistake deleted a memory")
    expect(not db.get_connections(result), "a deleted memory takes its connections with it")
    seconds = timed(db.undo)[1]
    stage.say(text_of(db.load(result)), lead=stage.styled("undone   ", "good"), took=seconds)
    expect(text_of(db.load(result)) == before, "undo brings the text back")
    expect(saturdays in db, "undo brings the deleted memory back")
    expect(len(db.get_connections(result)) == 1, "undo brings the connection back")
    stage.write()
    kept = len(db.history(result))
    stage.good(
        "Both memories and their connection are back. The mistake is not hidden: the history of "
        f"this belief has {kept} layers, the mistaken one among them."
    )
