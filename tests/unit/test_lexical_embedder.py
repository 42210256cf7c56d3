"""The lexical embedder: the same vector everywhere, near what is spelled alike, never a crash."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.embedding import LexicalEmbedder
from engramdb.embedding.lexical import STOP_WORDS, WORDS_CACHED_MAX, grams_of, words_of
from engramdb.errors import InvalidInputError

embed = LexicalEmbedder()

KNOWN_PLACES = [20, 30, 73, 100, 119, 246, 262, 289, 300, 305, 324, 355, 383]
KNOWN_SIGNS = "++--+--++-+++"


def similarity(a: str, b: str) -> float:
    first, second = embed([a, b])
    return float(first @ second)


def test_rows_are_unit_float32() -> None:
    rows = embed(["one boat", "two boats and a very long sentence about the harbour", "x"])
    assert rows.shape == (3, 384)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("text", ["", "   \n\t", "?!...", "🙂🙂"])
def test_a_text_without_words_gives_a_zero_row(text: str) -> None:
    assert not embed([text]).any()


def test_no_texts_give_no_rows() -> None:
    assert embed([]).shape == (0, 384)


def test_the_same_text_gives_the_same_vector_in_another_process() -> None:
    """Python's own hash() differs from run to run; ours must not."""
    script = (
        "from engramdb.embedding import LexicalEmbedder; import sys;"
        "sys.stdout.write(LexicalEmbedder()(['Pip is allergic to cashews'])[0].tobytes().hex())"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert other.stdout == embed(["Pip is allergic to cashews"])[0].tobytes().hex(), other.stderr


def test_the_vector_of_a_known_text_is_the_one_of_the_first_release() -> None:
    """If this fails, stored vectors no longer match new ones: change LexicalEmbedder.name."""
    row = embed(["boats"])[0]
    places = np.flatnonzero(row)
    assert LexicalEmbedder.name == "lexical-1"
    assert places.tolist() == KNOWN_PLACES
    assert "".join("+" if row[place] > 0 else "-" for place in places) == KNOWN_SIGNS
    word, gram = row.max(), np.abs(row[places]).min()
    assert word == pytest.approx(0.5**0.5, abs=1e-6)  # half of the length is the word itself
    assert gram == pytest.approx((0.5 / 12) ** 0.5, abs=1e-6)  # and half is its twelve grams


def test_neither_order_nor_company_matters() -> None:
    together = embed(["red boat", "boat red", "something else entirely"])
    assert np.array_equal(together[0], embed(["red boat"])[0])
    assert np.allclose(together[0], together[1], atol=1e-7)


def test_case_width_and_possessives_do_not_matter() -> None:
    assert similarity("PIP'S Boat", "pip boat") == pytest.approx(1.0)
    assert similarity("\uff42oat", "boat") == pytest.approx(1.0)
    assert similarity("Straße", "STRASSE") == pytest.approx(1.0)


def test_word_forms_are_near_each_other_and_strangers_are_not() -> None:
    assert similarity("allergic", "allergy") > 0.15
    assert similarity("boat", "boats") > 0.15
    assert abs(similarity("boat", "cello")) < 0.12


def test_a_question_finds_the_note_that_shares_its_words() -> None:
    notes = [
        "Pip came out in hives after the strawberry cake",
        "Ines plays the cello on Tuesdays",
        "The boat needs a new plank before the launch",
    ]
    scores = embed(notes) @ embed(["When is the launch of the boat?"])[0]
    assert int(scores.argmax()) == 2


def test_stop_words_hardly_count() -> None:
    assert "the" in STOP_WORDS
    assert similarity("the boat", "boat") > 0.99
    assert abs(similarity("what is it that they do", "boat")) < 0.12


def test_repetition_counts_less_than_proportionally() -> None:
    once = similarity("boat cello", "boat")
    often = similarity("boat " * 10 + "cello", "boat")
    assert once < often < 0.99


def test_grams_lie_between_boundary_marks() -> None:
    assert grams_of("oat") == ["<oa", "oat", "at>", "<oat", "oat>", "<oat>"]
    assert grams_of("a") == ["<a>"]
    assert words_of("Ines' cello, Pip's tooth") == ["ines", "cello", "pip", "tooth"]


def test_the_dimension_can_be_chosen_and_is_checked() -> None:
    assert LexicalEmbedder(dimension=64)(["boat"]).shape == (1, 64)
    for wrong in (0, 7, 65_537, True, 384.0, "384", None):
        with pytest.raises(InvalidInputError, match="dimension"):
            LexicalEmbedder(dimension=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["one text", b"bytes", [b"bytes"], ["fine", None], [3]])
def test_anything_but_a_list_of_texts_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInputError, match="texts"):
        embed(wrong)  # type: ignore[arg-type]


def test_the_cache_is_bounded_and_changes_no_vector() -> None:
    small = LexicalEmbedder(dimension=16)
    before = small(["harbour light"])
    small([f"word{number}" for number in range(WORDS_CACHED_MAX + 10)])
    assert len(small._cache) <= WORDS_CACHED_MAX
    assert np.array_equal(small(["harbour light"]), before)


def test_many_threads_get_the_same_vectors() -> None:
    shared = LexicalEmbedder(dimension=64)
    texts = [f"note number {number} about boats and weather" for number in range(200)]
    expected = LexicalEmbedder(dimension=64)(texts)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(shared, [texts] * 16):
            assert np.array_equal(got, expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=80), max_size=4))
def test_any_text_at_all_gives_unit_or_zero_rows(texts: list[str]) -> None:
    """Lone surrogates included: a model of the world has no say in what people paste."""
    lengths = np.linalg.norm(embed(texts), axis=1)
    assert np.all((lengths == 0.0) | (np.abs(lengths - 1.0) < 1e-5))
