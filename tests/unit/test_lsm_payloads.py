"""Payloads as words: taken, joined and stored in blocks, each byte as it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engramdb.lsm.payloads import BLOCK_ROWS, Payloads, open_block

payloads = st.lists(st.binary(max_size=20), max_size=30)


@given(payloads)
def test_a_list_comes_back(listed: list[bytes]) -> None:
    assert Payloads.from_list(listed).to_list() == listed


@given(payloads.filter(bool), st.data())
def test_rows_are_taken_in_any_order_and_more_than_once(
    listed: list[bytes], data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.integers(0, len(listed) - 1), max_size=40))
    taken = Payloads.from_list(listed).take(np.array(rows, np.int64))
    assert taken.to_list() == [listed[row] for row in rows]


@given(st.lists(payloads, min_size=1, max_size=4))
def test_parts_are_joined(parts: list[list[bytes]]) -> None:
    joined = Payloads.concatenate([Payloads.from_list(part) for part in parts])
    assert joined.to_list() == [one for part in parts for one in part]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 200])
def test_blocks_hold_64_rows_each(count: int) -> None:
    listed = [bytes([i % 256]) * (i % 19) for i in range(count)]
    blocks = Payloads.from_list(listed).blocks()
    assert len(blocks) == -(-count // BLOCK_ROWS)
    found: list[bytes] = []
    for i, block in enumerate(blocks):
        found += open_block(block, min(BLOCK_ROWS, count - i * BLOCK_ROWS)).to_list()
    assert found == listed


def test_a_block_byte_by_byte() -> None:
    (block,) = Payloads.from_list([b"abc", b"", b"123456789"]).blocks()
    expected = (
        "03000000 00000000 09000000 00000000"  # lengths, padded to 8
        "6162630000000000"
        "3132333435363738 3900000000000000"
    )
    assert block == bytes.fromhex(expected)


@pytest.mark.parametrize("cut", [1, 8, 16])
def test_a_block_that_does_not_add_up_is_refused(cut: int) -> None:
    (block,) = Payloads.from_list([b"abc", b"123456789"]).blocks()
    with pytest.raises(ValueError):
        open_block(block[:-cut], 2)
    with pytest.raises(ValueError):
        open_block(block + bytes(8), 2)
