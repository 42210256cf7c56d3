"""Vectors, attributes, connections and time in one database, and in one transaction.

Run: python examples/unified_database.py
"""

from __future__ import annotations

from datetime import UTC, datetime

import engramdb
from engramdb import AttributeFilter, TemporalFilter
from engramdb.embedding import LexicalEmbedder

embed = LexicalEmbedder()  # shared words, no meaning; a real model plugs in as any callable


def note(text: str, day: int, **attributes: object) -> engramdb.MemoryNode:
    return engramdb.MemoryNode(
        embed([text])[0],
        attributes={"text": text, **attributes},
        creation_timestamp=datetime(2025, 5, day, 9, tzinfo=UTC),
    )


with engramdb.Database.in_memory() as db:
    # All or nothing: two memories and their connection become visible together.
    with db.transaction() as tx:
        ticket = tx.save(
            note("Customer Lind reports that invoices lack the VAT number", 2, open=True)
        )
        cause = tx.save(note("The invoice template was replaced on Friday", 3, open=False))
        tx.connect(cause, ticket, engramdb.RelationshipType.CAUSATION)
    db.save(note("Customer Lind likes short answers", 4, open=False))
    db.save(note("Invoices are sent on the first of the month", 9, open=False))
    db.tag("before the fix")

    # One query over all of it: like this text, still open, from the first week of May.
    query = (
        db.query()
        .with_vector(embed(["what is wrong with the invoices?"])[0])
        .with_attribute_filter(AttributeFilter.equals("open", True))
        .with_temporal_filter(TemporalFilter.before(datetime(2025, 5, 8, tzinfo=UTC)))
        .with_limit(5)
    )
    print(f"open in the first week: {[memory.get_attribute('text') for memory in query.execute()]}")
    print(query.explain())  # which plan, how many rows, how long

    # Connections are a condition like any other: what has caused this ticket?
    why = db.query().connected_to(ticket, engramdb.RelationshipType.CAUSATION).execute()[0]
    print(f"because: {why.get_attribute('text')}")

    # Two agents change the same memory. The second one relied on a version that is no longer the
    # newest, so its transaction is refused instead of silently winning.
    try:
        with db.transaction() as tx:
            mine = tx.load(ticket)
            theirs = db.load(ticket)
            theirs.set_attribute("open", False)
            db.save(theirs, reason="template repaired")
            mine.set_attribute("owner", "me")
            tx.save(mine)
    except engramdb.ConflictError as error:
        print(f"refused: {type(error).__name__}")

    # Time: the whole database as it was, and what has changed since.
    with db.as_of("before the fix") as past:
        print(f"open then: {past.load(ticket).get_attribute('open')}")
    print(f"open now: {db.load(ticket).get_attribute('open')}")
    changes = db.diff("before the fix")
    print(f"changed since: {[change.id == ticket for change in changes.changed]}")
