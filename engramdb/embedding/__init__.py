"""Text to vectors without a model. Any callable list[str] -> (n, d) float32 does instead."""

from __future__ import annotations

from engramdb.embedding.lexical import LexicalEmbedder

__all__ = ["LexicalEmbedder"]
