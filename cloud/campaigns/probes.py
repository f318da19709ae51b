"""A query as a probe: what of it a vehicle can know, and the direction that its vectors point to."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from cloud import labels
from cloud.errors import QueryError
from cloud.search.predicate import ANY, And, Between, Has, In, Near, Not, Or, Predicate, labels_of
from cloud.search.query import Like, Query
from edge.campaigns.probe import (
    LEAST_TOLD,
    AllOf,
    AnyOf,
    Bounds,
    Bundles,
    Condition,
    Likely,
    Negated,
    Probe,
    Vehicles,
    Within,
)
from edge.campaigns.wire import from_message, to_message
from edge.errors import CampaignError
from edge.uplink.summary import quantised
from export.model.labels import SCENE_TAGS

# Scores of the vehicle's judge, and hardness, as queries call them.
_NUMBERS: Final = frozenset({"hardness", "novelty", "uncertainty", "disagreement", "misaligned"})
_TAG_OF: Final = {labels.of_tag(tag): tag for tag in SCENE_TAGS}


def condition_from(predicate: Predicate) -> Condition:
    """A query's conditions as a vehicle checks them, frame by frame.

    Raises:
        QueryError: it asks for something that a vehicle can't know; the first one is named.
    """
    match predicate:
        case And(parts):
            return AllOf(tuple(map(condition_from, parts)))
        case Or(parts):
            return AnyOf(tuple(map(condition_from, parts)))
        case Not(part):
            return Negated(condition_from(part))
        case Has(label, least):
            return _likely(label, least)
        case Near(latitude_deg, longitude_deg, radius_m):
            return Within(latitude_deg, longitude_deg, radius_m)
        case Between(field, low, high) if field in _NUMBERS:
            return Bounds(field, low, high)
        case In("vehicle", values):
            return Vehicles(values)
        case In("bundle", values):
            return Bundles(values)
        case Between(field, _, _) | In(field, _):
            raise QueryError(f"expected conditions that a vehicle can check, got {field}: it knows that later or never")
    raise QueryError("expected conditions of one moment, got 'then': a vehicle looks at each frame by itself")


def known_part(predicate: Predicate, words: Predicate = ANY) -> tuple[Condition, list[str]]:
    """What a vehicle can check of a predicate; labels that it does not know are left to the embedding of some words.

    Args:
        words: as they were understood.

    Returns:
        The conditions, and the labels that were left out.

    Raises:
        QueryError: something else can't be checked: no label, or one for which the words do not ask.
    """
    kept, left, said = [], [], labels_of(words)
    for part in _flat(predicate):
        try:
            kept.append(condition_from(part))
        except QueryError:
            asked = part.parts if isinstance(part, Or) else (part,)
            if not all(isinstance(one, Has) and one.label in said for one in asked):
                raise
            left += [one.label for one in asked if isinstance(one, Has)]
    return AllOf(tuple(kept)), left


def direction(likes: tuple[Like, ...]) -> tuple[bytes, str]:
    """Where a query's vectors point to together, as signed bytes, and in which space; b"" and "" of none.

    Raises:
        QueryError: they are of several spaces, or point nowhere.
    """
    if not likes:
        return b"", ""
    spaces = sorted({like.space for like in likes})
    if len(spaces) > 1:
        raise QueryError(f"expected vectors of one space, got {', '.join(space[:12] for space in spaces)}")
    vectors = [np.frombuffer(like.values, "<f4") for like in likes]
    if len({len(vector) for vector in vectors}) > 1:
        raise QueryError("expected vectors of one length, got several")
    total = np.sum([like.weight * vector for like, vector in zip(likes, vectors, strict=True)], axis=0)
    signed, _ = quantised(np.asarray(total, "<f4").tobytes())
    if not signed or float(np.linalg.norm(total)) < 1e-6:
        raise QueryError("expected vectors that point somewhere together, got some that cancel out")
    return signed, spaces[0]


def probe_from(
    query: Query,
    campaign: str,
    name: str,
    *,
    least_cosine: float,
    budget_bytes: int,
    vehicle_budget_bytes: int,
    not_before_ns: int,
    expires_ns: int,
    weight: float = 1.0,
    condition: Condition | None = None,
) -> Probe:
    """The probe of a query.

    Args:
        least_cosine: how near a frame or scene must be to the query's vectors; not used without any.
        budget_bytes, vehicle_budget_bytes: of clips, of all vehicles together and of each.
        not_before_ns, expires_ns: UTC since 1970.
        weight: 0..1.
        condition: instead of all of the query's predicate.

    Raises:
        QueryError: a vehicle can't know what it asks for, it looks for everything, or a bound makes no sense.
    """
    embedding, space = direction(query.likes)
    condition = condition_from(query.predicate) if condition is None else condition
    if not embedding and condition == AllOf():
        raise QueryError("expected something to look for, got nothing: every scene would match")
    if not 0 < vehicle_budget_bytes <= budget_bytes:
        raise QueryError(f"expected budgets above 0, a vehicle's within all's, got {vehicle_budget_bytes}")
    if not not_before_ns < expires_ns:
        raise QueryError("expected a campaign that ends after it begins, got another")
    if not 0.0 < weight <= 1.0 or not math.isfinite(least_cosine):
        raise QueryError(f"expected a weight above 0 and up to 1, and a cosine, got {weight:g} and {least_cosine:g}")
    probe = Probe(
        campaign=campaign,
        name=name,
        bundle_id=space,
        embedding=embedding,
        least_cosine=least_cosine if embedding else 0.0,
        condition=condition,
        budget_bytes=budget_bytes,
        vehicle_budget_bytes=vehicle_budget_bytes,
        not_before_ns=not_before_ns,
        expires_ns=expires_ns,
        weight=weight,
    )
    try:
        return from_message(to_message(probe))  # as vehicles will read it
    except (CampaignError, ValueError) as error:
        raise QueryError(str(error)) from None


def _flat(predicate: Predicate) -> tuple[Predicate, ...]:
    if not isinstance(predicate, And):
        return (predicate,)
    return tuple(inner for part in predicate.parts for inner in _flat(part))


def _likely(label: str, least: float) -> Likely:
    kind, _, name = label.partition(":")
    if least < LEAST_TOLD:
        raise QueryError(f"expected {label} with at least {LEAST_TOLD:g}, got {least:g}: less is not told of a scene")
    if kind == "sound":
        return Likely(name, least, is_sound=True)
    tag = name if kind == "tag" else _TAG_OF.get(label)
    if tag is None:
        raise QueryError(f"expected a label that a vehicle knows, got {label!r}: only the cloud's analysis tells it")
    return Likely(tag, least)
