"""
Frozen records without the cost of `dataclasses` or `typing`.

The hot lane makes a few records per call and is over in some ten milliseconds: importing `dataclasses` (6 ms)
or `typing` (3 ms) for them would be a fifth of its budget, and a named tuple compiles a class by `exec`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> object:
        """Stand in for `typing.dataclass_transform`, which only type checkers read."""
        return lambda cls: cls


__all__ = ["Record"]

_set = object.__setattr__


@dataclass_transform(frozen_default=True)
class Record:
    """
    A frozen value with the annotated fields of its class, compared by them.

    A subclass lists its fields as annotations, with defaults where it likes; there is nothing else to it.
    """

    _fields: tuple[str, ...] = ()
    _names: frozenset[str] = frozenset()

    def __init_subclass__(cls) -> None:
        own = cls.__dict__.get("__annotations__", {})  # noqa: RUF063 - `inspect` would cost more than all this
        cls._fields = (*cls._fields, *(name for name in own if name[0] != "_"))
        cls._names = frozenset(cls._fields)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fields = self._fields
        # The two usual ways, at a third of the price of the full check.
        if not args and kwargs.keys() == self._names:
            _set(self, "__dict__", kwargs)  # of this call alone, however it was made: no need for a copy
            return
        if not kwargs and len(args) == len(fields):
            _set(self, "__dict__", dict(zip(fields, args, strict=True)))
            return
        values = dict(zip(fields, args, strict=False)) if args else {}
        if len(args) > len(fields) or (kwargs and not kwargs.keys().isdisjoint(values)):
            raise TypeError(f"{type(self).__name__} takes {fields}")
        values.update(kwargs)
        if len(values) != len(fields):
            for name in fields:
                if name not in values:
                    try:
                        values[name] = getattr(type(self), name)
                    except AttributeError:
                        raise TypeError(f"{type(self).__name__} needs `{name}`") from None
        if len(values) != len(fields):
            raise TypeError(f"{type(self).__name__} has no {sorted(values.keys() - set(fields))}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: use `replace`")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__[name] for name in self._fields))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self._fields)
        return f"{type(self).__name__}({inner})"

    def replace(self, **changes: Any) -> Self:
        """Return a copy with `changes`."""
        return type(self)(**{**self.__dict__, **changes})

    def asdict(self) -> dict[str, Any]:
        """Return the fields in their order, as a new dict; nested records stay records."""
        values = self.__dict__
        return {name: values[name] for name in self._fields}
