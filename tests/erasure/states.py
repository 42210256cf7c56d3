"""States of a database in which a memory is erased: by name, and drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import engramdb
from tests.erasure.secret import Secret

STEPS: Final = (
    *("save", "save", "patch", "patch", "save_columns", "connect", "connect", "delete", "restore"),
    *("undo", "save_once", "touch", "flush", "flush", "compact", "kill", "reopen", "tag"),
    *("keep_last", "keep all", "save unsynced"),
)


def take(secret: Secret, name: str) -> None:
    """One step."""
    db = secret.db
    steps: dict[str, Callable[[], object]] = {
        "flush": db.flush,
        "compact": db.compact,
        "tag": lambda: db.tag(f"tag {db.last_seq} {len(db.tags())}"),
        "keep all": lambda: db.set_history(engramdb.KeepAll()),
        "save unsynced": lambda: secret.save(sync=False),
    }
    steps.get(name, lambda: getattr(secret, name)())()


NAMED: Final[dict[str, tuple[str, ...]]] = {
    "in the log only": ("save",),
    "in the log only, after a kill": ("save", "connect", "kill"),
    "unsynced": ("save", "save unsynced"),
    "in a segment": ("save", "connect", "flush"),
    "in several segments, with marks": (
        "save",
        "flush",
        "patch",
        "flush",
        "save",
        "connect",
        "flush",
    ),
    "in a segment and in the log": ("save", "flush", "patch", "delete"),
    "merged": ("save", "flush", "patch", "connect", "flush", "save", "compact"),
    "bulk loaded": ("save_columns", "save_columns"),
    "bulk loaded, then changed": ("save_columns", "connect", "flush", "save_columns", "patch"),
    "deleted in the log": ("save", "connect", "delete"),
    "deleted in a segment": ("save", "connect", "flush", "delete", "flush"),
    "deleted and restored": ("save", "connect", "delete", "restore", "flush", "undo"),
    "dropped by retention": ("save", "connect", "keep_last", "flush", "save", "delete", "compact"),
    "dropped by retention at the flush": ("keep_last", "save", "connect", "save", "delete"),
    "kept by tags": ("save", "connect", "tag", "keep_last", "save", "delete", "tag", "compact"),
    "with idempotency keys": ("save_once", "flush", "save_once", "save_once"),
    "its vector alone is left": (
        "save",
        "flush",
        "keep_last",
        "save",
        "patch",
        "compact",
        "save",
    ),
}


def random_steps(secret: Secret) -> list[str]:
    """Some steps, drawn from the seed of the secret."""
    return secret.random.choices(STEPS, k=secret.random.randint(1, 14))
