"""A memory that will be erased, with connections both ways, among others that must stay."""

from __future__ import annotations

import random
import uuid
from typing import Any, Final
from unittest import mock

import engramdb
from engramdb import database as database_module
from engramdb.lsm import Batch, Options
from engramdb.lsm.environment import Environment
from engramdb.lsm.records import edge_key
from tests.erasure.scan import Needles, files_of, traces

PATH: Final = "/database"
DIMENSION: Final = 8


class Secret:
    """The database, the memory to be erased, and everything that was ever said of it."""

    def __init__(self, environment: Environment, seed: int, path: str = PATH, **options: Any):
        self.environment, self.path, self.options = environment, path, options
        self.random = random.Random(f"secret {seed}")
        self.id = self.new_id()
        self.needles = Needles()
        self.needles.add_key(uuid.UUID(self.id).bytes)
        self.others: list[str] = []
        self.times_saved = 0
        self.lossy = False  # a policy may drop versions
        self.db = self.open()

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128)))

    def text(self) -> str:
        """The same words zstd would fold into one another, and some it cannot."""
        return "the secret is the secret is " + self.random.randbytes(12).hex()

    def vector(self) -> list[float]:
        return [self.random.gauss(0, 1) for _ in range(DIMENSION)]

    def open(self, path: str | None = None) -> engramdb.Database:
        settings = dict(self.options)
        engine = {
            name: settings.pop(name)
            for name in ("bulk_bytes_min", "fan_in", "log_allocate_bytes")
            if name in settings
        }
        settings.setdefault("background", False)
        config = engramdb.DatabaseConfig(storage_dir=path or self.path, **settings)

        def options(**given: Any) -> Options:
            return Options(**given, **engine)

        with mock.patch.object(database_module, "Options", options):
            return engramdb.Database(config, self.environment)

    # Others

    def fill(self, count: int = 10) -> None:
        """Other memories, connected among themselves."""
        nodes = [
            engramdb.MemoryNode(self.vector(), id=self.new_id(), attributes={"text": f"other {i}"})
            for i in range(count)
        ]
        self.db.save_many(nodes)
        self.others += [node.id for node in nodes]
        self.db.connect(nodes[0].id, nodes[1].id, "Knows", attributes={"since": 1999})

    def touch(self) -> None:
        """A new version of one of the others."""
        node = self.db.load(self.random.choice(self.others))
        node.set_attribute("n", self.random.randrange(100))
        self.db.save(node)

    # What will be erased

    def secret_row(self) -> tuple[str, list[float]]:
        text, vector = self.text(), self.vector()
        self.needles.add_text(text[-24:])
        self.needles.add_vector(vector)
        self.times_saved += 1
        return text, vector

    def save(self, sync: bool | None = None) -> None:
        text, vector = self.secret_row()
        node = engramdb.MemoryNode(vector, id=self.id, attributes=self.told(text))
        reason = self.text()
        self.needles.add_text(reason[-24:])
        self.db.save(node, reason=reason, sync=sync)

    def patch(self) -> None:
        """Another text, the same vector."""
        node = self.db.get(self.id)
        if node is None:
            self.save()
            return
        text, _ = self.secret_row()
        for name, value in self.told(text).items():
            node.set_attribute(name, value)
        self.db.save(node)

    def told(self, text: str) -> dict[str, Any]:
        """Attributes that say it in each way in which columns keep it: a long text, of which they
        keep the beginning, a short one, an element, in a dict, a number, and as a key."""
        short, number = text[-24:], int(text[-15:], 16)
        self.needles.halves |= {number, number + 2**63}
        tags, nested = [short, "tag"], {"in": short[::-1]}
        self.needles.add_text(short[::-1])
        return {"text": text, "s": short, "tags": tags, "d": nested, "n": number, short: True}

    def save_columns(self) -> None:
        """Together with two of the others."""
        text, vector = self.secret_row()
        ids = [self.others[0], self.id, self.others[1]]
        vectors = [self.vector(), vector, self.vector()]
        self.db.save_columns(ids, vectors, [{"s": "x"}, self.told(text), {"s": "y"}])

    def connect(self) -> None:
        """Both ways, and with itself, with words of its own."""
        if self.id not in self.db:
            self.save()
        other = self.random.choice(self.others)
        for source, target in ((self.id, other), (other, self.id), (self.id, self.id)):
            kind, why = "Is" + self.random.randbytes(8).hex(), self.text()
            self.needles.add_text(kind)
            self.needles.add_text(why[-24:])
            ends = uuid.UUID(source).bytes, uuid.UUID(target).bytes
            self.needles.add_key(edge_key(*ends, kind))
            self.db.connect(source, target, kind, 0.5, {"why": why})

    def delete(self) -> None:
        self.db.delete(self.id)

    def restore(self) -> None:
        layers = [layer for layer in self.db.history(self.id) if not layer.deleted]
        if layers:
            self.db.restore(self.id, layers[0].seq)

    def undo(self) -> None:
        if self.db.last_seq and not self.lossy:
            self.db.undo()

    def keep_last(self) -> None:
        self.lossy = True
        self.db.set_history(engramdb.KeepLast(1))

    def save_once(self) -> None:
        """With an idempotency key."""
        text, vector = self.secret_row()
        batch = Batch()
        node = engramdb.MemoryNode(vector, id=self.id, attributes={"text": text})
        payload = engramdb.model.attributes.encode_memory(0, None, dict(node.attributes))
        batch.put(uuid.UUID(self.id).bytes, payload, node.embeddings)
        self.db._engine.commit(batch, idempotency_key=f"once {self.times_saved}")

    def kill(self) -> None:
        """The process goes, without a flush; opened again."""
        engine = self.db._engine
        engine._maintenance.stop()
        engine._core.close("it was killed")
        self.db._finalizer.detach()
        self.db = self.open()

    def reopen(self) -> None:
        self.db.close()
        self.db = self.open()

    # What must hold

    def other_states(self, db: engramdb.Database | None = None) -> dict[str, Any]:
        """What is known of the others, connections with the secret apart; of their history, what
        no policy may drop."""
        db = db or self.db
        first = -1 if self.lossy else 0
        return {
            each: (
                str(sorted(db.load(each).attributes.items())),
                db.load(each).embeddings.tolist(),  # type: ignore[union-attr]
                [(layer.seq, str(layer.attributes)) for layer in db.history(each)[first:]],
                [c for c in db.get_connections(each) if c.target_id != self.id],
                [c for c in db.get_connected_to(each) if c.source_id != self.id],
            )
            for each in self.others
        }

    def is_known(self, db: engramdb.Database | None = None) -> bool:
        """Whether the database still knows anything of it."""
        db = db or self.db
        return bool(
            db.history(self.id) or db.get_connections(self.id) or db.get_connected_to(self.id)
        )

    def traces(self, environment: Environment | None = None, path: str | None = None) -> list[str]:
        """Where in the files anything of it is."""
        return traces(files_of(environment or self.environment, path or self.path), self.needles)
