"""Whole conversations, turn by turn: saved by a process that is killed, found again bit for bit.

Runs on generated conversations always, and on the LoCoMo conversations if a folder with their turns
is named by ENGRAMDB_CONVERSATIONS or lies beside the checkout as */data/locomo. Such a folder has
turns.jsonl (conv, session, date, dia_id, speaker, text) and questions.jsonl, and turns.npy and
questions.npy with an embedding for each line. Nothing of it is part of this project.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import engramdb

ROOT = Path(__file__).resolve().parent.parent
Matrix = npt.NDArray[np.float32]

WRITER = """
import json, sys
import numpy as np
import engramdb

folder, path = sys.argv[1:]
turns = [json.loads(line) for line in open(f"{folder}/turns.jsonl", encoding="utf-8")]
vectors = np.load(f"{folder}/turns.npy")
db = engramdb.Database.file_based(path, memtable_bytes=2**20)
before = {}
for position, (turn, vector) in enumerate(zip(turns, vectors)):
    node = engramdb.MemoryNode(vector, attributes={**turn, "position": position})
    with db.transaction() as tx:
        tx.save(node)
        if turn["conv"] in before:
            tx.connect(before[turn["conv"]], node.id, engramdb.RelationshipType.SEQUENCE)
    before[turn["conv"]] = node.id
    print(node.id, flush=True)
print("all", flush=True)
sys.stdin.read()
"""


@dataclass
class Conversations:
    """A folder of turns and questions, and what is in it."""

    folder: Path
    turns: list[dict[str, Any]]
    vectors: Matrix
    questions: Matrix


def _real_folder() -> Path | None:
    named = os.environ.get("ENGRAMDB_CONVERSATIONS")
    found = [Path(named)] if named else sorted(ROOT.parent.glob("*/data/locomo"))
    return found[0] if found and (found[0] / "turns.npy").exists() else None


def _load(folder: Path) -> Conversations:
    lines = (folder / "turns.jsonl").read_text(encoding="utf-8").splitlines()
    return Conversations(
        folder,
        [json.loads(line) for line in lines],
        np.load(folder / "turns.npy"),
        np.load(folder / "questions.npy"),
    )


def _generate(folder: Path) -> None:
    rng = np.random.default_rng(7)
    words = ["boat", "tea", "Odile", "shed", "Größe", "naïve", "雨", "launch", "Mara", "🙂"]
    turns = [
        {
            "conv": str(conversation),
            "session": 1 + number // 20,
            "date": f"1:{number % 60:02d} pm on 8 May, 2023",
            "dia_id": f"D{1 + number // 20}:{number % 20}",
            "speaker": ("Ana", "Ben")[number % 2],
            "text": " ".join(rng.choice(words, size=int(rng.integers(1, 40)))),
            "caption": None,
        }
        for conversation in range(3)
        for number in range(150)
    ]
    text = "".join(json.dumps(turn, ensure_ascii=False) + "\n" for turn in turns)
    (folder / "turns.jsonl").write_text(text, encoding="utf-8")
    centres = rng.standard_normal((12, 64))
    for name, count in (("turns", len(turns)), ("questions", 60)):
        rows = centres[rng.integers(0, 12, count)] + 0.5 * rng.standard_normal((count, 64))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        np.save(folder / f"{name}.npy", rows.astype(np.float32))


@pytest.fixture(scope="module", params=["generated", "real"])
def conversations(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Conversations:
    if request.param == "generated":
        folder = tmp_path_factory.mktemp("conversations")
        _generate(folder)
        return _load(folder)
    folder_or_none = _real_folder()
    if folder_or_none is None:
        pytest.skip("no folder of real conversations: name one in ENGRAMDB_CONVERSATIONS")
    return _load(folder_or_none)


@pytest.fixture(scope="module")
def survivor(
    conversations: Conversations, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[str]]:
    """A database whose writer was killed after its last acknowledgement, and the ids in order."""
    path = str(tmp_path_factory.mktemp("survivor") / "db")
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(conversations.folder), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert writer.stdout is not None and writer.stdin is not None
    with writer:
        ids = []
        for line in writer.stdout:
            if line == "all\n":
                break
            ids.append(line.strip())
        writer.send_signal(signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    assert len(ids) == len(conversations.turns)
    return path, ids


def test_every_turn_and_vector_is_there_after_the_kill(
    conversations: Conversations, survivor: tuple[str, list[str]]
) -> None:
    path, ids = survivor
    with engramdb.Database.open(path) as db:
        assert len(db) == len(ids)
        for position, memory_id in enumerate(ids):
            node = db.load(memory_id)
            assert dict(node.attributes) == {**conversations.turns[position], "position": position}
            assert node.embeddings is not None
            assert node.embeddings.tobytes() == conversations.vectors[position].tobytes()
        assert db.verify().ok


def test_the_order_of_the_turns_is_there(
    conversations: Conversations, survivor: tuple[str, list[str]]
) -> None:
    path, ids = survivor
    follows = dict(pairwise(ids))
    with engramdb.Database.open(path, read_only=True) as db:
        names = [turn["conv"] for turn in conversations.turns]
        for memory_id, name, next_name in zip(ids, names, names[1:], strict=False):
            after = [connection.target_id for connection in db.get_connections(memory_id)]
            assert after == ([follows[memory_id]] if name == next_name else [])


def test_exact_search_finds_what_numpy_finds(
    conversations: Conversations, survivor: tuple[str, list[str]]
) -> None:
    path, ids = survivor
    rows = conversations.vectors.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with engramdb.Database.open(path, read_only=True) as db:
        everything = db.search_many(conversations.questions, limit=10, threshold=-1.0)
        for question, hits in zip(conversations.questions, everything, strict=True):
            wide = question.astype(np.float64)
            scores = rows @ (wide / np.linalg.norm(wide))
            best = np.argsort(-scores, kind="stable")[:10]
            # equal turns have equal vectors, and which comes first is open: compare scores
            np.testing.assert_allclose([score for _, score in hits], scores[best], atol=1e-9)
            unique = {ids[row] for row in best if np.count_nonzero(scores == scores[row]) == 1}
            assert unique <= {memory_id for memory_id, _ in hits}
            assert hits == db.search_similar(question, limit=10, threshold=-1.0)


def test_the_past_is_searched_as_it_was(
    conversations: Conversations, survivor: tuple[str, list[str]]
) -> None:
    path, ids = survivor
    middle = len(ids) // 2
    question = conversations.questions[0]
    with engramdb.Database.open(path) as db:
        seq = db.history(ids[middle])[0].seq
        hits = db.search_similar(question, limit=len(ids), threshold=-1.0, as_of=seq)
        assert {memory_id for memory_id, _ in hits} == set(ids[: middle + 1])
        db.compact()
        assert db.search_similar(question, limit=len(ids), threshold=-1.0, as_of=seq) == hits
