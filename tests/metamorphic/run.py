"""Runs a list under a setting, and compares transcripts."""

from __future__ import annotations

import os
import tempfile
import traceback
from typing import Any

from engramdb.errors import EngramError, HistoryUnavailableError
from tests.metamorphic.operations import OperationList, make_list
from tests.metamorphic.reads import Reads
from tests.metamorphic.settings import Setting, make_setting
from tests.metamorphic.stage import Answer
from tests.metamorphic.writes import Writes

Transcript = list[Answer]


class Run(Writes, Reads):
    """Everything that a list may ask for."""

    def transcript(self, operations: OperationList) -> Transcript:
        """Do all of it. Raises what no operation may raise."""
        answers = []
        with self.patched():
            self.db = self.open(self.path)
            try:
                for operation in operations.operations:
                    self.clock.us = operation.clock_us
                    answers.append(self._answer(operation.name, operation.arguments))
                    self.extra()
                self.verify()
            finally:
                self.let_go()
                self.db.close()
        return answers

    def _answer(self, name: str, arguments: dict[str, Any]) -> Answer:
        if name == "reopen":
            self.reopen()
            return Answer("", {})
        answer: Answer
        try:
            answer = getattr(self, name)(**arguments)
        except HistoryUnavailableError:
            raise  # it was promised
        except EngramError as error:
            return Answer(f"{type(error).__name__}: {error}", {})
        return answer


def transcript_of(operations: OperationList, setting: Setting) -> Transcript:
    """The transcript of a list under a setting."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # thousands of syncs, for nothing
    with tempfile.TemporaryDirectory(prefix="engramdb-metamorphic-", dir=memory) as directory:
        return Run(operations, setting, directory).transcript(operations)


class Comparison:
    """The transcripts of one list, each compared with all that came before it."""

    def __init__(self, seed: int, length: int) -> None:
        self.seed, self.length = seed, length
        self.operations = make_list(seed, length)
        self._required: list[tuple[str, int]] = []
        self._perhaps: list[dict[str, tuple[str, int]]] = []

    def add(self, setting_seed: int) -> str | None:
        """Run it under one more setting. The line that reproduces a difference, or None."""
        try:
            transcript = transcript_of(self.operations, make_setting(setting_seed))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{error!r} at {where.filename.rpartition('/')[2]}:{where.lineno}"
            return self._line(setting_seed, setting_seed, problem)
        if not self._required:
            self._required = [(answer.required, setting_seed) for answer in transcript]
            self._perhaps = [{} for _ in transcript]
        for position, answer in enumerate(transcript):
            expected, other = self._required[position]
            if answer.required != expected:
                return self._difference(
                    position, "", expected, answer.required, other, setting_seed
                )
            known = self._perhaps[position]
            for key, value in answer.perhaps.items():
                expected, other = known.setdefault(key, (value, setting_seed))
                if value != expected:
                    return self._difference(position, key, expected, value, other, setting_seed)
        return None

    def _difference(
        self, position: int, key: str, expected: str, got: str, other: int, setting_seed: int
    ) -> str:
        operation = self.operations.operations[position]
        at = next(
            (i for i, pair in enumerate(zip(expected, got, strict=False)) if pair[0] != pair[1]),
            min(len(expected), len(got)),
        )
        start = max(at - 40, 0)
        shown = f"{expected[start : at + 60]!r} != {got[start : at + 60]!r}"
        problem = f"operation {position} ({operation.name} {key}) differs: {shown}"
        return self._line(other, setting_seed, problem)

    def _line(self, one: int, other: int, problem: str) -> str:
        command = f"python -m tests.metamorphic {self.seed} {self.length} {one} {other}"
        return f"{command}  # {problem}".replace("\n", " ")
