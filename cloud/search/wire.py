"""Queries and answers as messages, and back: the one place that does."""

from __future__ import annotations

from typing import Any, Final

import grpc
import numpy as np

from cloud.errors import CloudError, QueryError, Refused
from cloud.search.predicate import (
    MAX_DEPTH,
    MAX_NODES,
    And,
    Between,
    Has,
    In,
    Near,
    Not,
    Or,
    Predicate,
    Then,
    from_json,
    to_json,
)
from cloud.search.query import Answer, Answers, Like, Query
from roadfuse.v1 import search_pb2

_MAX_WEIGHT: Final = 100.0


def condition_message(predicate: Predicate) -> search_pb2.SearchCondition:
    """Conditions as a message."""
    made = search_pb2.SearchCondition()
    match predicate:
        case And(parts):
            made.all_of.conditions.extend(map(condition_message, parts))
            made.all_of.SetInParent()
        case Or(parts):
            made.any_of.conditions.extend(map(condition_message, parts))
            made.any_of.SetInParent()
        case Not(part):
            made.none_of.CopyFrom(condition_message(part))
        case Then(first, second, within_s):
            made.sequence.first.CopyFrom(condition_message(first))
            made.sequence.second.CopyFrom(condition_message(second))
            made.sequence.within_s = within_s
        case Has(label, least):
            made.label.label, made.label.least = label, least
        case Between(field, low, high):
            made.range.field = field
            if np.isfinite(low):
                made.range.low = low
            if np.isfinite(high):
                made.range.high = high
        case In(field, values):
            made.texts.field = field
            made.texts.values.extend(values)
        case Near(latitude_deg, longitude_deg, radius_m):
            place = made.place
            place.latitude_deg, place.longitude_deg, place.radius_m = latitude_deg, longitude_deg, radius_m
    return made


def condition_of(message: search_pb2.SearchCondition) -> Predicate:
    """The conditions of a message, as strictly read as their JSON.

    Raises:
        QueryError: what can't be.
    """
    left = MAX_NODES

    def node(message: Any, depth: int) -> dict[str, Any]:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise QueryError(f"expected at most {MAX_NODES} conditions, {MAX_DEPTH} deep, got more")
        kind = message.WhichOneof("condition")
        of: Any = getattr(message, kind) if kind else None
        match kind:
            case "all_of" | "any_of":
                return {kind.partition("_")[0]: [node(part, depth + 1) for part in of.conditions]}
            case "none_of":
                return {"not": node(of, depth + 1)}
            case "sequence":
                return {"then": [node(of.first, depth + 1), node(of.second, depth + 1)], "within_s": of.within_s}
            case "label":
                return {"has": of.label, "least": of.least}
            case "range":
                ends = {name: getattr(of, end) for name, end in (("from", "low"), ("to", "high")) if of.HasField(end)}
                return {"field": of.field, **ends}
            case "texts":
                return {"field": of.field, "in": list(of.values)}
            case "place":
                return {"near": [of.latitude_deg, of.longitude_deg], "radius_m": of.radius_m}
            case _:
                raise QueryError("expected a condition, got an empty one")

    said = node(message, 1)
    return from_json(_named(said))


def _named(said: dict[str, Any]) -> dict[str, Any]:
    """all_of and any_of are `and` and `or` in JSON."""
    names = {"all": "and", "any": "or"}
    return {
        names.get(name, name): [_named(part) for part in value]
        if name in ("all", "any", "then")
        else _named(value)
        if name == "not"
        else value
        for name, value in said.items()
    }


def weight_of(example: search_pb2.SearchExample) -> float:
    """How much an example counts.

    Raises:
        QueryError: no number that it may be.
    """
    weight = example.weight if example.HasField("weight") else 1.0
    if not -_MAX_WEIGHT <= weight <= _MAX_WEIGHT:
        raise QueryError(f"expected a weight from {-_MAX_WEIGHT:g} to {_MAX_WEIGHT:g}, got {weight}")
    return float(weight)


def like_of(vector: search_pb2.SearchVector, weight: float) -> Like:
    """A vector that a caller brings."""
    values = np.array(vector.values, "<f4")
    return Like(values.tobytes(), vector.space, vector.modality[:32], weight)


def response(answers: Answers) -> search_pb2.SearchResponse:
    """A page as a message."""
    made = search_pb2.SearchResponse(
        condition=condition_message(answers.query.predicate),
        path=answers.path,
        matching=answers.matching,
        cursor=answers.cursor,
        elapsed_ms=answers.elapsed_ms,
        notes=answers.notes,
    )
    for answer in answers.answers:
        said = made.answers.add(
            scene_id=answer.scene_id,
            vehicle=answer.vehicle,
            outbox=answer.outbox,
            sequence=answer.sequence,
            instant_ns=answer.instant_ns,
            score=answer.score,
            confidence=answer.confidence,
        )
        for label, probability in answer.labels.items():
            said.labels[label] = probability
        for modality, cosine in answer.modalities.items():
            said.modalities[modality] = cosine
    return made


def refusal(error: Exception) -> tuple[grpc.StatusCode, str]:
    """How a query's error is told."""
    if isinstance(error, Refused):
        return error.status, str(error)
    if isinstance(error, QueryError):
        return grpc.StatusCode.INVALID_ARGUMENT, str(error)
    if isinstance(error, CloudError):
        return grpc.StatusCode.UNAVAILABLE, str(error)
    return grpc.StatusCode.INTERNAL, "the server failed; its log says why"


def outcome(answers: Answers | Exception) -> search_pb2.SearchOutcome:
    """A page, or why there is none."""
    if isinstance(answers, Answers):
        return search_pb2.SearchOutcome(response=response(answers))
    status, message = refusal(answers)
    return search_pb2.SearchOutcome(failure=failure(status, message))


def failure(status: grpc.StatusCode, message: str) -> search_pb2.SearchFailure:
    """Why there is no page, in one line."""
    return search_pb2.SearchFailure(code=status.value[0], message=" ".join(message.split()))


def answers_of(message: search_pb2.SearchResponse, text: str = "") -> Answers:
    """The page of a message; its query is as the server understood it."""
    return Answers(
        Query(condition_of(message.condition), (), text),
        tuple(
            Answer(
                answer.scene_id,
                answer.vehicle,
                answer.outbox,
                answer.sequence,
                answer.instant_ns,
                answer.score,
                answer.confidence,
                dict(answer.labels),
                dict(answer.modalities),
            )
            for answer in message.answers
        ),
        message.path,
        message.matching if message.HasField("matching") else None,
        message.cursor,
        message.elapsed_ms,
        tuple(message.notes),
    )


def page_json(page: Answers) -> dict[str, Any]:
    """A page as a script reads it."""
    return {
        "answers": [
            {
                "scene": answer.scene_id,
                "vehicle": answer.vehicle,
                "outbox": answer.outbox.hex(),
                "sequence": answer.sequence,
                "instant_ns": answer.instant_ns,
                "score": answer.score,
                "confidence": answer.confidence,
                "labels": answer.labels,
                "modalities": dict(answer.modalities),
            }
            for answer in page.answers
        ],
        "predicate": to_json(page.query.predicate),
        "path": page.path,
        "matching": page.matching,
        "cursor": page.cursor,
        "elapsed_ms": page.elapsed_ms,
        "notes": list(page.notes),
    }
