"""Codes of vectors, from which a search takes its candidates."""
