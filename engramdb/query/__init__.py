"""Queries: what to ask, and how it is answered.

builder           Query, which callers chain          source         what every read stands on
conditions        what a memory has to meet           order          in which order
attribute_filter, temporal_filter                     moment         which commit a moment means
arguments, walk_arguments                             checks of what callers hand in

answer            one run of a query: select, rank, diversify, cut
selection         masks over runs: masks, verdicts (one condition on one field), values
ranking           signals, sorting, vectors (where those of a selection lie), diversity
page, grouping, explanation                           what comes back beside memories
"""
