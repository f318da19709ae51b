"""Queries as they are typed into queries as they are answered: texts become conditions and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from cloud.embed.item import Item, Vector
from cloud.errors import CloudError, QueryError
from cloud.search import rank
from cloud.search.predicate import ANY, MAX_DEPTH, MAX_NODES, SURE, And, Has, Not, Or, Predicate, Then, depth, nodes
from cloud.search.query import Like, Query
from cloud.search.understand import understand

UNEMBEDDED: Final = "the text could not be embedded: its conditions alone rank"


class Embeds(Protocol):
    """What turns content into vectors (cloud.embed.gateway.Gateway)."""

    @property
    def is_text_here(self) -> bool:
        """Whether `texts` may be called."""
        ...

    def texts(self, contents: Sequence[bytes]) -> list[Vector | CloudError]:
        """A vector or an error for each text; by any thread."""
        ...

    async def embed(self, items: Sequence[Item]) -> list[Vector | CloudError]:
        """A vector or an error for each item."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """A text that is to be embedded for a query.

    Attributes:
        weight: of its vector.
        is_example: it was shown, not asked for: no condition says it.
    """

    text: str
    weight: float
    is_example: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """A query whose words are conditions, and whose vectors are still to come.

    Attributes:
        may_relax: conditions are the text's; those that somebody set hold as they are.
        is_said: they say all that the text does, so that it needs no vector.
    """

    query: Query
    wanted: tuple[Wanted, ...]
    may_relax: bool
    is_said: bool


@dataclass(frozen=True, slots=True)
class Read:
    """A query that can be looked for."""

    query: Query
    may_relax: bool
    note: str = ""


class Reader:
    """Reads queries.

    Args:
        gateway: for texts, pictures, sounds and clips; None: only what needs no encoder.
    """

    def __init__(self, gateway: Embeds | None) -> None:
        self._gateway = gateway

    @property
    def embeds_here(self) -> bool:
        """Whether `vectors` embeds texts by the thread that calls, or refuses them all."""
        return self._gateway is None or self._gateway.is_text_here

    async def embed(self, items: Sequence[Item]) -> list[Vector | CloudError]:
        """A vector or an error for each item."""
        if self._gateway is None:
            return [QueryError(f"no encoder of {item.modality} is here") for item in items]
        return await self._gateway.embed(items)

    def vectors(self, texts: Sequence[str]) -> list[Vector | CloudError]:
        """A vector or an error for each text."""
        if self._gateway is None:
            return [QueryError("no encoder of text is here") for _ in texts]
        return self._gateway.texts([text.encode() for text in texts])

    def draft(self, asked: Query | str, now_s: float) -> Draft | CloudError:
        """A query with its text as conditions."""
        query = Query(text=asked) if isinstance(asked, str) else asked
        wanted = [Wanted(text, weight, is_example=True) for text, weight in query.texts]
        may_relax = is_said = False
        try:
            if query.text:
                said = understand(query.text, now_s)
                known = {like.said for like in query.likes if like.modality == "text"}
                known |= {text for text, _ in query.texts}
                wanted += [
                    Wanted(text, weight, is_example=False)
                    for text, weight in ((said.to_embed, 1.0), (said.denied, rank.DENIED))
                    if text and text not in known
                ]
                may_relax = query.predicate == ANY
                if may_relax:
                    query = replace(query, predicate=said.predicate)
                is_said = not said.residual and not said.denied and query.predicate != ANY
            check(query.predicate)
        except CloudError as error:
            return error
        return Draft(query, tuple(wanted), may_relax, is_said)


def finished(draft: Draft, vectors: Sequence[Vector | CloudError], space: str) -> Read | CloudError:
    """A query with its vectors, or why it can't be looked for.

    A text that conditions say completely is answered by them where it can't be embedded.

    Args:
        vectors: of what it wanted.
        space: that is searched; "" before anything is there.
    """
    if not draft.wanted:
        return Read(draft.query, draft.may_relax)
    likes = list(draft.query.likes)
    note = ""
    for wanted, vector in zip(draft.wanted, vectors, strict=True):
        # An example of another space is refused where it is compared.
        if isinstance(vector, Vector) and (wanted.is_example or vector.space in (space, "")):
            likes.append(Like(vector.values, vector.space, "text", wanted.weight, wanted.text))
        elif draft.is_said and not wanted.is_example:
            note = UNEMBEDDED
        elif isinstance(vector, CloudError):
            return vector
        elif space:
            return QueryError(f"expected encoders of the space {space[:12]}, which is searched, got others")
    return Read(replace(draft.query, likes=tuple(likes), texts=()), draft.may_relax, note)


def check(predicate: Predicate) -> None:
    """Have conditions in bounds.

    Raises:
        QueryError: they are not.
    """
    if depth(predicate) > MAX_DEPTH or nodes(predicate) > MAX_NODES:
        raise QueryError(f"expected at most {MAX_NODES} conditions, {MAX_DEPTH} deep, got more")


def relaxed(predicate: Predicate, least: float) -> Predicate:
    """The same conditions on labels of a lower probability, where nobody set one."""
    match predicate:
        case Has(label, asked) if asked == SURE:
            return Has(label, least)
        case And(parts):
            return And(tuple(relaxed(part, least) for part in parts))
        case Or(parts):
            return Or(tuple(relaxed(part, least) for part in parts))
        case Then(first, second, within_s):
            return Then(relaxed(first, least), relaxed(second, least), within_s)
        case Not(Has(label, asked)) if asked == SURE:
            return Not(Has(label, 1.0 - least))
        case _:
            return predicate
