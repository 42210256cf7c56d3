"""Plain values without I/O: memories, connections, temporal layers and what they are made of.

memory_node       MemoryNode: id, vector, attributes, creation time
connection        Connection: a directed, typed edge; relationship: its type and strength
temporal_layer    TemporalLayer: one version of a memory
access_history    AccessHistory: when a memory was loaded
attributes        which values attributes may have, and their bytes in the log
vectors, identifiers, moments    the same for vectors, ids and points in time
limits            every limit in one place
"""
