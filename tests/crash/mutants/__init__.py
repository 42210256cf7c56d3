"""Durability bugs on purpose, each a small patch at run time, and who has to notice it.

syncs       something is not synced, or too late, or shown before it is
logs        recovery believes too much, or too little
files       flush, merge, purge, bulk load: what is written, dropped and let go
damages     a check of what is read is missing
failures    an error of the disk is not taken seriously
"""

from tests.crash.mutants.damages import DAMAGES
from tests.crash.mutants.failures import FAILURES
from tests.crash.mutants.files import FILES
from tests.crash.mutants.logs import LOGS
from tests.crash.mutants.mutant import Mutant
from tests.crash.mutants.syncs import SYNCS

MUTANTS = [*SYNCS, *LOGS, *FILES, *DAMAGES, *FAILURES]

__all__ = ["MUTANTS", "Mutant"]
