"""Queries: filters on attributes and on time."""
