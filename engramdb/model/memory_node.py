"""MemoryNode: one memory in the hands of the caller. Nothing is written until it is saved."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Self

import numpy.typing as npt

from engramdb.errors import InvalidInputError
from engramdb.lsm.records import NO_VECTOR
from engramdb.model.access_history import AccessHistory
from engramdb.model.attributes import (
    ALWAYS,
    Validity,
    check_attributes,
    check_key,
    check_value,
)
from engramdb.model.identifiers import format_key, new_key, parse_id
from engramdb.model.moments import check_moment, from_microseconds, moment_or_none, now_us
from engramdb.model.temporal_layer import TemporalLayer
from engramdb.model.vectors import (
    NO_VECTORS,
    Vector,
    check_space,
    check_vector,
    check_vectors,
)

LayersLoader = Callable[[bytes], list[TemporalLayer]]

_NONE_CARRIED: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType({})


class MemoryNode:
    """A memory: an id, a vector or none, attributes, the moment it was created, and when it holds.

    For the database, and for nobody else:
        _key            the id as 16 bytes
        _creation_us    microseconds since the epoch
        _attributes     the dict behind `attributes`
        _validity       what is behind `valid_from` and `valid_to`
        _embeddings     the array behind `embeddings`
        _stored_vector  vector number that `_embeddings` came from bit for bit, or NO_VECTOR
        _vectors        what is behind `vectors`; replaced, never changed
        _carried        vector numbers that arrays of `_vectors` came from bit for bit, by space
        _seq            the seq of the version this was loaded from, 0 for a new memory
        _layers_loader  called with `_key` for temporal_layers(), or None
    """

    __slots__ = (
        "__weakref__",
        "_attributes",
        "_carried",
        "_creation_us",
        "_embeddings",
        "_key",
        "_layers_loader",
        "_seq",
        "_stored_vector",
        "_validity",
        "_vectors",
        "score",
    )

    _key: bytes
    _creation_us: int
    _attributes: dict[str, Any]
    _embeddings: Vector | None
    _validity: Validity
    _stored_vector: int
    _vectors: Mapping[str, Vector]
    _carried: Mapping[str, tuple[int, ...]]
    _seq: int
    _layers_loader: LayersLoader | None
    score: float | None
    """How well it answered the query it came from; None otherwise."""

    def __init__(
        self,
        embeddings: Sequence[float] | npt.NDArray[Any] | None = None,
        *,
        id: str | uuid.UUID | None = None,
        attributes: Mapping[str, Any] | None = None,
        creation_timestamp: datetime | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        vectors: Mapping[str, npt.ArrayLike] | None = None,
    ) -> None:
        """A new memory. Without `id` it gets a fresh UUID that sorts by time; without
        `creation_timestamp` it was created now; without `valid_from` and `valid_to` it holds
        always. `vectors`: further vectors by the name of their space, see set_vector(). Raises
        InvalidInputError naming what is wrong."""
        self._embeddings = None if embeddings is None else check_vector(embeddings)
        self._key = new_key() if id is None else parse_id(id, "id")
        self._attributes = {} if attributes is None else check_attributes(attributes)
        self._creation_us = (
            now_us()
            if creation_timestamp is None
            else check_moment(creation_timestamp, "creation_timestamp")
        )
        self._validity = ALWAYS
        if valid_from is not None or valid_to is not None:
            self._validity = Validity(
                _optional_moment(valid_from, "valid_from"), _optional_moment(valid_to, "valid_to")
            )
        self._vectors = NO_VECTORS if vectors is None else _checked_vectors(vectors)
        self._carried = _NONE_CARRIED
        self._stored_vector = NO_VECTOR
        self._seq = 0
        self._layers_loader = None
        self.score = None

    @classmethod
    def _restore(
        cls,
        key: bytes,
        creation_us: int,
        attributes: dict[str, Any],
        validity: Validity,
        embeddings: Vector | None,
        vector_number: int,
        seq: int,
        layers_loader: LayersLoader | None,
    ) -> Self:
        """A node from the log. Takes everything as it is: it was checked when it was written."""
        node = cls.__new__(cls)
        node._key = key
        node._creation_us = creation_us
        node._attributes = attributes
        node._validity = validity
        node._embeddings = embeddings
        node._vectors = NO_VECTORS
        node._carried = _NONE_CARRIED
        node._stored_vector = vector_number
        node._seq = seq
        node._layers_loader = layers_loader
        node.score = None
        return node

    @property
    def id(self) -> str:
        """The id: a UUID in its canonical form."""
        return format_key(self._key)

    @property
    def creation_timestamp(self) -> datetime:
        """When the memory was created, in UTC. Saving it again does not change it."""
        return from_microseconds(self._creation_us)

    @property
    def valid_from(self) -> datetime | None:
        """Since when it holds in the world, which need not be when it was learned; None: ever
        since. Assign to change it."""
        return moment_or_none(self._validity.from_us)

    @valid_from.setter
    def valid_from(self, moment: datetime | None) -> None:
        start_us = _optional_moment(moment, "valid_from")
        self._validity = Validity(start_us, self._validity.to_us)

    @property
    def valid_to(self) -> datetime | None:
        """The first moment at which it does not hold any more; None: it holds on. Assign to change
        it."""
        return moment_or_none(self._validity.to_us)

    @valid_to.setter
    def valid_to(self, moment: datetime | None) -> None:
        end_us = _optional_moment(moment, "valid_to")
        self._validity = Validity(self._validity.from_us, end_us)

    @property
    def embeddings(self) -> Vector | None:
        """The vector, read-only, or None. Assign to replace it."""
        return self._embeddings

    @embeddings.setter
    def embeddings(self, values: Sequence[float] | npt.NDArray[Any] | None) -> None:
        self._embeddings = None if values is None else check_vector(values)
        self._stored_vector = NO_VECTOR

    @property
    def vectors(self) -> Mapping[str, Vector]:
        """The vectors in named spaces, read-only; set_vector() changes them."""
        return MappingProxyType(dict(self._vectors))

    def set_vector(self, name: str, values: npt.ArrayLike | None) -> None:
        """Set the vector in a named space, or remove it with None; or raise InvalidInputError.

        One row of numbers is a single vector; a matrix of n rows (at most 4,096) a multi-vector,
        for late interaction. All vectors of a space have one length, the first one's.
        """
        name = check_space(name)
        vectors = {**self._vectors}
        vectors.pop(name, None)
        if values is not None:
            vectors[name] = check_vectors(values, f"vectors[{name!r}]")
        self._vectors = vectors
        self._carried = {space: said for space, said in self._carried.items() if space != name}

    def get_vector(self, name: str) -> Vector | None:
        """The vector in a named space, (d,) or (n, d) float32 as it was set, read-only; or None."""
        return self._vectors.get(name)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """All attributes, as a read-only view; set_attribute and remove_attribute change them."""
        return MappingProxyType(self._attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set one attribute to a copy of the value, or raise InvalidInputError."""
        key = check_key(key, "attributes")
        self._attributes[key] = check_value(value, f"attributes[{key!r:.80}]")

    def get_attribute(self, key: str, default: Any = None) -> Any:
        """The value of one attribute, or `default` if there is none of that name."""
        return self._attributes.get(key, default)

    def remove_attribute(self, key: str) -> bool:
        """Remove one attribute; False if there was none of that name."""
        if key not in self._attributes:
            return False
        del self._attributes[key]
        return True

    def temporal_layers(self) -> list[TemporalLayer]:
        """The versions of this memory, oldest first; none if it did not come from a database."""
        return [] if self._layers_loader is None else self._layers_loader(self._key)

    @property
    def access_history(self) -> AccessHistory:
        """When this memory was loaded, until now: the database that it came from is asked. Empty
        if it came from none, or from one that was opened with track_access=False."""
        owner = getattr(self._layers_loader, "__self__", None)
        if owner is None:
            return AccessHistory()
        history: AccessHistory = owner._access_history(self._key)
        return history

    def __getstate__(self) -> tuple[Any, ...]:
        """For copy and pickle: everything but the ties to the database it came from."""
        return (
            self._key,
            self._creation_us,
            self._attributes,
            self._validity,
            self._embeddings,
            self._seq,
            self.score,
            dict(self._vectors),
        )

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        (
            self._key,
            self._creation_us,
            attributes,
            self._validity,
            self._embeddings,
            self._seq,
            self.score,
            self._vectors,
        ) = state
        self._attributes = dict(attributes)  # a shallow copy must not share it
        self._stored_vector = NO_VECTOR
        self._layers_loader = None
        self._carried = _NONE_CARRIED
        if self._embeddings is not None:
            self._embeddings.flags.writeable = False
        for vector in self._vectors.values():
            vector.flags.writeable = False

    def __repr__(self) -> str:
        parts = [repr(self.id)]
        if self._embeddings is not None:
            parts.append(f"{self._embeddings.size}-d")
        for name, vector in self._vectors.items():
            parts.append(f"{name!r}: {'x'.join(map(str, vector.shape))}-d")
        if self._attributes:
            shown = repr(self._attributes)
            parts.append(shown if len(shown) <= 200 else f"{shown[:196]} ...}}")
        if self.score is not None:
            parts.append(f"score={self.score:.4f}")
        return f"MemoryNode({', '.join(parts)})"


def _checked_vectors(vectors: object) -> Mapping[str, Vector]:
    if not isinstance(vectors, Mapping):
        raise InvalidInputError(
            "vectors",
            f"expected a mapping of names to vectors, got {type(vectors).__name__}",
        )
    named = [(check_space(name, "vectors"), values) for name, values in vectors.items()]
    return {name: check_vectors(values, f"vectors[{name!r}]") for name, values in named}


def _optional_moment(moment: object, argument: str) -> int | None:
    return None if moment is None else check_moment(moment, argument)
