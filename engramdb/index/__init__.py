"""Indexes: derived, rebuildable, never the truth.

metric              what near means
direction, top      a query, and the candidates for its best rows
exact               scores, one query or many, of all rows or of some
codes, approximate  codes of vector files, and searches by them
late_interaction    the same for memories with many vectors
lists               the same by codes, from lists of the best rows
owners              which rows belong to a memory
chosen, without     some rows of a run as a run; a run of which further rows are hidden
graph, paths, activation    walks along connections, a frontier at a time
"""
