"""What is asked of search, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from cloud.search.predicate import ANY, Predicate


@dataclass(frozen=True, slots=True)
class Like:
    """Nearness to a vector of the shared space.

    Attributes:
        values: float32 little-endian bytes, unit length.
        space: bundle id; rows of another are never compared with it.
        modality: what it was made of (text, image, audio, video, motion, lidar, scene).
        weight: its part among several; a negative one pushes away.
        said: the text, file or scene that it came from, for people.
    """

    values: bytes
    space: str
    modality: str
    weight: float = 1.0
    said: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for.

    Attributes:
        predicate: must hold.
        likes: rank what is left; of none the probability of the labels asked for ranks, then hardness.
        text: as a person typed it; "" of another query.
        texts: what answers are to be like too, and by which weight; they are embedded when it is answered.
    """

    predicate: Predicate = ANY
    likes: tuple[Like, ...] = ()
    text: str = ""
    texts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """A page that is asked for.

    Attributes:
        query: a text, or a query; a text within it that comes without conditions is understood when it is answered.
        limit: answers on the page.
        after: the cursor of the page before.
        explained: look up how near each modality is.
    """

    query: Query | str
    limit: int = 20
    after: str = ""
    explained: bool = False


class Answer(NamedTuple):
    """A scene that was found; a tuple, for thousands of them are made a second.

    Attributes:
        scene_id: in the catalogue.
        instant_ns: the moment inside the scene, vehicle monotonic clock.
        score: by which answers are ordered; compares within one query alone.
        confidence: calibrated chance that it is what was asked for, 0..1.
        labels: of those asked for, the probability at that moment.
        modalities: cosine of each modality's vector of that moment with the query; empty where only the vehicle told.
    """

    scene_id: int
    vehicle: str
    outbox: bytes
    sequence: int
    instant_ns: int
    score: float
    confidence: float
    labels: dict[str, float]
    modalities: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Answers:
    """A page of answers.

    Attributes:
        query: as it was understood; people edit its predicate.
        path: how it was found: exact, filtered (exact among what the predicate leaves) or approximate.
        matching: how many scenes the predicate leaves, without likely ones that fill a page; None where only the
            nearest were looked at.
        cursor: of the next page; "" when there is none.
    """

    query: Query
    answers: tuple[Answer, ...]
    path: str
    matching: int | None
    cursor: str
    elapsed_ms: float
    notes: tuple[str, ...] = ()
    timings_ms: dict[str, Any] = field(default_factory=dict)
