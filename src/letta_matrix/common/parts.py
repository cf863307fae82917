"""Classes that are given what they work with."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(eq_default=False)
def part(kind: type[T]) -> type[T]:
    """A class whose fields are what it is made of, in their order. Unlike a plain dataclass it is
    equal to itself alone, and shows nothing of what it holds: there are secrets among that."""
    return dataclass(eq=False, repr=False)(kind)
