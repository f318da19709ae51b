"""What pages ask of search; the Search service answers (cloud/search/server.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from cloud.errors import CloudError
from cloud.search.predicate import Predicate
from cloud.search.query import Answers
from cloud.settings import Settings


class SearchAway(CloudError):
    """The Search service can't be reached, or takes too long."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a person asks.

    Attributes:
        text: as typed.
        predicate: as edited; None leaves the text to be understood.
        image, audio: of a file to compare with; b"" without one.
        scene_id: find what is like this scene; 0 without one.
        liked, disliked: scenes by which a person refines.
        cursor: of the page before.
    """

    text: str = ""
    predicate: Predicate | None = None
    image: bytes = b""
    audio: bytes = b""
    said: str = ""
    scene_id: int = 0
    liked: tuple[int, ...] = ()
    disliked: tuple[int, ...] = ()
    cursor: str = ""
    limit: int = 24


class Searching(Protocol):
    """Search, wherever it runs."""

    def ask(self, question: Question) -> Answers:
        """A page of answers.

        Raises:
            QueryError: it can't be understood.
            SearchAway: try again.
        """
        ...


class Away:
    """Search that is not there."""

    def ask(self, question: Question) -> Answers:
        """Always refused."""
        raise SearchAway("the Search service can't be reached")


@contextmanager
def dial(settings: Settings) -> Iterator[Searching]:
    """Search as the settings say where."""
    yield Away()
