"""A check of what is read is missing: damaged files must be noticed nevertheless, or this is."""

from __future__ import annotations

from typing import Any

import xxhash

from engramdb.lsm import manifest as manifests
from engramdb.lsm import recovery
from engramdb.lsm.container import FOOTER, HEADER, ContainerReader
from engramdb.lsm.marks import Marks
from tests.crash.mutants.mutant import Patch, mutant, planted


def section_sum_not_checked(monkeypatch: Patch) -> None:
    def checked(
        reader: ContainerReader, section: Any, offset: int, length: int, digest: int
    ) -> Any:
        return reader._read(offset, length)

    monkeypatch.setattr(ContainerReader, "_checked", checked)


def vector_chunk_not_checked(monkeypatch: Patch) -> None:
    monkeypatch.setattr(ContainerReader, "check_chunk", lambda *ignored: None)


def fingerprint_not_compared(monkeypatch: Patch) -> None:
    """What the manifest says of a file's content is not looked at: a sound file is enough."""
    real = ContainerReader._open

    def opened(
        reader: ContainerReader, kind: bytes, database: bytes, number: int, size: int, _: bytes
    ) -> None:
        size = reader.file.size()
        footer = reader.file.read_at(size - FOOTER.size, FOOTER.size)
        real(reader, kind, database, number, size, footer[24:40])

    monkeypatch.setattr(ContainerReader, "_open", opened)


def identity_not_compared(monkeypatch: Patch) -> None:
    """Nor is the number of the file and the database that it belongs to."""
    real = ContainerReader._open

    def opened(
        reader: ContainerReader, kind: bytes, database: bytes, number: int, size: int, _: bytes
    ) -> None:
        size = reader.file.size()
        fields = HEADER.unpack(reader.file.read_at(0, HEADER.size))
        footer = reader.file.read_at(size - FOOTER.size, FOOTER.size)
        real(reader, kind, fields[4], fields[5], size, footer[24:40])

    monkeypatch.setattr(ContainerReader, "_open", opened)


def missing_marks_are_none(monkeypatch: Patch) -> None:
    real = recovery.read_marks

    def read_marks(environment: Any, directory: str, entry: Any) -> Marks:
        path = f"{directory}/seg/{entry.marks:06d}.mark"
        return real(environment, directory, entry) if environment.exists(path) else Marks()

    monkeypatch.setattr(recovery, "read_marks", read_marks)


def manifest_sum_not_checked(monkeypatch: Patch) -> None:
    real = manifests.decode

    def decode(data: bytes, path: str) -> manifests.Manifest:
        body = data[manifests.HEADER.size :]
        return real(data[:16] + xxhash.xxh3_128_digest(data[:16] + body) + body, path)

    monkeypatch.setattr(manifests, "decode", decode)


def manifest_number_not_compared(monkeypatch: Patch) -> None:
    """An older manifest under the name of a later one is believed, where VISIBLE is lost."""

    def load_latest(environment: Any, directory: str) -> manifests.Manifest | None:
        numbers = manifests.numbers_in(environment.list(directory))
        if not numbers:
            return None
        path = f"{directory}/{manifests.name_of(numbers[-1])}"
        file = environment.open(path, "r")
        try:
            found = manifests.decode(file.read_at(0, file.size()), path)
        finally:
            file.close()
        return found

    monkeypatch.setattr(manifests, "load_latest", load_latest)
    monkeypatch.setattr(recovery, "read_visible", lambda environment, directory: None)


def latest_manifest_may_be_missing(monkeypatch: Patch) -> None:
    """VISIBLE names a manifest, and nobody looks whether it is there."""
    real = recovery.read_visible

    def read_visible(environment: Any, directory: str) -> Any:
        visible = real(environment, directory)
        return visible and visible._replace(manifest=0)

    monkeypatch.setattr(recovery, "read_visible", read_visible)


def missing_log_is_none(monkeypatch: Patch) -> None:
    """VISIBLE names a log, and it is not there: then there was none."""
    real = recovery.read_visible

    def read_visible(environment: Any, directory: str) -> Any:
        visible = real(environment, directory)
        if visible is None or not environment.exists(f"{directory}/wal/{visible.log:06d}.wal"):
            return None
        return visible

    monkeypatch.setattr(recovery, "read_visible", read_visible)


DAMAGES = [
    mutant(section_sum_not_checked, planted("closed_database", "seg")),
    mutant(vector_chunk_not_checked, planted("closed_database", "vec")),
    mutant(fingerprint_not_compared, planted("closed_database", "seg", "vec", "mark")),
    mutant(identity_not_compared, planted("closed_database", "seg", "vec", "mark")),
    mutant(missing_marks_are_none, planted("closed_database", "mark")),
    mutant(manifest_sum_not_checked, planted("closed_database", "MANIFEST")),
    mutant(
        manifest_number_not_compared, planted("published_database", "MANIFEST", flips_first=False)
    ),
    mutant(
        latest_manifest_may_be_missing, planted("published_database", "MANIFEST", flips_first=False)
    ),
    mutant(missing_log_is_none, planted("crashed_database", "wal")),
]
