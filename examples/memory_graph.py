"""Connect memories, follow the connections, and ask what was connected before.

Run: python examples/memory_graph.py
"""

from __future__ import annotations

import engramdb
from engramdb import RelationshipType


def remember(db: engramdb.Database, text: str) -> str:
    # A memory needs no vector: a graph of facts can do without one.
    return db.save(engramdb.MemoryNode(attributes={"text": text}))


with engramdb.Database.in_memory() as db:
    frost = remember(db, "A night of frost in April")
    blossom = remember(db, "The plum blossom turned brown")
    harvest = remember(db, "No plums this year")
    jam = remember(db, "The last jar of plum jam")
    cellar = remember(db, "The shelf in the cellar")

    def text_of(memory_id: str) -> str:
        return str(db.load(memory_id).get_attribute("text"))

    # A connection has a direction, a type, a strength from 0 to 1, and attributes if you like.
    db.connect(frost, blossom, RelationshipType.CAUSATION, strength=0.9)
    db.connect(blossom, harvest, RelationshipType.CAUSATION, attributes={"seen by": "Ana"})
    db.connect(cellar, jam, RelationshipType.CONTAINS)
    db.connect(harvest, jam, "makes precious", strength=0.5)  # a type can be any text

    print("Whatever points at the jam:")
    for edge in sorted(db.get_connected_to(jam), key=lambda edge: edge.strength):
        print(f"  {edge.relationship_type} ({edge.strength}): {text_of(edge.source_id)}")

    # Breadth first along all connections: each memory once, at its least number of hops.
    print("What the frost has led to:")
    for memory_id, hops in db.traverse(frost, max_hops=3):
        print(f"  {hops}: {text_of(memory_id)}")

    # Why are there no plums? Back along the causes only, against their direction.
    print("Why?")
    for cause in db.traverse(harvest, 9, RelationshipType.CAUSATION, direction="incoming"):
        print(f"  because: {text_of(cause.id)}")

    path = db.shortest_path(frost, cellar, direction="both")
    print("From the frost to the cellar:", " -> ".join(map(text_of, path or [])))

    # Spreading activation: every hop passes on half of its energy, times the strength.
    def print_reminders(reader: engramdb.Database | engramdb.Past) -> None:
        for memory_id, activation in reader.spread_activation(jam, direction="both", limit=4):
            print(f"  {activation:.3f} {text_of(memory_id)}")

    # The graph has a history, too: it is walked as it was at any moment.
    db.tag("before the gift")
    db.disconnect(cellar, jam)
    neighbour = remember(db, "The neighbour who repaired the roof")
    db.connect(jam, neighbour, "was given to", strength=1.0)
    print("What the jam reminds of now:")
    print_reminders(db)
    print("What it reminded of before the gift:")
    with db.as_of("before the gift") as past:
        print_reminders(past)

    # Deleting a memory takes its connections along, both ways. Undo brings all of it back.
    db.delete(blossom)
    print(f"After deleting the blossom the frost leads to {len(db.traverse(frost, 9))} memories")
    db.undo()
    print(f"After undo the frost leads to {len(db.traverse(frost, 9))} memories")
