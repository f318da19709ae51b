"""Queries as they are typed into queries as they are answered: texts become conditions and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from cloud.embed.item import Item, Vector
from cloud.errors import CloudError, QueryError
from cloud.search import rank
from cloud.search.predicate import ANY, MAX_DEPTH, MAX_NODES, And, Has, Not, Or, Predicate, Then, depth, nodes
from cloud.search.query import Like, Query
from cloud.search.understand import understand

UNEMBEDDED: Final = "the text could not be embedded: its conditions alone rank"


class Embeds(Protocol):
    """What turns content into vectors (cloud.embed.gateway.Gateway)."""

    async def embed(self, items: Sequence[Item]) -> list[Vector | CloudError]:
        """A vector or an error for each item."""
        ...


@dataclass(frozen=True, slots=True)
class Read:
    """A query with its text read.

    Attributes:
        may_relax: conditions are the text's; those that somebody set hold as they are.
        is_said: they say all that the text does, so that it needs no vector.
    """

    query: Query
    may_relax: bool
    is_said: bool
    note: str = ""


class Reader:
    """Reads queries.

    Args:
        gateway: for texts, pictures, sounds and clips; None: only what needs no encoder.
    """

    def __init__(self, gateway: Embeds | None) -> None:
        self._gateway = gateway

    async def embed(self, items: Sequence[Item]) -> list[Vector | CloudError]:
        """A vector or an error for each item."""
        if self._gateway is None:
            return [QueryError(f"no encoder of {item.modality} is here") for item in items]
        return await self._gateway.embed(items)

    async def read(self, queries: Sequence[Query | str], now_s: float, space: str) -> list[Read | CloudError]:
        """Texts become conditions and vectors; all of them are embedded together.

        A text that conditions say completely is answered by them where it can't be embedded.
        """
        read: list[Read | CloudError] = []
        wanted: list[tuple[int, str, float]] = []  # of which query, what, with which weight
        for asked in queries:
            query = Query(text=asked) if isinstance(asked, str) else asked
            try:
                is_set = query.predicate != ANY
                if query.text:
                    said = understand(query.text, now_s)
                    known = {like.said for like in query.likes if like.modality == "text"}
                    texts = {said.to_embed: 1.0, said.denied: rank.DENIED}
                    if not is_set:
                        query = replace(query, predicate=said.predicate)
                    check(query.predicate)
                    is_said = not said.residual and not said.denied and query.predicate != ANY
                    read.append(Read(query, not is_set, is_said))
                    wanted += [(len(read) - 1, text, by) for text, by in texts.items() if text and text not in known]
                else:
                    check(query.predicate)
                    read.append(Read(query, may_relax=False, is_said=False))
            except CloudError as error:
                read.append(error)
        vectors = await self.embed([Item.of_text(text) for _, text, _ in wanted]) if wanted else []
        for (place, text, weight), vector in zip(wanted, vectors, strict=True):
            one = read[place]
            if isinstance(one, CloudError):
                continue
            if isinstance(vector, Vector) and vector.space in (space, ""):
                like = Like(vector.values, vector.space, "text", weight, text)
                read[place] = replace(one, query=replace(one.query, likes=(*one.query.likes, like)))
            elif one.is_said:
                read[place] = replace(one, note=UNEMBEDDED)
            elif isinstance(vector, CloudError):
                read[place] = vector
            elif space:
                read[place] = QueryError(f"expected encoders of the space {space[:12]}, which is searched, got others")
        return read


def check(predicate: Predicate) -> None:
    """Have conditions in bounds.

    Raises:
        QueryError: they are not.
    """
    if depth(predicate) > MAX_DEPTH or nodes(predicate) > MAX_NODES:
        raise QueryError(f"expected at most {MAX_NODES} conditions, {MAX_DEPTH} deep, got more")


def relaxed(predicate: Predicate, least: float) -> Predicate:
    """The same conditions on labels of a lower probability, where they are asked for."""
    match predicate:
        case Has(label, asked):
            return Has(label, min(asked, least))
        case And(parts):
            return And(tuple(relaxed(part, least) for part in parts))
        case Or(parts):
            return Or(tuple(relaxed(part, least) for part in parts))
        case Then(first, second, within_s):
            return Then(relaxed(first, least), relaxed(second, least), within_s)
        case Not(Has(label, asked)):
            return Not(Has(label, max(asked, 1.0 - least)))
        case _:
            return predicate
