"""A whole database taken apart; build() makes its files again, each sum and each reference right:
containers, then the manifest that repeats their sizes and fingerprints."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any, Final

import xxhash

from engramdb.lsm import manifest as manifests
from engramdb.lsm.log_writer import VISIBLE
from tests.fuzz import values
from tests.fuzz.containers import ForgedContainer
from tests.fuzz.logs import ForgedLog
from tests.fuzz.samples import Files, sample

KINDS: Final = ("log", "segment", "vectors", "marks", "manifest", "visible")
_ENDINGS: Final = {"log": ".wal", "segment": ".seg", "vectors": ".vec", "marks": ".mark"}


class ForgedDatabase:
    """The files of a sample, as values that can be changed."""

    def __init__(self, files: Files) -> None:
        self.containers: dict[str, ForgedContainer] = {}
        self.logs: dict[str, ForgedLog] = {}
        self.manifest: Any = {}
        self.visible: list[int] | None = None
        self._said: set[str] = set()  # files of which the manifest says something forged
        self.raw: Files = {}
        for name, data in files.items():
            if name.startswith("MANIFEST-"):
                self.manifest = json.loads(data[manifests.HEADER.size :])
                self.manifest_name = name
            elif name == "VISIBLE":
                self.visible = list(VISIBLE.unpack(data)[1:7])
            elif name.endswith(".wal"):
                self.logs[name] = ForgedLog(data)
            else:
                self.containers[name] = ForgedContainer(data)

    def build(self) -> Files:
        """The files."""
        files = {name: log.build() for name, log in self.logs.items()}
        manifest = copy.deepcopy(self.manifest)
        for name, container in self.containers.items():
            files[name], fingerprint = container.build()
            self._refer(manifest, name, len(files[name]), fingerprint.hex())
        files[self.manifest_name] = seal(json.dumps(manifest, separators=(",", ":")).encode())
        if self.visible is not None:
            numbers = [n % 2**64 for n in self._visible_numbers(self.visible)]
            head = VISIBLE.pack(b"ENGRAMVI", *numbers, 0)[:56]
            files["VISIBLE"] = head + xxhash.xxh3_64_intdigest(head).to_bytes(8, "little")
        return {**files, **self.raw}

    def _visible_numbers(self, numbers: list[int]) -> list[int]:
        """As they are if they were forged; else with the length that the log has now."""
        log = self.logs.get(f"wal/{numbers[0]:06d}.wal")
        if log is None or "VISIBLE" in self._said:
            return numbers
        length = len(log.build()) - len(log.tail)
        return [numbers[0], length, length, *numbers[3:]]

    def _refer(self, manifest: Any, name: str, size: int, fingerprint: str) -> None:
        """What the manifest repeats of a file, where a change has left a place for it."""
        number, prefix = int(name[4:10]), "marks_" if name.endswith(".mark") else ""
        if name in self._said or not isinstance(manifest, dict):
            return
        for part in ("vectors",) if name.endswith(".vec") else ("segments", "vectors"):
            entries = manifest.get(part)
            for entry in entries if isinstance(entries, list) else ():
                if not isinstance(entry, dict):
                    continue
                if entry.get("marks" if prefix else "number") == number:
                    entry[f"{prefix}size"] = size
                    entry[f"{prefix}fingerprint"] = fingerprint

    def keep_said(self, *names: str) -> None:
        """What the manifest says of these files stays as it is."""
        self._said.update(names)

    def forge(self, random: Random, kind: str) -> None:
        """Change one thing of one file of a kind; of the manifest, if there is none of the kind."""
        near = tuple(n for n in _integers(self.manifest) if n < 2**64)
        ending = _ENDINGS.get(kind, "")
        if kind == "visible" and self.visible is not None:
            place = random.randrange(len(self.visible))
            near = (*near, 64, *map(len, self.build().values()))
            self.keep_said("VISIBLE")
            self.visible[place] = values.number(random, self.visible[place], 64, near)
        elif ending and (
            names := [n for n in (*self.logs, *self.containers) if n.endswith(ending)]
        ):
            name = random.choice(names)
            if random.randrange(40) == 0:
                whole = {**self.logs, **self.containers}[name].build()
                self.raw[name] = values.stretch(
                    random, whole if isinstance(whole, bytes) else whole[0]
                )
            elif name in self.logs:
                self.logs[name].forge(random, near)
            else:
                self.containers[name].forge(random, near)
        elif random.randrange(30) == 0:
            body = json.dumps(self.manifest).encode()
            self.raw[self.manifest_name] = seal(values.stretch(random, body, values.JSON))
        else:
            values.tree(random, self.manifest, near)
            if random.randrange(8) == 0:
                self.keep_said(*self.containers)  # the sizes stay as they were forged


def seal(body: bytes) -> bytes:
    """A manifest with this body."""
    head = manifests.HEADER.pack(manifests.MAGIC, manifests.FORMAT, len(body), bytes(16))[:16]
    return head + xxhash.xxh3_128_digest(head + body) + body


def _integers(node: Any) -> list[int]:
    if isinstance(node, dict | list):
        children = node.values() if isinstance(node, dict) else node
        return [n for child in children for n in _integers(child)]
    return [node] if isinstance(node, int) and not isinstance(node, bool) else []


def forged(random: Random, name: str, kind: str) -> Files:
    """A sample with one to four things of a kind changed."""
    database = ForgedDatabase(sample(name))
    for _ in range(random.choice((1, 1, 1, 2, 2, 4))):
        database.forge(random, kind)
    return database.build()
