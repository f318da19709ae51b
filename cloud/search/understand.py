"""A text as a tree of conditions, and what is left of it for embeddings. English, German, Spanish and French.

    night, siren and no pedestrian, last 24 h
    rain or snow, truck then horn within 5 s, vehicle:car-1, hardness>0.7, near:48.1,11.5,500

What is not understood is never dropped in silence: it stays as the residual, which an embedding ranks by. Commas and
full stops join loosely, `and` closer, `or` closest between values of one kind ("night, rain or snow"); a `no` holds for
what follows it, and for more of the same kind joined to it ("no siren or horn").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from cloud.errors import QueryError
from cloud.search import words
from cloud.search.filters import taken
from cloud.search.predicate import MAX_NODES, And, Has, Not, Or, Predicate, Then, nodes

MAX_CHARACTERS: Final = 1_000
WITHIN_S: Final = 3.0
_AND: Final = frozenset(["and", "und", "y", "e", "et", "sowie", "ademas"])
_BUT: Final = frozenset(["but", "aber", "pero", "mais", "sondern"])
_OR: Final = frozenset(["or", "oder", "o", "u", "ou", "either", "entweder"])
_NOT: Final = frozenset((
    "no", "not", "without", "none", "never", "nor", "neither", "kein", "keine", "keinen", "keinem", "keiner",
    "keines", "ohne", "nicht", "nie", "weder", "sin", "ningun", "ninguna", "nunca", "ni", "sans", "aucun",
    "aucune", "non", "jamais",
))  # fmt: skip
# Phrases that deny; their words alone do not, or mean something else.
_NOT_PHRASES: Final = tuple(
    tuple(phrase.split())
    for phrase in ("no hay", "pas de", "pas d", "pas", "il n y a pas de", "il n y a pas", "it is not", "is not",
                   "n est pas", "no es", "there is no", "there are no", "there is not", "es gibt kein", "es gibt keine",
                   "isn t", "doesn t", "does not", "ne", "n")
)  # fmt: skip
_THEN: Final = tuple(
    tuple(phrase.split())
    for phrase in ("and then", "then", "followed by", "afterwards", "after that", "und dann", "dann", "danach",
                   "gefolgt von", "anschliessend", "y luego", "luego", "despues", "y despues", "seguido de",
                   "seguido por", "et puis", "puis", "ensuite", "suivi de", "suivi par")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Understood:
    """What a text asks for.

    Attributes:
        predicate: what must hold.
        residual: words that no condition says.
        is_composed: it denies, chooses or orders, which embeddings do not understand.
        denied: of the words that no condition says, those that are denied: answers are to be unlike them.
        to_embed: what is to be alike; "" for nothing.
    """

    predicate: Predicate
    residual: str
    is_composed: bool
    denied: str = ""
    to_embed: str = ""


def understand(text: str, now_s: float) -> Understood:
    """Read a text.

    Args:
        now_s: seconds since 1970, for "last 24 h".

    Raises:
        QueryError: too long, or a filter that can't be.
    """
    if len(text) > MAX_CHARACTERS:
        raise QueryError(f"expected a text of at most {MAX_CHARACTERS} characters, got {len(text)}")
    if not text.isprintable() and any(not sign.isprintable() and not sign.isspace() for sign in text):
        raise QueryError("expected a text without control characters, got one with some")
    filters, plain, typed = taken(text, now_s)
    said = _read(plain)
    parts = (*filters, *_flat(said.predicate))
    predicate = parts[0] if len(parts) == 1 else And(parts)
    if nodes(predicate) > MAX_NODES:
        raise QueryError(f"expected a text of at most {MAX_NODES} conditions, got more")
    is_whole = not said.is_composed and (said.residual or said.predicate != And(()))
    to_embed = typed if is_whole else said.residual
    return replace(said, predicate=predicate, to_embed=to_embed)


@lru_cache(maxsize=4_096)
def _read(text: str) -> Understood:
    steps, waits = _steps(text)
    read = [_Clauses(step) for step in steps]
    residual = " ".join(word for step in read for word in step.residual)
    denied = " ".join(word for step in read for word in step.denied)
    is_composed = len(steps) > 1 or any(step.is_composed for step in read)
    trees = [step.tree() for step in read]
    # A step that no label says can't be waited for.
    known = [(tree, wait) for tree, wait in zip(trees, [*waits, WITHIN_S], strict=True) if tree != And(())]
    if not known:
        return Understood(And(()), residual, is_composed and bool(residual or denied), denied)
    tree = known[-1][0]
    for earlier, wait in reversed(known[:-1]):
        tree = Then(earlier, tree, wait)
    return Understood(tree, residual, is_composed, denied)


def _flat(predicate: Predicate) -> tuple[Predicate, ...]:
    return predicate.parts if isinstance(predicate, And) else (predicate,)


def _steps(text: str) -> tuple[list[list[str]], list[float]]:
    """Words of what comes one after the other, "," standing for any stop; and how long each waits for the next."""
    steps: list[list[str]] = [[]]
    waits: list[float] = []
    tokens = _tokens(text)
    at = 0
    while at < len(tokens):
        length = _phrase(_LONGEST_THEN, tokens, at)
        if tokens[at].startswith("within:"):
            wait = float(tokens[at].removeprefix("within:"))
            # "A then within 5 s B" and "A then B within 5 s".
            if waits:
                waits[-1] = wait
            at += 1
        elif length and steps[-1]:
            steps.append([])
            waits.append(WITHIN_S)
            at += length
        elif length:
            at += length
        else:
            steps[-1].append(tokens[at])
            at += 1
    return steps, waits


def _tokens(text: str) -> list[str]:
    return ["," if piece in ",;.!?:" else piece for piece in words.pieces(text)]


def _by_first_word(phrases: Iterable[tuple[str, ...]]) -> dict[str, list[tuple[str, ...]]]:
    """The longest ones first."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for phrase in sorted(phrases, key=len, reverse=True):
        found.setdefault(phrase[0], []).append(phrase)
    return found


