"""Every limit on what a caller may hand in, in one place. Each is tested at its edge."""

from __future__ import annotations

from typing import Final

ATTRIBUTE_KEY_BYTES_MAX: Final = 512  # UTF-8; at least one byte
NESTING_DEPTH_MAX: Final = 32  # lists and dicts inside each other, within one attribute
PAYLOAD_BYTES_MAX: Final = 16 * 1024 * 1024  # a memory's or connection's attributes, encoded
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1

DIMENSION_MAX: Final = 65_536  # numbers in one vector; at least one
VECTOR_ROWS_MAX: Final = 4_096  # vectors of one memory in one named space
SPACE_NAME_BYTES_MAX: Final = 64  # UTF-8; at least one byte, and no NUL
VECTOR_NORM_MAX: Final = 3e38  # beyond it the norm is no longer a float32

RELATIONSHIP_TYPE_BYTES_MAX: Final = 256  # UTF-8; at least one byte

ACTIVATION_HOPS_MAX: Final = 1_000  # of one spreading activation, which may go round in circles
