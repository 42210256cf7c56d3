"""Numbers and offsets beyond 32 bits, reached cheaply: by a forged manifest, by a sparse file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

import engramdb
from engramdb.lsm import manifest as manifests
from engramdb.lsm.environment import File, PosixEnvironment
from engramdb.lsm.environment.base import Data, Mode
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.manifest import VectorEntry
from engramdb.lsm.marks import Marks
from engramdb.lsm.records import NEVER
from engramdb.lsm.vector_file import Matrix, VectorColumns, VectorFile, write_vector_file
from tests.soak.parts import options, spread_id

PATH = "/database"


@pytest.mark.parametrize("bulk_bytes_min", [1, 2**23])
@pytest.mark.parametrize("first", [2**31 - 20, 2**32 - 20, 2**53 - 20, 2**60])
def test_counters_go_on_beyond(first: int, bulk_bytes_min: int) -> None:
    disk = SimulatedDisk()
    engramdb.Database(engramdb.DatabaseConfig(storage_dir=PATH), disk).close()
    manifest = manifests.load_latest(disk, PATH)
    assert manifest is not None
    forged = {"last_seq": first, "next_file": first, "next_vector": first, "log_floor": first}
    manifests.publish(
        disk, PATH, msgspec.structs.replace(manifest, number=first, history_floor=first, **forged)
    )
    with options(bulk_bytes_min=bulk_bytes_min, fan_in=2):
        _live_on(disk, first)


def _live_on(disk: SimulatedDisk, first: int) -> None:
    config = engramdb.DatabaseConfig(storage_dir=PATH, memtable_bytes=1500, background=False)
    db = engramdb.Database(config, disk)
    ids = [spread_id(i) for i in range(3)]
    for n in range(1, 61):
        i = n % 3
        if n % 5:
            node = engramdb.MemoryNode([float(n), 1.0], id=ids[i], attributes={"n": n})
            db.save(node)
        else:
            db.save_columns([ids[i]], [[float(n), 1.0]], [{"n": n}])
        if n % 20 == 0:
            db.close()
            db = engramdb.Database(config, disk)
        elif n % 13 == 0:
            disk = disk.crash(())
            db = engramdb.Database(config, disk)
        assert db.last_seq == first + n
    for n in range(3, 61):
        with db.as_of(first + n) as past:
            for i in range(3):
                newest = n - (n - i) % 3
                if newest > 0:
                    assert past.load(ids[i]).get_attribute("n") == newest
            ((found, score),) = past.search_similar([float(n), 1.0], 1)
            assert found == ids[n % 3] and score == 1.0
    for i in range(3):
        seqs = [layer.seq for layer in db.history(ids[i])]
        assert seqs == [first + n for n in range(1, 61) if n % 3 == i]
    assert [commit.seq for commit in db.changes(first + 50)] == list(range(first + 51, first + 61))
    db.undo()
    assert db.load(ids[0]).get_attribute("n") == 57
    db.purge(ids[1])
    assert db.verify().ok and len(db) == 2
    db.close()


class SparseFile(File):
    """A file in which long zeros are holes."""

    __slots__ = ("_file", "path")

    def __init__(self, file: File) -> None:
        self._file, self.path = file, file.path

    def write_at(self, offset: int, data: Data) -> None:
        if len(data) >= 2**20 and not np.frombuffer(data, np.uint64).any():
            if self._file.size() < offset + len(data):
                self._file.truncate(offset + len(data))
        else:
            self._file.write_at(offset, data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._file.read_at(offset, length)

    def size(self) -> int:
        return self._file.size()

    def truncate(self, length: int) -> None:
        self._file.truncate(length)

    def sync(self) -> None:
        self._file.sync()

    def sync_data(self) -> None:
        self._file.sync_data()

    def map(self) -> memoryview:
        return self._file.map()

    def close(self) -> None:
        self._file.close()


class Sparse(PosixEnvironment):
    """The machine, with sparse files."""

    def open(self, path: str, mode: Mode) -> File:
        return SparseFile(super().open(path, mode))


def test_a_vector_file_beyond_four_gibibytes(tmp_path: Path) -> None:
    dimension, zeros, step = 65_536, 2**32 // (4 * 65_536), 1024
    rows = zeros + 3
    last = np.random.default_rng(1).standard_normal((3, dimension)).astype(np.float32)

    def parts() -> Iterator[Matrix]:
        nothing = np.zeros((step, dimension), np.float32)
        for _ in range(zeros // step):
            yield nothing
        yield last

    numbers = np.arange(2**33, 2**33 + rows, dtype=np.uint64)
    norms = np.concatenate([np.zeros(zeros), np.linalg.norm(last, axis=1)]).astype(np.float32)
    never, born = np.full(rows, NEVER, np.uint64), np.full(rows, 2**40, np.uint64)
    columns = VectorColumns(numbers, numbers, numbers, born, never, norms)
    path, environment = str(tmp_path / "large.vec"), Sparse()
    size, fingerprint = write_vector_file(
        environment, path, bytes(16), 7, columns, dimension, parts()
    )
    assert size > 2**32 and (tmp_path / "large.vec").stat().st_blocks * 512 < 2**26
    entry = VectorEntry(
        number=7,
        origin=bytes(16).hex(),
        size=size,
        fingerprint=fingerprint.hex(),
        rows=rows,
        dimension=dimension,
        space=0,
        number_min=int(numbers[0]),
        number_max=int(numbers[-1]),
    )
    file = VectorFile(environment, path, entry, Marks())
    for i in range(3):
        row = file.row_of(2**33 + zeros + i)
        assert row == zeros + i
        assert (file.vector(row) == last[i]).all()
    assert file.row_of(2**33 - 1) is None
    file.reader.close()
