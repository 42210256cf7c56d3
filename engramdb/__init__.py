"""EngramDB: an embedded database that agents remember with.

db = engramdb.Database.file_based("./memories")
memory_id = db.save(engramdb.MemoryNode([0.1, 0.2, 0.3], attributes={"title": "first"}))
db.search_similar([0.1, 0.2, 0.25], limit=5)
"""

from __future__ import annotations

from engramdb.commit import Commit
from engramdb.comparison import (
    MISSING,
    AttributeChange,
    ConnectionChange,
    ConnectionDifference,
    Difference,
    MemoryChange,
)
from engramdb.config import DatabaseConfig
from engramdb.database import Database
from engramdb.errors import (
    ClosedError,
    ConflictError,
    CorruptionError,
    DatabaseLockedError,
    EngramError,
    HistoryUnavailableError,
    IncompatibleFormatError,
    InvalidInputError,
    MemoryNotFoundError,
    ReadOnlyError,
    StoragePoisonedError,
    WriteStallError,
)
from engramdb.lsm import PurgeReport, RepairReport, VerifyReport
from engramdb.lsm.retention import KeepAll, KeepFor, KeepLast
from engramdb.model.access_history import AccessHistory
from engramdb.model.connection import Connection
from engramdb.model.memory_node import MemoryNode
from engramdb.model.relationship import RelationshipType
from engramdb.model.temporal_layer import TemporalLayer
from engramdb.model.visit import Visit
from engramdb.past import Past
from engramdb.query.attribute_filter import AttributeFilter
from engramdb.query.builder import Query
from engramdb.query.explanation import Explanation, Stage
from engramdb.query.grouping import Facet, Group
from engramdb.query.moment import Tag
from engramdb.query.page import Page
from engramdb.query.temporal_filter import TemporalFilter
from engramdb.transaction import Transaction

__version__ = "0.1.0"

__all__ = [
    "MISSING",
    "AccessHistory",
    "AttributeChange",
    "AttributeFilter",
    "ClosedError",
    "Commit",
    "ConflictError",
    "Connection",
    "ConnectionChange",
    "ConnectionDifference",
    "CorruptionError",
    "Database",
    "DatabaseConfig",
    "DatabaseLockedError",
    "Difference",
    "EngramError",
    "Explanation",
    "Facet",
    "Group",
    "HistoryUnavailableError",
    "IncompatibleFormatError",
    "InvalidInputError",
    "KeepAll",
    "KeepFor",
    "KeepLast",
    "MemoryChange",
    "MemoryNode",
    "MemoryNotFoundError",
    "Page",
    "Past",
    "PurgeReport",
    "Query",
    "ReadOnlyError",
    "RelationshipType",
    "RepairReport",
    "Stage",
    "StoragePoisonedError",
    "Tag",
    "TemporalFilter",
    "TemporalLayer",
    "Transaction",
    "VerifyReport",
    "Visit",
    "WriteStallError",
    "__version__",
]
