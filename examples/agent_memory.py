"""A small agent that learns, is corrected, and can say what it used to believe and why.

Run: python examples/agent_memory.py
"""

from __future__ import annotations

from engramdb import Database, MemoryNode
from engramdb.embedding import LexicalEmbedder


class Agent:
    """Keeps what it is told. What it is told again, it revises instead of doubling it."""

    SAME_SUBJECT = 0.4  # cosine from which a new statement is about an old one

    def __init__(self, db: Database) -> None:
        self.db = db
        self.embed = LexicalEmbedder()

    def told(self, statement: str, by: str) -> None:
        vector = self.embed([statement])[0]
        known = self.db.search_similar(vector, limit=1, threshold=self.SAME_SUBJECT)
        if known:
            belief = self.db.load(known[0][0])
            belief.embeddings = vector
        else:
            belief = MemoryNode(vector)
        belief.set_attribute("statement", statement)
        self.db.save(belief, reason=f"told by {by}")

    def answer(self, question: str, moment: str | None = None) -> str:
        with self.db.as_of(moment or self.db.last_seq) as view:  # the past reads like the present
            hits = view.search_similar(self.embed([question])[0], limit=1)
            return str(view.load(hits[0][0]).get_attribute("statement")) if hits else "No idea."

    def justify(self, question: str) -> list[str]:
        (belief, _), *_ = self.db.search_similar(self.embed([question])[0], limit=1)
        return [
            f"{layer.attributes['statement']} ({layer.reason})" for layer in self.db.history(belief)
        ]


with Database.in_memory() as db:
    agent = Agent(db)
    agent.told("The spare key is under the flower pot", by="Noor")
    agent.told("The cat is fed at seven", by="Noor")
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
