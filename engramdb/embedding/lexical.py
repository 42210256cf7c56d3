"""A lexical embedder: texts that share words, or parts of words, get similar vectors.

It knows spelling, not meaning: "allergic" is near "allergy", and "boat" is nowhere near "ship". No
model, no download, no training; the same text gives the same vector on every machine. It is here
for demos, for tests and as a baseline. For meaning, plug in a real model: any callable that takes a
list of texts and returns an (n, d) float32 array.

The method is feature hashing (Weinberger, Dasgupta, Langford, Smola, Attenberg: "Feature Hashing
for Large Scale Multitask Learning", ICML 2009): each feature is hashed to one of d places and added
there with a sign that the hash also decides, so that collisions cancel out on average. The features
of a word are the word itself and its character 3- to 5-grams between boundary marks:

    boats  ->  boats, <bo boa oat ats ts>, <boa boat oats ats>, <boat boats oats>

A text is the sum of its words' vectors, each times 1 + ln(how often the word occurs), times a tenth
if it is an English stop word, scaled to length 1.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from math import log
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from engramdb.errors import InvalidInputError

DIMENSION_MIN: Final = 8
DIMENSION_MAX: Final = 65_536
WORD_CHARACTERS_MAX: Final = (
    64  # of a longer "word" (a hash, an address) only the head is looked at
)
WORDS_CACHED_MAX: Final = 20_000  # 10 MB for ordinary words, 70 MB at the very worst

GRAM_LENGTHS: Final = (3, 4, 5)
GRAMS_WEIGHT: Final = 1.0  # length of a word's grams taken together; the word itself weighs 1
STOP_WORD_WEIGHT: Final = 0.1

_STOP_WORDS: Final = """
a about after again all also am an and any are as at be because been before being but by can
could did do does doing down during each few for from further had has have having he her here
hers him his how i if in into is it its just like may me might more most my no nor not now of
off on once one only or other our out over own same shall she should so some such than that the
their them then there these they this those through to too under until up us very was we were
what when where which while who whom why will with would you your
"""
STOP_WORDS: Final = frozenset(_STOP_WORDS.split())

_WORD: Final = re.compile(r"\w+")
_POSSESSIVE: Final = re.compile(r"['\u2019]s\b")

Places = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


class LexicalEmbedder:
    """Turns texts into unit vectors by their spelling. Deterministic and safe to share by threads.

    >>> embed = LexicalEmbedder()
    >>> boat, boats, soup = embed(["the boat", "our boats", "a soup"])
    >>> bool(boat @ boats > 0.3 > boat @ soup)
    True
    """

    name: Final = "lexical-1"  # changes whenever the same text would get another vector

    def __init__(self, dimension: int = 384) -> None:
        """`dimension`: of the vectors, from 8 to 65,536. Below 256 collisions begin to blur."""
        if isinstance(dimension, bool) or not isinstance(dimension, int):
            raise InvalidInputError("dimension", f"an int is needed, not {dimension!r}")
        if not DIMENSION_MIN <= dimension <= DIMENSION_MAX:
            raise InvalidInputError(
                "dimension", f"{dimension} is not from {DIMENSION_MIN} to {DIMENSION_MAX}"
            )
        self.dimension: Final = dimension
        self._cache: dict[str, tuple[Places, Weights]] = {}

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """An (n, dimension) float32 array of unit rows; a zero row for a text without a word.

        Raises InvalidInputError if `texts` is a single str or holds anything but str.
        """
        if isinstance(texts, str | bytes):
            raise InvalidInputError("texts", "a list of texts is needed, not one text")
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise InvalidInputError(f"texts[{number}]", f"str is needed, not {type(text)}")
            self._embed(text, rows[number])
        return rows

    def __repr__(self) -> str:
        return f"LexicalEmbedder(dimension={self.dimension})"

    def _embed(self, text: str, row: npt.NDArray[np.float32]) -> None:
        counts = Counter(words_of(text))
        if not counts:
            return
        places, weights = [], []
        for word, count in counts.items():
            where, what = self._word(word)
            places.append(where)
            weights.append(what * (1.0 + log(count)))
        total = np.bincount(np.concatenate(places), np.concatenate(weights), self.dimension)
        length = float(np.linalg.norm(total))
        if length > 0.0:  # it is 0 only if every feature met its opposite: then there is no answer
            row[:] = total / length

    def _word(self, word: str) -> tuple[Places, Weights]:
        """The sparse vector of one word, from the cache where possible."""
        known = self._cache.get(word)
        if known is not None:
            return known
        weight = STOP_WORD_WEIGHT if word in STOP_WORDS else 1.0
        grams = grams_of(word)
        weights = np.full(1 + len(grams), weight * GRAMS_WEIGHT / max(1, len(grams)) ** 0.5)
        weights[0] = weight
        # The leading mark keeps the word "oat" and the gram "oat" of "boats" apart.
        features = ["=" + word] + grams
        hashes = np.array(
            [xxhash.xxh3_64_intdigest(f.encode("utf-8", "surrogatepass")) for f in features],
            np.uint64,
        )
        signs = np.where(hashes >> np.uint64(63), 1.0, -1.0)
        places = (hashes % np.uint64(self.dimension)).astype(np.int64)
        found = places, weights * signs
        if len(self._cache) >= WORDS_CACHED_MAX:
            self._cache.clear()  # simpler than a ranking, and a vocabulary refills in milliseconds
        self._cache[word] = found
        return found


def words_of(text: str) -> list[str]:
    """The words of a text: compatibility-normalised, case-folded, without a possessive 's."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return [word[:WORD_CHARACTERS_MAX] for word in _WORD.findall(_POSSESSIVE.sub("", plain))]


def grams_of(word: str) -> list[str]:
    """The distinct character 3- to 5-grams of a word between boundary marks, in a fixed order."""
    marked = f"<{word}>"
    return list(
        dict.fromkeys(
            marked[start : start + length]
            for length in GRAM_LENGTHS
            for start in range(len(marked) - length + 1)
        )
    )