def _phrase(phrases: dict[str, list[tuple[str, ...]]], tokens: list[str], at: int) -> int:
    """How many words from here the longest of some phrases takes; 0 where none begins."""
    for phrase in phrases.get(tokens[at], ()):
        if tuple(tokens[at : at + len(phrase)]) == phrase:
            return len(phrase)
    return 0


_LONGEST_THEN: Final = _by_first_word(_THEN)
_LONGEST_NOT: Final = _by_first_word(_NOT_PHRASES)


@dataclass(slots=True)
class _Term:
    """Something said, and the word that joins it to what was said before: and, or, a comma, or nothing."""

    predicate: Predicate
    joint: str
    kind: str
    is_denied: bool


class _Clauses:
    """One step's words as terms."""

    def __init__(self, tokens: list[str]) -> None:
        self.residual: list[str] = []
        self.denied: list[str] = []
        self._terms: list[_Term] = []
        joint, denies, denied_kind = "", False, ""
        at = 0
        while at < len(tokens):
            token = tokens[at]
            length, meaning = _longest(tokens, at)
            not_length = _denial(tokens, at)
            # "sans véhicule" denies all vehicles, "sans véhicule de secours" some: what says more words wins.
            if not_length and at + not_length < len(tokens):
                following, _ = _longest(tokens, at + not_length)
                length = 0 if following and not_length + following > length else length
            if length and length >= not_length and meaning is not None:
                at += length
                if meaning == And(()):
                    continue
                kind = _kind(meaning)
                inherits = not denies and (
                    (joint == "or" and bool(denied_kind)) or (joint == "and" and denied_kind == kind)
                )
                # "no siren or horn": neither of them.
                self._terms.append(_Term(meaning, "and" if inherits else joint, kind, denies or inherits))
                denied_kind = kind if denies or inherits else ""
                joint, denies = "", False
            elif not_length:
                denies, at = True, at + not_length
            elif token == ",":
                joint, denies, at = joint if joint == "or" else ",", False, at + 1
            elif token in _OR:
                joint, at = "or", at + 1
            elif token in _AND or token in _BUT:
                joint, at = "and" if joint != "or" else joint, at + 1
            else:
                if token not in words.ARTICLES:
                    (self.denied if denies else self.residual).append(token)
                at += 1

    @property
    def is_composed(self) -> bool:
        """Whether something is denied or chosen."""
        return bool(self.denied) or any(term.is_denied or term.joint == "or" for term in self._terms)

    def tree(self) -> Predicate:
        """The terms as conditions."""
        groups: list[tuple[list[_Term], str]] = []  # terms, all of which must hold; the joint before them
        for term in self._terms:
            if groups and not term.is_denied and term.joint == "or" and self._is_choice(groups[-1][0][-1], term):
                self._choose(groups, term)
            elif groups and term.joint == "or":
                groups.append(([term], "or"))
            elif groups and term.joint != ",":
                groups[-1][0].append(term)
            else:
                groups.append(([term], ","))
        clauses: list[Predicate] = []
        for terms, joint in groups:
            clause = _all(term for term in map(_said, terms))
            if joint == "or" and clauses:
                before = clauses.pop()
                clauses.append(Or((*before.parts, clause)) if isinstance(before, Or) else Or((before, clause)))
            else:
                clauses.append(clause)
        return _all(clauses)

    @staticmethod
    def _is_choice(before: _Term, term: _Term) -> bool:
        return before.kind == term.kind and not before.is_denied

    @staticmethod
    def _choose(groups: list[tuple[list[_Term], str]], term: _Term) -> None:
        """One more value of the kind that was said last; commas before it enumerate: "rain, snow or fog"."""
        terms, _ = groups[-1]
        options = [terms[-1].predicate, term.predicate]
        while len(terms) == 1 and len(groups) > 1 and terms[0].joint == "," and _is_alone(groups[-2][0], term.kind):
            groups.pop()
            terms, _ = groups[-1]
            options.insert(0, terms[-1].predicate)
        flat = [part for option in options for part in (option.parts if isinstance(option, Or) else (option,))]
        terms[-1] = _Term(Or(tuple(dict.fromkeys(flat))), terms[-1].joint, term.kind, is_denied=False)


