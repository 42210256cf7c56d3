"""Connect memories, and follow the connections in both directions.

Run: python examples/memory_graph.py
"""

from __future__ import annotations

import engramdb
from engramdb import RelationshipType


def remember(db: engramdb.Database, text: str) -> str:
    # A memory needs no vector: a graph of facts can do without one.
    return db.save(engramdb.MemoryNode(attributes={"text": text}))


def text_of(db: engramdb.Database, memory_id: str) -> str:
    return str(db.load(memory_id).get_attribute("text"))


with engramdb.Database.in_memory() as db:
    frost = remember(db, "A night of frost in April")
    blossom = remember(db, "The plum blossom turned brown")
    harvest = remember(db, "No plums this year")
    jam = remember(db, "The last jar of plum jam")
    cellar = remember(db, "The shelf in the cellar")

    # A connection has a direction, a type, a strength from 0 to 1, and attributes if you like.
    db.connect(frost, blossom, RelationshipType.CAUSATION, strength=0.9)
    db.connect(blossom, harvest, RelationshipType.CAUSATION, attributes={"seen by": "Ana"})
    db.connect(cellar, jam, RelationshipType.CONTAINS)
    db.connect(harvest, jam, "makes precious", strength=0.5)  # a type can be any text

    print("Outgoing from the frost:")
    for edge in db.get_connections(frost):
        print(f"  {edge.relationship_type} ({edge.strength}): {text_of(db, edge.target_id)}")

    print("Whatever points at the jam:")
    for edge in sorted(db.get_connected_to(jam), key=lambda edge: edge.strength):
        print(f"  {edge.relationship_type} ({edge.strength}): {text_of(db, edge.source_id)}")

    # Why are there no plums? Walk back along the causes.
    print("Why?")
    effect = harvest
    while causes := db.get_connected_to(effect, RelationshipType.CAUSATION):
        cause = causes[0].source_id
        print(f"  {text_of(db, effect)}, because: {text_of(db, cause)}")
        effect = cause

    # Deleting a memory takes its connections along, both ways. Undo brings all of it back.
    db.delete(blossom)
    print(f"After deleting the blossom: {len(db.get_connections(frost))} connections of the frost")
    db.undo()
    print(f"After undo: {len(db.get_connections(frost))} connection of the frost")
