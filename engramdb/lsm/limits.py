"""Every limit of the engine, in one place."""

from __future__ import annotations

from typing import Final

PAYLOAD_BYTES_MAX: Final = 16 * 2**20  # of one record
BATCH_BYTES_MAX: Final = 2**31 - 2**20  # of one log record: its length is a signed 32-bit number
DIMENSION_MAX: Final = 65_536
TYPE_BYTES_MAX: Final = 256  # of an edge's type, UTF-8
SPACE_NAME_BYTES_MAX: Final = 64  # UTF-8; it is a part of an edge's type
SPACES_MAX: Final = 256  # each has an arena in every memtable, and files of its own
SLOTS_MAX: Final = 4096  # rows of one multi-vector
NAME_BYTES_MAX: Final = 256  # of a pin, UTF-8
NUMBER_MAX: Final = 2**62  # of a commit or a file: far from where 64 bits run over
VECTOR_NUMBER_MAX: Final = 2**64 - 2**33  # those of one more batch stay below 2**64 - 1
TIME_MAX: Final = 2**57  # of a commit, in microseconds: the year 6536, which a datetime can hold
CLOCK_MAX: Final = TIME_MAX - 2**40  # a clock beyond it is wrong; later times count on from here
RUN_ROWS_MAX: Final = 2**32 - 1  # row numbers are stored in 32 bits
MANIFESTS_KEPT: Final = 8
RUNS_STALL: Final = 12  # writes wait when this many runs wait for compaction (LevelDB's stop)
FROZEN_STALL: Final = 2  # and when this many memtables wait for their flush
STALL_SECONDS_MAX: Final = 60.0
