"""Keeps the indexes: builds codes in the background, stores them, and holds them to their promise.

indexer     the codes of all vector files of an open database
keeper      makes, loads and calibrates those of one file
memories    searches in named spaces, where a memory may have several vectors
asked       the queries that were asked
nearest, memories    searches by what there is
hook        what the engine calls when files have changed
stored      codes as values of the store for derived data
"""
