"""A small agent that learns, is corrected, and can say what it believed, when, and why.

Two clocks: when the agent learned something, and when it holds in the world.

Run: python examples/agent_memory.py
"""

from __future__ import annotations

from datetime import UTC, datetime

from engramdb import Database, MemoryNode, Query
from engramdb.embedding import LexicalEmbedder

MIX = {"similarity": 0.8, "recency": 0.1, "activation": 0.1}  # alike, saved lately, used lately


class Agent:
    """Keeps what it is told. What it is told again, it revises instead of doubling it."""

    SAME_SUBJECT = 0.4  # cosine from which a new statement is about an old one

    def __init__(self, db: Database) -> None:
        self.db = db
        self.embed = LexicalEmbedder()

    def told(self, statement: str, by: str) -> None:
        """Something new, or a correction: then the old belief gets another version."""
        vector = self.embed([statement])[0]
        belief = self._about(statement) or MemoryNode()
        belief.embeddings = vector
        belief.set_attribute("statement", statement)
        self.db.save(belief, reason=f"told by {by}")

    def changed(self, statement: str, since: datetime, by: str) -> None:
        """The world has changed: the old belief was right until then, the new one is from then."""
        node = MemoryNode(
            self.embed([statement])[0], attributes={"statement": statement}, valid_from=since
        )
        with self.db.transaction() as tx:
            old = self._about(statement)
            tx.save(node, reason=f"told by {by}")
            if old is not None:
                old.valid_to = since
                tx.save(old, reason=f"not so any more, says {by}")
                tx.connect(node.id, old.id, "Supersedes")

    def answer(
        self, question: str, believed: str | None = None, when: datetime | None = None
    ) -> str:
        """What it believes, or believed at a moment, about now or another time."""
        query = self._asked(question)
        if believed is not None:
            query.as_of(believed)
        if when is not None:
            query.valid_at(when)
        found = query.order_by(MIX).with_limit(1).execute()
        return str(found[0].get_attribute("statement")) if found else "No idea."

    def justify(self, question: str) -> list[str]:
        """Every version of what it believes."""
        belief = self._asked(question).with_limit(1).execute()[0]
        return [
            f"{layer.attributes['statement']} ({layer.reason})"
            for layer in belief.temporal_layers()
        ]

    def _asked(self, text: str) -> Query:
        return self.db.query().with_vector(self.embed([text])[0])

    def _about(self, statement: str) -> MemoryNode | None:
        query = self._asked(statement).with_similarity_threshold(self.SAME_SUBJECT)
        return next(iter(query.with_limit(1).execute()), None)


with Database.in_memory() as db:
    agent = Agent(db)
    agent.told("The spare key is under the flower pot", by="Noor")
    agent.told("Elis lives in the house by the harbour", by="Noor")
    db.tag("monday")
    agent.told("The spare key is under the door mat", by="Elis")
    agent.told("The spare key is with the neighbour", by="Noor")

    where = "Where is the spare key?"
    print(f"{where}\n  now:    {agent.answer(where)}\n  monday: {agent.answer(where, 'monday')}")
    print("How I came to believe it:")
    for line in agent.justify(where):
        print(f"  {line}")

    # Elis was joking, and so was Noor: take the last belief back. Undo is a commit of its own, so
    # the history still shows what happened.
    db.undo()
    print(f"After undo: {agent.answer(where)}")

    # Nobody was wrong about the house: Elis moved in April, and we hear of it today.
    april = datetime(2025, 4, 1, tzinfo=UTC)
    march = datetime(2025, 3, 15, tzinfo=UTC)
    agent.changed("Elis lives in the flat above the bakery", since=april, by="Elis")
    who = "Where does Elis live?"
    print(f"{who}\n  now:              {agent.answer(who)}")
    print(f"  in March:         {agent.answer(who, when=march)}")
    print(f"  believed, monday: {agent.answer(who, 'monday')}")
