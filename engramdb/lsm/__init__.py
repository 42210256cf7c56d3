"""The log-structured storage engine: versioned records, crash safety, time.

engine       StorageEngine, the seam that everything above talks to
records      what goes in and comes out
snapshot     all reads           memory_run, vector_run, row_batch    what they give as columns
adjacency    edges to follow     edge_index, edge_order, segment_edges
committer    group commit        log_format, log_writer, log_reader   the write-ahead log
attribute_columns, field, dictionary, attribute_sections   what memories say, as columns
memtable     newest versions     arena                                their vectors
segment      sorted runs         vector_file, marks, container, chunks the files
manifest     which files are the database                             spaces: of vectors
flush, compaction, bulk, purge, copies                                what rewrites files
derived      what others have computed, beside the log            mapped
recovery, opening                                                     what reads them back
verification, repair                                                  what looks for damage
environment  the only place that touches the operating system, the clock and randomness
"""

from __future__ import annotations

from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.bulk import ColumnBatch
from engramdb.lsm.derived import Streamed
from engramdb.lsm.engine import StorageEngine
from engramdb.lsm.mapped import Mapped
from engramdb.lsm.memory_run import MemoryRun
from engramdb.lsm.options import Options
from engramdb.lsm.purge import PurgeReport
from engramdb.lsm.records import Batch, Change, Commit, Edge, GuardFailed, Record
from engramdb.lsm.repair import RepairReport, repair
from engramdb.lsm.retention import KeepAll, KeepFor, KeepLast
from engramdb.lsm.snapshot import Snapshot
from engramdb.lsm.vector_file import VectorFile
from engramdb.lsm.vector_run import VectorRun
from engramdb.lsm.verification import VerifyReport

__all__ = [
    "AttributeColumns",
    "Batch",
    "Change",
    "ColumnBatch",
    "Commit",
    "Edge",
    "GuardFailed",
    "KeepAll",
    "KeepFor",
    "KeepLast",
    "Mapped",
    "MemoryRun",
    "Options",
    "PurgeReport",
    "Record",
    "RepairReport",
    "Snapshot",
    "StorageEngine",
    "Streamed",
    "VectorFile",
    "VectorRun",
    "VerifyReport",
    "repair",
]
