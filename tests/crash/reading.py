"""Which bytes of a disk a reader touches. What it does is a function of those bytes: a fault in any
other byte changes nothing, so such faults need not be tried one by one."""

from __future__ import annotations

from engramdb.lsm.environment.base import File, Mode
from engramdb.lsm.environment.simulated import SimulatedDisk, SimulatedFile
from engramdb.lsm.environment.trace import Image


class ReadingDisk(SimulatedDisk):
    """A simulated disk that marks each byte that is read or mapped, by node number."""

    def __init__(self, image: Image, seed: int = 0) -> None:
        super().__init__(seed, image=image, generation=1)
        self.touched = {
            number: bytearray(len(content.data)) for number, content in image.files.items()
        }

    def open(self, path: str, mode: Mode) -> File:
        file = super().open(path, mode)
        assert isinstance(file, SimulatedFile)
        node = file._opened()
        return _ReadingFile(self, path, node, mode != "r")


class _ReadingFile(SimulatedFile):
    __slots__ = ()

    def read_at(self, offset: int, length: int) -> bytes:
        data = super().read_at(offset, length)
        self._touch(offset, offset + len(data))
        return data

    def map(self) -> memoryview:
        view = super().map()
        self._touch(0, len(view))
        return view

    def _touch(self, start: int, stop: int) -> None:
        disk = self._disk
        assert isinstance(disk, ReadingDisk)
        touched = disk.touched.get(self._opened().number)
        if touched is not None:
            stop = min(stop, len(touched))
            touched[start:stop] = b"\1" * max(0, stop - start)
