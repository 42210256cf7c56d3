"""A database under one setting: opened, killed, reopened, read; and what may be asked of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from unittest import mock

import engramdb
from engramdb import database as database_module
from engramdb.lsm import Options
from engramdb.lsm.environment import Environment
from engramdb.model import moments
from engramdb.model.moments import from_microseconds
from tests.metamorphic.operations import OperationList
from tests.metamorphic.places import Clock, SetDisk, SetFiles, SetMemory
from tests.metamorphic.settings import DISK, FILES, MEMORY, Setting

EXTRAS: Final = ("flush", "compact", "verify", "reopen", "kill", "power cut", "reader")


class Answer(NamedTuple):
    """`required` must be the same under every setting. Of `perhaps`, which holds what a retention
    policy may have dropped, the same keys must have the same values."""

    required: str
    perhaps: dict[str, str]


class BrokenPromise(Exception):
    """An answer that is wrong without looking at another run."""


class Stage:
    """The database of one run, with its clock, its reader and its forks."""

    def __init__(self, operations: OperationList, setting: Setting, directory: str) -> None:
        self.setting = setting
        self.random = random.Random(f"extras {setting.seed} {operations.seed}")
        self.directory = directory
        self.path = f"{directory}/db"
        self.clock = Clock()
        self.environment: Environment = {
            MEMORY: lambda: SetMemory(self.clock),
            FILES: lambda: SetFiles(self.clock),
            DISK: lambda: SetDisk(self.clock, setting.seed),
        }[setting.place]()
        self.keep = 0  # how many versions every policy so far has kept; 0: all
        self.tags: dict[str, int] = {}
        self.times: dict[int, datetime] = {0: from_microseconds(0)}  # of commits
        self.unsynced = False  # a power cut may take what was acknowledged
        self.reader: engramdb.Database | None = None
        self.held: engramdb.Past | None = None
        self.held_seq = 0
        self.forks: list[str] = []
        self.db: engramdb.Database

    @contextmanager
    def patched(self) -> Iterator[None]:
        """The settings that only the engine has, and the clock of the layers above it."""

        def options(**settings: Any) -> Options:
            return Options(
                **settings,
                fan_in=self.setting.fan_in,
                log_allocate_bytes=self.setting.log_allocate_bytes,
                bulk_bytes_min=self.setting.bulk_bytes_min,
            )

        with (
            mock.patch.object(database_module, "Options", options),
            mock.patch.object(moments, "time", self.clock),
        ):
            yield

    def config(self, path: str, *, read_only: bool = False) -> engramdb.DatabaseConfig:
        setting = self.setting
        return engramdb.DatabaseConfig(
            storage_dir=path,
            read_only=read_only,
            cache_size=setting.cache_blocks,
            durability=setting.durability,
            sync_interval=setting.sync_interval,
            memtable_bytes=setting.memtable_bytes,
            background=setting.background,
        )

    def open(self, path: str) -> engramdb.Database:
        return engramdb.Database(self.config(path), self.environment)

    # What the list does not ask for

    def extra(self) -> None:
        """Perhaps something that must not change any answer."""
        if self.random.random() < self.setting.extras:
            what = self.random.choice(EXTRAS)
            works: dict[str, Callable[[], None]] = {
                "flush": self.db.flush,
                "compact": self.db.compact,
                "verify": self.verify,
                "reopen": self.reopen,
                "kill": self.kill,
                "power cut": self.power_cut,
                "reader": self.let_reader_go,
            }
            works[what]()
            if what in ("flush", "compact"):
                self.unsynced = False

    def verify(self) -> None:
        report = self.db.verify()
        if not report.ok:
            raise BrokenPromise(f"verify(): {report.problems}")

    def reopen(self) -> None:
        last_seq = self.db.last_seq
        self.let_go()
        self.db.close()
        self._open_again(last_seq)

    def kill(self) -> None:
        self._end(lambda disk: disk.after_kill())

    def power_cut(self) -> None:
        """A kill, where acknowledged commits may be unsynced."""
        if self.setting.durability != "sync" or self.unsynced:
            self.kill()
        else:
            self._end(lambda disk: disk.after_power_cut(self.random))

    def _end(self, outcome: Callable[[SetDisk], SetDisk]) -> None:
        last_seq = self.db.last_seq
        self.let_go()
        environment = self.environment
        if isinstance(environment, SetDisk):
            self.environment = outcome(environment)
        # what a killed process does: nothing more, but its locks are free
        engine = self.db._engine
        engine._maintenance.stop()
        engine._core.close("it was killed")
        self.db._finalizer.detach()
        self._open_again(last_seq)

    def _open_again(self, last_seq: int) -> None:
        self.unsynced = False
        self.db = self.open(self.path)
        if self.db.last_seq != last_seq:
            raise BrokenPromise(f"opened at commit {self.db.last_seq}, acknowledged: {last_seq}")

    def let_reader_go(self) -> None:
        if self.reader is not None:
            self.reader.close()
        self.reader = None

    def let_go(self) -> None:
        self.let_reader_go()
        if self.held is not None:
            self.held.close()
        self.held = None

    def follower(self) -> engramdb.Database:
        """A read-only opening that has caught up; in memory there is none but the writer."""
        if self.setting.place == MEMORY:
            return self.db
        if self.reader is None:
            config = self.config(self.path, read_only=True)
            self.reader = engramdb.Database(config, self.environment)
        seen = self.reader.refresh()
        if seen != self.db.last_seq:
            raise BrokenPromise(f"a reader sees commit {seen} of {self.db.last_seq}")
        return self.reader

    # Moments

    def resolve(self, moment: tuple[str, Any]) -> int | str | datetime:
        """A moment of the list as as_of() takes it."""
        kind, what = moment
        last = self.db.last_seq
        if kind == "tag":
            name: str = what
            return name
        if kind == "share":
            return round(what * last)
        share, offset_us = what
        known = max(seq for seq in self.times if seq <= round(share * last))
        return self.times[known] + timedelta(microseconds=offset_us)

    def is_promised(self, moment: int | str | datetime) -> bool:
        """Whether retention must have kept it."""
        last = self.db.last_seq
        if self.keep == 0 or isinstance(moment, str):
            return True
        if isinstance(moment, datetime):
            return last in self.times and moment >= self.times[last]
        return moment == last or moment in self.tags.values()

    def asked(self, moment: int | str | datetime, ask: Callable[[], str]) -> Answer:
        """The answer about a moment, required if it is promised."""
        if self.is_promised(moment):
            return Answer(ask(), {})
        try:
            return Answer("", {"": ask()})
        except engramdb.HistoryUnavailableError:
            return Answer("", {})
        except engramdb.EngramError as error:
            return Answer("", {"": f"{type(error).__name__}: {error}"})