def _is_alone(terms: list[_Term], kind: str) -> bool:
    return terms[-1].kind == kind and not terms[-1].is_denied


def _said(term: _Term) -> Predicate:
    return Not(term.predicate) if term.is_denied else term.predicate


def _all(parts: object) -> Predicate:
    flat = [inner for part in parts for inner in _flat(part)]  # type: ignore[attr-defined]
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else And(unique)


def _kind(meaning: Predicate) -> str:
    match meaning:
        case Has(label):
            return label.partition(":")[0]
        case Or((Has(label), *_)):
            return label.partition(":")[0]
        case _:
            return ""


def _longest(tokens: list[str], at: int) -> tuple[int, Predicate | None]:
    """How many words from here a known phrase takes, and what it means; articles may be passed over."""
    if tokens[at] not in words.trie().next and tokens[at] not in words.ARTICLES:
        return 0, None
    best: tuple[int, Predicate | None] = (0, None)
    nodes = [(words.trie(), at)]
    seen = set()  # a run of articles comes to the same place in many ways
    while nodes:
        node, place = nodes.pop()
        if (id(node), place) in seen:
            continue
        seen.add((id(node), place))
        if node.meaning is not None and place - at > best[0]:
            best = (place - at, node.meaning)
        if place < len(tokens):
            token = tokens[place]
            if token in node.next:
                nodes.append((node.next[token], place + 1))
            if token in words.ARTICLES and place + 1 < len(tokens) and len(nodes) < 64:
                nodes.append((node, place + 1))
    return best


def _denial(tokens: list[str], at: int) -> int:
    return _phrase(_LONGEST_NOT, tokens, at) or int(tokens[at] in _NOT)
