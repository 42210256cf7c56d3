"""Save memories, find them again by similarity and by filters.

Run: python examples/basic_usage.py
"""

from __future__ import annotations

import numpy as np

import engramdb

# A database in memory: nothing is written to the disk and nothing survives close().
db = engramdb.Database.in_memory()

# A memory is an id, a vector and attributes. Vectors usually come from an embedding model; four
# numbers will do here.
notes = [
    ("Quarterly report is due on Friday", "work", 0.9, [0.9, 0.1, 0.0, 0.2]),
    ("The report needs a chart of the margins", "work", 0.6, [0.8, 0.2, 0.1, 0.3]),
    ("The heron is back at the pond", "garden", 0.4, [0.0, 0.1, 0.9, 0.1]),
]
for title, category, importance, vector in notes:
    memory = engramdb.MemoryNode(np.array(vector, dtype=np.float32))
    memory.set_attribute("title", title)
    memory.set_attribute("category", category)
    memory.set_attribute("importance", importance)
    db.save(memory)

# The nearest memories, best first, as (id, cosine similarity).
query_vector = np.array([1.0, 0.1, 0.0, 0.2], dtype=np.float32)
print("Nearest to the query:")
for memory_id, similarity in db.search_similar(query_vector, limit=2):
    print(f"  {similarity:.3f}  {db.load(memory_id).get_attribute('title')}")

# The same with filters. `&`, `|` and `~` combine them.
important = engramdb.AttributeFilter.greater_than("importance", 0.7)
at_work = engramdb.AttributeFilter.equals("category", "work")
print("Important and about work:")
for found in (
    db.query().with_vector(query_vector).with_attribute_filter(at_work & important).execute()
):
    print(f"  {found.score:.3f}  {found.get_attribute('title')}")

# Saving a memory again makes a new version of it. The old one stays in its history.
memory_id, _ = db.search_similar(query_vector, limit=1)[0]
memory = db.load(memory_id)
memory.set_attribute("title", "Quarterly report is due on Monday")
db.save(memory, reason="the deadline was moved")
print("Its layers:")
for layer in db.history(memory_id):
    print(f"  {layer.attributes['title']}  ({layer.reason or 'first version'})")

db.close()
