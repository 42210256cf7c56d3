"""AttributeFilter: a condition on the attributes of a memory. Immutable; combine with & | ~.

What the comparisons mean:

- A key may be a path into nested dicts, "source.tool". A literal key with the dot in it wins.
- int and float are numbers and compare with each other; bool is not a number. str, bytes and
  datetime compare with their own kind. Values of different kinds are never equal and never in
  order: they do not match, which is not an error.
- A memory without the key matches not_equals and not_exists, and ~ of everything else.
- contains looks for a part of a str or bytes, and for an element of a list.

The same as nested dicts, which is what `from_dict` reads:

    {"category": "work"}                                   bare value: equals
    {"importance": {"$gte": 0.5, "$lt": 1}}                several conditions: all of them
    {"$or": [{"a": 1}, {"b": {"$exists": False}}]}         also $and, and $not with one dict
    $eq $ne $gt $gte $lt $lte $in $nin $contains $exists $not
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from engramdb.errors import InvalidInputError
from engramdb.model.attributes import check_key, check_value

_Test = Callable[[Any, Any], bool]

ABSENT: Final = object()
"""Stands for a value that is not there."""

_KINDS: Final[dict[type, str]] = {
    type(None): "null",
    bool: "bool",
    int: "number",
    float: "number",
    str: "str",
    bytes: "bytes",
    datetime.datetime: "datetime",
    list: "list",
    dict: "dict",
}
_ORDERED: Final = ("number", "str", "bytes", "datetime")


class AttributeFilter:
    """One condition (`operator`, `key`, `value`), or several `parts` under and, or, not.

    Made by the static methods below, named as the operators are. `value` is what was given, in
    base types: a pair for between, a tuple for is_in, None for exists and not_exists.
    """

    __slots__ = ("_depth", "_members", "key", "operator", "parts", "value")

    operator: str
    key: str
    value: Any
    parts: tuple[AttributeFilter, ...]
    _depth: int  # of parts inside parts
    _members: frozenset[tuple[str, Any]]  # of is_in: the values that can be hashed, by kind

    def __init__(self, operator: str, key: str, value: Any, parts: tuple[AttributeFilter, ...]):
        object.__setattr__(self, "operator", operator)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "_depth", 1 + max([part._depth for part in parts], default=0))
        if operator == "is_in":
            members = [(kind_of(member), member) for member in value]
            hashable = frozenset(pair for pair in members if pair[0] not in ("list", "dict"))
            object.__setattr__(self, "_members", hashable)

    # ---- Constructors; all raise InvalidInputError naming "where" and the key -------------------

    @staticmethod
    def equals(key: str, value: Any) -> AttributeFilter:
        """The value is there and equal. None equals only a None that was stored."""
        return _condition("equals", key, value)

    @staticmethod
    def not_equals(key: str, value: Any) -> AttributeFilter:
        """Not equal, of another kind, or not there at all."""
        return _condition("not_equals", key, value)

    @staticmethod
    def greater_than(key: str, value: Any) -> AttributeFilter:
        """The attribute is above the value. What cannot be compared does not match."""
        return _comparison("greater_than", key, value)

    @staticmethod
    def greater_or_equal(key: str, value: Any) -> AttributeFilter:
        """The attribute is the value or above it. What cannot be compared does not match."""
        return _comparison("greater_or_equal", key, value)

    @staticmethod
    def less_than(key: str, value: Any) -> AttributeFilter:
        """The attribute is below the value. What cannot be compared does not match."""
        return _comparison("less_than", key, value)

    @staticmethod
    def less_or_equal(key: str, value: Any) -> AttributeFilter:
        """The attribute is the value or below it. What cannot be compared does not match."""
        return _comparison("less_or_equal", key, value)

    @staticmethod
    def between(key: str, low: Any, high: Any) -> AttributeFilter:
        """From low to high, both included."""
        low = _comparison("between", key, low).value
        high = _comparison("between", key, high).value
        if kind_of(low) != kind_of(high) or low > high:
            raise _malformed(key, f"between needs two values in order, got {low!r} and {high!r}")
        return AttributeFilter("between", key, (low, high), ())

    @staticmethod
    def is_in(key: str, values: Iterable[Any]) -> AttributeFilter:
        """Equal to one of the values."""
        if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
            raise _malformed(key, f"is_in needs a list of values, got {type(values).__name__}")
        checked = check_value(list(values), f"where[{key!r:.80}]")
        return AttributeFilter("is_in", _key(key), tuple(checked), ())

    @staticmethod
    def contains(key: str, value: Any) -> AttributeFilter:
        """A str or bytes with this part, or a list with an element equal to the value."""
        return _condition("contains", key, value)

    @staticmethod
    def starts_with(key: str, prefix: str) -> AttributeFilter:
        """The attribute is a text that starts with this one."""
        return _affix("starts_with", key, prefix)

    @staticmethod
    def ends_with(key: str, suffix: str) -> AttributeFilter:
        """The attribute is a text that ends with this one."""
        return _affix("ends_with", key, suffix)

    @staticmethod
    def exists(key: str) -> AttributeFilter:
        """The key is there, even if its value is None."""
        return AttributeFilter("exists", _key(key), None, ())

    @staticmethod
    def not_exists(key: str) -> AttributeFilter:
        """There is no such attribute."""
        return AttributeFilter("not_exists", _key(key), None, ())

    @staticmethod
    def from_dict(where: Mapping[str, Any]) -> AttributeFilter:
        """The filter that a dict in MongoDB's manner describes; an empty one matches everything."""
        return _from_dict(where, "where", 0)

    # ---- Combining; all raise InvalidInputError naming "where" if it gets too deep --------------

    def __and__(self, other: AttributeFilter) -> AttributeFilter:
        return self._joined("and", other) if isinstance(other, AttributeFilter) else NotImplemented

    def __or__(self, other: AttributeFilter) -> AttributeFilter:
        return self._joined("or", other) if isinstance(other, AttributeFilter) else NotImplemented

    def __invert__(self) -> AttributeFilter:
        if self.operator == "not":
            return self.parts[0]
        return _bounded(AttributeFilter("not", "", None, (self,)))

    def _joined(self, operator: str, other: AttributeFilter) -> AttributeFilter:
        parts: tuple[AttributeFilter, ...] = ()
        for side in (self, other):
            parts += side.parts if side.operator == operator else (side,)
        return _bounded(AttributeFilter(operator, "", None, parts))

    # ---- Deciding -------------------------------------------------------------------------------

    def matches(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a memory with these attributes meets the condition."""
        operator = self.operator
        if operator == "and":
            return all(part.matches(attributes) for part in self.parts)
        if operator == "or":
            return any(part.matches(attributes) for part in self.parts)
        if operator == "not":
            return not self.parts[0].matches(attributes)
        found = attributes.get(self.key, ABSENT)
        if found is ABSENT and "." in self.key:
            found = look_up(attributes, self.key)
        if found is ABSENT:
            return operator in ("not_equals", "not_exists")
        if operator == "is_in":
            kind = kind_of(found)
            if kind in ("list", "dict"):
                return any(_equal(found, value) for value in self.value)
            return (kind, found) in self._members
        return _TESTS[operator](found, self.value)

    # ---- An immutable value ---------------------------------------------------------------------

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a filter cannot be changed; make another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a filter cannot be changed; make another one")

    def __reduce__(self) -> tuple[Any, ...]:
        return AttributeFilter, (self.operator, self.key, self.value, self.parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AttributeFilter):
            return NotImplemented
        return repr(self) == repr(other)  # 1, 1.0 and True are equal, these filters are not

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        if self.operator == "not":
            return f"~{self.parts[0]!r}"
        if self.operator in ("and", "or"):
            if not self.parts:
                return "AttributeFilter.from_dict({})"
            sign = " & " if self.operator == "and" else " | "
            return f"({sign.join(map(repr, self.parts))})"
        if self.operator in ("exists", "not_exists"):
            given = ""
        elif self.operator == "between":
            given = f", {self.value[0]!r}, {self.value[1]!r}"
        elif self.operator == "is_in":
            given = f", {list(self.value)!r}"
        else:
            given = f", {self.value!r}"
        return f"AttributeFilter.{self.operator}({self.key!r}{given})"


def all_of(filters: list[AttributeFilter]) -> AttributeFilter:
    """One filter that matches what all of these match."""
    return filters[0] if len(filters) == 1 else AttributeFilter("and", "", None, tuple(filters))


_DEPTH_MAX: Final = 160  # what from_dict makes of its deepest dicts, and some more


def _bounded(combined: AttributeFilter) -> AttributeFilter:
    if combined._depth > _DEPTH_MAX:
        raise InvalidInputError(
            "where", f"deeper than {_DEPTH_MAX} filters inside each other; flatten it"
        )
    return combined


# ---- Construction --------------------------------------------------------------------------------


def _malformed(key: object, problem: str) -> InvalidInputError:
    return InvalidInputError(f"where[{key!r:.80}]", problem)


def _key(key: object) -> str:
    return check_key(key, "where")


def _condition(operator: str, key: str, value: Any) -> AttributeFilter:
    return AttributeFilter(operator, _key(key), check_value(value, f"where[{key!r:.80}]"), ())


def _comparison(operator: str, key: str, value: Any) -> AttributeFilter:
    condition = _condition(operator, key, value)
    if kind_of(condition.value) not in _ORDERED:
        raise _malformed(
            key,
            f"{operator} needs a number, str, bytes or datetime, got {type(value).__name__}",
        )
    return condition


def _affix(operator: str, key: str, value: object) -> AttributeFilter:
    if not isinstance(value, str):
        raise _malformed(key, f"{operator} needs a str, got {type(value).__name__}")
    return _condition(operator, key, value)


_OPERATORS: Final[dict[str, Callable[[str, Any], AttributeFilter]]] = {
    "$eq": AttributeFilter.equals,
    "$ne": AttributeFilter.not_equals,
    "$gt": AttributeFilter.greater_than,
    "$gte": AttributeFilter.greater_or_equal,
    "$lt": AttributeFilter.less_than,
    "$lte": AttributeFilter.less_or_equal,
    "$in": AttributeFilter.is_in,
    "$nin": lambda key, values: ~AttributeFilter.is_in(key, values),
    "$contains": AttributeFilter.contains,
    "$exists": lambda key, wanted: _existence(key, wanted),
}
_CONDITION_DEPTH_MAX: Final = 64


def _existence(key: str, wanted: object) -> AttributeFilter:
    if not isinstance(wanted, bool):
        raise _malformed(key, f"$exists needs True or False, got {wanted!r:.80}")
    return AttributeFilter.exists(key) if wanted else AttributeFilter.not_exists(key)


def _check_depth(depth: int) -> None:
    if depth > _CONDITION_DEPTH_MAX:
        raise InvalidInputError("where", f"deeper than {_CONDITION_DEPTH_MAX} levels; flatten it")


def _from_dict(where: object, path: str, depth: int) -> AttributeFilter:
    if not isinstance(where, Mapping):
        raise InvalidInputError(path, f"expected a dict, got {type(where).__name__}")
    _check_depth(depth)
    parts = []
    for key, operand in where.items():
        if not isinstance(key, str) or not key.startswith("$"):
            parts.append(_from_item(key, operand, depth))
        elif key == "$not":
            parts.append(~_from_dict(operand, f"{path}['$not']", depth + 1))
        elif key in ("$and", "$or"):
            if not isinstance(operand, (list, tuple)) or not operand:
                raise InvalidInputError(
                    f"{path}[{key!r}]", f"expected a list of dicts, got {operand!r:.80}"
                )
            inner = tuple(
                _from_dict(part, f"{path}[{key!r}][{position}]", depth + 1)
                for position, part in enumerate(operand)
            )
            parts.append(AttributeFilter(key[1:], "", None, inner))
        else:
            raise InvalidInputError(
                f"{path}[{key!r:.80}]",
                "expected an attribute, $and, $or or $not; other operators go inside, as in "
                "{'importance': {'$gt': 0.5}}",
            )
    return parts[0] if len(parts) == 1 else AttributeFilter("and", "", None, tuple(parts))


def _from_item(key: Any, operand: Any, depth: int) -> AttributeFilter:
    """The condition on one attribute: a bare value, or a dict of operators."""
    if isinstance(operand, Mapping) and any(
        isinstance(name, str) and name.startswith("$") for name in operand
    ):
        return _from_operators(key, operand, depth + 1)
    return AttributeFilter.equals(key, operand)


def _from_operators(key: str, operand: object, depth: int) -> AttributeFilter:
    _check_depth(depth)
    if not isinstance(operand, Mapping) or not operand:
        raise _malformed(key, f"expected operators such as {{'$gt': 1}}, got {operand!r:.80}")
    parts = []
    for name, value in operand.items():
        if name == "$not":
            parts.append(~_from_operators(key, value, depth + 1))
            continue
        make = _OPERATORS.get(name) if isinstance(name, str) else None
        if make is None:
            known = " ".join(_OPERATORS)
            raise _malformed(key, f"{name!r:.80} is not an operator; there are {known} $not")
        parts.append(make(key, value))
    return parts[0] if len(parts) == 1 else AttributeFilter("and", "", None, tuple(parts))


# ---- Evaluation ----------------------------------------------------------------------------------


def look_up(attributes: Mapping[str, Any], path: str) -> Any:
    """What a dotted path leads to: at each level, the longest literal key that leads on wins."""
    if path in attributes:
        return attributes[path]
    end = path.rfind(".")
    while end >= 0:
        inner = attributes.get(path[:end])
        if isinstance(inner, Mapping):
            found = look_up(inner, path[end + 1 :])
            if found is not ABSENT:
                return found
        end = path.rfind(".", 0, end)
    return ABSENT


def kind_of(value: object) -> str:
    kind = _KINDS.get(type(value))
    if kind is None:  # of a subclass; a stored value is always of the base type
        kind = next((name for base, name in _KINDS.items() if isinstance(value, base)), "other")
    return kind


def _equal(found: Any, value: Any) -> bool:
    kind = kind_of(found)
    if kind != kind_of(value):
        return False
    if kind == "list":
        return len(found) == len(value) and all(map(_equal, found, value))
    if kind == "dict":
        return found.keys() == value.keys() and all(_equal(found[key], value[key]) for key in value)
    return bool(found == value)


def _contains(found: Any, value: Any) -> bool:
    kind = kind_of(found)
    if kind == "list":
        return any(_equal(element, value) for element in found)
    return kind in ("str", "bytes") and kind == kind_of(value) and value in found


def _ordered(found: Any, value: Any) -> bool:
    return kind_of(found) == kind_of(value)


_TESTS: Final[dict[str, _Test]] = {
    "equals": _equal,
    "not_equals": lambda found, value: not _equal(found, value),
    "greater_than": lambda found, value: _ordered(found, value) and found > value,
    "greater_or_equal": lambda found, value: _ordered(found, value) and found >= value,
    "less_than": lambda found, value: _ordered(found, value) and found < value,
    "less_or_equal": lambda found, value: _ordered(found, value) and found <= value,
    "between": lambda found, ends: _ordered(found, ends[0]) and ends[0] <= found <= ends[1],
    "contains": _contains,
    "starts_with": lambda found, prefix: isinstance(found, str) and found.startswith(prefix),
    "ends_with": lambda found, suffix: isinstance(found, str) and found.endswith(suffix),
    "exists": lambda found, value: True,
    "not_exists": lambda found, value: False,
}
