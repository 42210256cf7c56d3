"""Bugs of what is stored beside the memories themselves, one test each: attribute columns, named
vector spaces, derived files."""

from __future__ import annotations

import msgspec

from engramdb.lsm.attribute_check import contradictions
from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.model.attributes import encode_memory
from engramdb.model.shredding import shred


def test_a_row_with_a_wrong_time_takes_no_elements_of_other_rows() -> None:
    """Its list was counted with the lists of the others, which then had the elements of others."""
    wrong = msgspec.msgpack.encode([2**62, None, {"tags": [1, 2]}])
    sound = encode_memory(5, None, {"tags": [3]})
    columns = shred([wrong, b"", sound])
    field = columns.fields[("tags",)]
    assert field.counts.tolist() == [1]
    assert field.owners.tolist() == [2]
    again = AttributeColumns.concatenate([columns, shred([sound])])
    assert contradictions(again, shred([wrong, b"", sound, sound])) == []
