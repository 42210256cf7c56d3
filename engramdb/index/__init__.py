"""Indexes: derived, rebuildable, never the truth.

metric              what near means
direction, top      a query, and the candidates for its best rows
exact               scores, one query or many, of all rows or of some
late_interaction    the same for memories with many vectors
without             runs of vectors of which further rows are hidden
graph, paths, activation    walks along connections, a frontier at a time
"""
