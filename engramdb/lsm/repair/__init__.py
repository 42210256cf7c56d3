"""Brings back what is intact of a damaged database, and says what is not."""

from engramdb.lsm.repair.report import RepairReport
from engramdb.lsm.repair.workshop import repair

__all__ = ["RepairReport", "repair"]
