"""What a mutant is, and the ways in which one can be caught: the same code that must find nothing
wrong with the engine as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import pytest

from engramdb.errors import EngramError
from tests.crash.checks import Check
from tests.crash.damage import Damage, damages, flips
from tests.crash.damage_check import DamageCheck
from tests.crash.databases import kind_of
from tests.crash.driver import PATH
from tests.crash.enumerator import CrashFailure, enumerate_crashes
from tests.crash.fault_runs import (
    FAULTS,
    ArmedFault,
    calls_of_the_workload,
    run_with_fault,
)
from tests.crash.followers import followed
from tests.crash.killed import calls_of, killed
from tests.crash.workloads import WORKLOADS

Patch = pytest.MonkeyPatch
Hunt = Callable[[], str]  # gives what it noticed, "" if nothing
Catcher = Callable[[], Hunt]  # called without the bug, for what has to be made without it
STATES_MAX = 1200
FAULTS_MAX = 15
FLIPS_STEP = 5  # one bit of every so many bytes


@dataclass(frozen=True)
class Mutant:
    """A bug, and who is to notice it."""

    name: str
    patch: Callable[[Patch], None]
    catcher: Catcher


def mutant(patch: Callable[[Patch], None], catcher: Catcher) -> Mutant:
    """One that is called as its patch is."""
    return Mutant(patch.__name__, patch, catcher)


def called_by(name: str) -> bool:
    """Whether the function that asks, a patch, was called by the one of this name."""
    return sys._getframe(2).f_code.co_name == name


def crashes(*names: str, with_followers: bool = False) -> Catcher:
    """Power cuts of these workloads."""
    return lambda: partial(_crashes, names, with_followers)


def _crashes(names: tuple[str, ...], with_followers: bool) -> str:
    for name in names:
        workload = followed(WORKLOADS[name]) if with_followers else WORKLOADS[name]
        try:
            enumerate_crashes(workload, Check(), states_max=STATES_MAX, seed=3, depth=2, name=name)
        except (CrashFailure, EngramError, AssertionError) as error:
            return str(error)
    return ""


def ends(name: str) -> Catcher:
    """Processes that are killed at any call of this workload, and power cuts after that."""

    def hunt() -> str:
        calls = calls_of(WORKLOADS[name], 3)
        seen: set[int] = set()
        check = Check()
        for nth in range(1, calls + 1):
            workload = killed(WORKLOADS[name], nth)
            try:
                enumerate_crashes(workload, check, states_max=40, seed=3, name=name, seen=seen)
            except (CrashFailure, EngramError, AssertionError) as error:
                return f"killed before call {nth}: {error}"
        return ""

    return lambda: hunt


def planted(name: str, *kinds: str, flips_first: bool = True) -> Catcher:
    """Damage of every kind in files of these kinds (of manifests: the one that counts), of one of
    the databases."""
    return lambda: partial(_planted, DamageCheck(name), kinds, flips_first)


def _planted(check: DamageCheck, kinds: tuple[str, ...], flips_first: bool) -> str:
    latest = max(path for path in check.nodes if path.startswith(f"{PATH}/MANIFEST-"))
    for damage in _damages(check.name, kinds, flips_first):
        is_manifest = kind_of(damage.path) == "MANIFEST"
        if is_manifest and latest not in (damage.path, damage.other):
            continue
        try:
            check(damage, looks=1)
        except Exception as error:  # a wrong answer, or an error that is none of ours
            return f"{damage}: {type(error).__name__}: {error}"
    return ""


def _damages(name: str, kinds: tuple[str, ...], flips_first: bool) -> Iterator[Damage]:
    found = [islice(flips(name, every_bit=False), 0, None, FLIPS_STEP), damages(name)]
    for some in found if flips_first else reversed(found):
        yield from (damage for damage in some if kind_of(damage.path) in kinds)


def faults(kind: str, call: str) -> Catcher:
    """Some of the calls of this kind fail in this way, once, among forty operations."""

    def prepare() -> Hunt:
        count = calls_of_the_workload()[call]
        picked = range(1, count + 1, max(1, count // FAULTS_MAX))
        return partial(_faults, [ArmedFault(call, nth, FAULTS[kind].how) for nth in picked])

    return prepare


def _faults(found: list[ArmedFault]) -> str:
    for fault in found:
        try:
            run_with_fault(fault)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


def probe(look: Callable[[], object]) -> Catcher:
    """One place, looked at for itself: an AssertionError is what it noticed."""

    def hunt() -> str:
        try:
            look()
        except AssertionError as error:
            return str(error)
        return ""

    return lambda: hunt
