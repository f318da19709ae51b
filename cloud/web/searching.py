"""What pages ask of search, and of whom: the Search service (cloud/search/server.py), over gRPC."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from cloud.errors import CloudError, QueryError
from cloud.search.client import Client, SearchAway
from cloud.search.predicate import ANY, Predicate
from cloud.search.query import Answers
from cloud.settings import Settings
from roadfuse.v1 import search_pb2

__all__ = ["Question", "SearchAway", "Searching", "dial"]
_LOG: Final = logging.getLogger(__name__)
# How much a scene that a person dislikes pushes away.
_AGAINST: Final = -0.5


@dataclass(frozen=True, slots=True)
class Question:
    """What a person asks.

    Attributes:
        text: as typed.
        predicate: as edited; None leaves the text to be understood.
        image, sound: of a file to compare with; b"" without one.
        scene_id: find what is like this scene; 0 without one.
        liked, disliked: scenes by which a person refines.
        cursor: of the page before.
    """

    text: str = ""
    predicate: Predicate | None = None
    image: bytes = b""
    sound: bytes = b""
    scene_id: int = 0
    liked: tuple[int, ...] = ()
    disliked: tuple[int, ...] = ()
    cursor: str = ""
    limit: int = 24

    @property
    def examples(self) -> list[search_pb2.SearchExample]:
        """What answers are to be like, or unlike."""
        made = []
        if self.predicate == ANY and self.text:
            # All conditions were taken away: the words still rank, and are not understood as conditions again.
            made.append(search_pb2.SearchExample(text=self.text))
        if self.image:
            made.append(search_pb2.SearchExample(image=self.image))
        if self.sound:
            made.append(search_pb2.SearchExample(sound=self.sound))
        weights = {self.scene_id: 1.0} if self.scene_id else {}
        weights |= dict.fromkeys(self.liked, 1.0) | dict.fromkeys(self.disliked, _AGAINST)
        for scene_id, weight in weights.items():
            moment = search_pb2.SearchMoment(scene_id=scene_id)
            made.append(search_pb2.SearchExample(moment=moment, weight=weight))
        return made


class Searching(Protocol):
    """Search, wherever it runs."""

    def ask(self, question: Question) -> Answers:
        """A page of answers.

        Raises:
            QueryError: it can't be understood.
            SearchAway: try again.
        """
        ...


class _Dialled:
    """The Search service of this cloud."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def ask(self, question: Question) -> Answers:
        try:
            return self._client.search(
                "" if question.predicate == ANY else question.text,
                question.predicate,
                question.examples,
                limit=question.limit,
                cursor=question.cursor,
                explain=True,
            )
        except QueryError:
            raise
        except SearchAway as error:
            _LOG.warning("search_away error=%s", error)  # an address says nothing to who looks at a page
            raise SearchAway("Search does not answer. Try again in a moment.") from None
        except CloudError as error:  # our own key is none there: it is of another cloud
            raise SearchAway(str(error)) from None


class _Away:
    """No Search service can be called."""

    def ask(self, question: Question) -> Answers:
        raise SearchAway("search can't be asked: this server has no certificate to know it by")


@contextmanager
def dial(settings: Settings) -> Iterator[Searching]:
    """The Search service of the same cloud; without its certificates, one that is away."""
    try:
        client = Client.inner(settings)
    except CloudError as error:
        _LOG.warning("no_search reason=%r", str(error))
        yield _Away()
        return
    try:
        yield _Dialled(client)
    finally:
        client.close()
