"""What a run writes down: exact texts of what the API returns."""

from __future__ import annotations

from typing import Any

import engramdb


def node_text(node: engramdb.MemoryNode) -> str:
    vector = None if node.embeddings is None else node.embeddings.tobytes().hex()
    created = node.creation_timestamp.isoformat()
    score = "" if node.score is None else node.score.hex()
    return f"{node.id} {created} {sorted(node.attributes.items())} {vector} {score}"


def connection_text(each: engramdb.Connection) -> str:
    ends = f"{each.source_id}>{each.target_id} {each.relationship_type}"
    created = each.creation_timestamp.isoformat()
    return f"{ends} {each.strength.hex()} {sorted(each.attributes.items())} {created}"


def layer_text(layer: engramdb.TemporalLayer) -> str:
    vector = None if layer.embeddings is None else layer.embeddings.tobytes().hex()
    told = f"{layer.timestamp.isoformat()} {layer.reason} {layer.deleted}"
    return f"{told} {sorted(layer.attributes.items())} {vector}"


def hits_text(hits: list[tuple[str, float]]) -> str:
    return " ".join(f"{memory_id}={score.hex()}" for memory_id, score in hits)


def state_text(reading: Any) -> str:
    """Everything that is there."""
    ids = reading.list_all()
    lines = [f"{len(reading)} memories"]
    for memory_id in ids:
        lines.append(node_text(reading.load(memory_id)))
        lines += ["  to " + connection_text(each) for each in reading.get_connections(memory_id)]
        lines += ["  by " + connection_text(each) for each in reading.get_connected_to(memory_id)]
    return "\n".join(lines)


def difference_text(difference: Any) -> str:
    connections = difference.connections
    lines = [f"added {difference.added}", f"removed {difference.removed}"]
    for change in difference.changed:
        attributes = sorted(change.attributes.items())
        lines.append(f"changed {change.id} {attributes} {change.embeddings_changed}")
    lines += ["connected " + connection_text(each) for each in connections.added]
    lines += ["disconnected " + connection_text(each) for each in connections.removed]
    for change in connections.changed:
        lines.append(f"{connection_text(change.old)} -> {connection_text(change.new)}")
    return "\n".join(lines)


def commits_text(commits: list[Any]) -> str:
    return "\n".join(
        f"{c.seq} {c.timestamp.isoformat()} {c.saved} {c.deleted} {c.connected} {c.disconnected}"
        for c in commits
    )
