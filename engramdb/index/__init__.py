"""Indexes: derived from the log, immutable per run, rebuildable, never the truth."""
