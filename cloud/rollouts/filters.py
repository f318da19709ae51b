"""Which vehicles are meant: a small expression over what is known of a vehicle, evaluated anew at each decision.

    hardware = "x86" and not label.site in ("yard", "lab") and software >= "0.3"
    active = "5f1c..." or vehicle ~ "car-*" or state = "parked"

Fields: vehicle, hardware, software, state, active (a bundle's id), counter, and label.NAME for labels that people gave
("" where there is none). Operators: = != < <= > >= (versions by their numbers), ~ (a pattern with * and ?), in (...).
`and` binds closer than `or`; an empty expression means every vehicle.
"""

from __future__ import annotations

import fnmatch
import functools
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloud.errors import RolloutError

Facts = Mapping[str, str]
Predicate = Callable[[Facts], bool]

FIELDS: Final = ("vehicle", "hardware", "software", "state", "active", "counter")
LABEL: Final = "label."
MAX_CHARACTERS: Final = 2_000
_MAX_DEPTH: Final = 16
_TOKEN: Final = re.compile(r'\s*(?:("[^"\n]*")|(<=|>=|!=|[=<>~(),])|([A-Za-z_][\w.\-]*)|(\d+(?:\.\d+)*))')
_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@functools.lru_cache(maxsize=256)
def compiled(expression: str) -> Predicate:
    """The expression as a function of a vehicle's facts.

    Raises:
        RolloutError: it can't be understood.
    """
    if len(expression) > MAX_CHARACTERS:
        raise RolloutError(f"filter: expected at most {MAX_CHARACTERS} characters, got {len(expression)}")
    if not expression.strip():
        return lambda facts: True
    parser = _Parser(expression, _tokens(expression))
    found = parser.either(0)
    parser.expect_end()
    return found


def _tokens(expression: str) -> list[str]:
    tokens: list[str] = []
    place = 0
    text = expression.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise RolloutError(f'filter: expected a field, operator or "value", got {text[place : place + 20]!r}')
        tokens.append(match.group().strip())
        place = match.end()
    return tokens


@dataclass(slots=True)
class _Parser:
    """Recursive descent, a method a rule of the grammar."""

    expression: str
    tokens: list[str]
    place: int = 0

    def either(self, depth: int) -> Predicate:
        found = [self.both(depth)]
        while self.take("or"):
            found.append(self.both(depth))
        return found[0] if len(found) == 1 else lambda facts: any(one(facts) for one in found)

    def both(self, depth: int) -> Predicate:
        found = [self.single(depth)]
        while self.take("and"):
            found.append(self.single(depth))
        return found[0] if len(found) == 1 else lambda facts: all(one(facts) for one in found)

    def single(self, depth: int) -> Predicate:
        if depth > _MAX_DEPTH:
            raise self.wrong(f"at most {_MAX_DEPTH} brackets within each other", "more")
        if self.take("not"):
            denied = self.single(depth + 1)
            return lambda facts: not denied(facts)
        if self.take("("):
            inner = self.either(depth + 1)
            self.need(")")
            return inner
        return self.comparison()

    def comparison(self) -> Predicate:
        field = self.next("a field")
        if field not in FIELDS and not (field.startswith(LABEL) and len(field) > len(LABEL)):
            raise self.wrong(f"a field of {', '.join(FIELDS)} or {LABEL}NAME", field)
        sign = self.next("an operator")
        if sign == "in":
            self.need("(")
            values = {self.value()}
            while self.take(","):
                values.add(self.value())
            self.need(")")
            return lambda facts: facts.get(field, "") in values
        value = self.value()
        if sign == "=":
            return lambda facts: facts.get(field, "") == value
        if sign == "!=":
            return lambda facts: facts.get(field, "") != value
        if sign == "~":
            return lambda facts: fnmatch.fnmatchcase(facts.get(field, ""), value)
        if sign not in _ORDER:
            raise self.wrong("one of = != < <= > >= ~ in", sign)
        compare, bound = _ORDER[sign], _numbers(value)
        return lambda facts: compare(_numbers(facts.get(field, "")), bound)

    def value(self) -> str:
        token = self.next("a value")
        if token[0] == '"':
            return token[1:-1]
        if token[0].isdigit():
            return token
        raise self.wrong('a "value"', token)

    def take(self, token: str) -> bool:
        if self.place < len(self.tokens) and self.tokens[self.place] == token:
            self.place += 1
            return True
        return False

    def need(self, token: str) -> None:
        if not self.take(token):
            raise self.wrong(repr(token), self.tokens[self.place] if self.place < len(self.tokens) else "the end")

    def next(self, what: str) -> str:
        if self.place >= len(self.tokens):
            raise self.wrong(what)
        self.place += 1
        return self.tokens[self.place - 1]

    def expect_end(self) -> None:
        if self.place < len(self.tokens):
            raise self.wrong("`and`, `or` or the end", self.tokens[self.place])

    def wrong(self, expected: str, got: str = "the end") -> RolloutError:
        return RolloutError(f"filter {self.expression[:60]!r}: expected {expected}, got {got}")


def _numbers(version: str) -> tuple[int, ...]:
    """What a version is ordered by: its numbers."""
    return tuple(int(number) for number in re.findall(r"\d{1,18}", version))
