"""Probes as messages, and back; what comes in is checked here and nowhere else."""

from __future__ import annotations

import math
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from edge.campaigns.probe import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_EMBEDDING_BYTES,
    MAX_PROBE_BYTES,
    MAX_PROBES,
    MAX_SET_CONDITIONS,
    AllOf,
    AnyOf,
    Bounds,
    Bundles,
    Condition,
    Likely,
    Negated,
    Probe,
    ProbeSet,
    Vehicles,
    Within,
    size,
)
from edge.drive.codec import timestamp, timestamp_ns
from edge.errors import CampaignError, DriveFormatError
from roadfuse.v1 import campaign_pb2 as wire

_MOST_CHARACTERS: Final = 128
_MOST_ID_CHARACTERS: Final = 64
_MOST_NAMES: Final = 256
_MOST_BYTES: Final = 1 << 62
_MOST_REVISIONS: Final = 1 << 31


def to_message(probe: Probe) -> wire.Probe:
    """A probe as it is signed."""
    return wire.Probe(
        campaign=probe.campaign, name=probe.name, revision=probe.revision, is_stopped=probe.is_stopped,
        bundle_id=probe.bundle_id, embedding=probe.embedding, embedding_scale=1.0 if probe.embedding else 0.0,
        least_cosine=probe.least_cosine, condition=_condition_message(probe.condition),
        budget_bytes=probe.budget_bytes, vehicle_budget_bytes=probe.vehicle_budget_bytes,
        not_before=timestamp(probe.not_before_ns), expires=timestamp(probe.expires_ns), weight=probe.weight,
    )  # fmt: skip


def from_message(message: wire.Probe) -> Probe:
    """The probe in a message.

    Raises:
        CampaignError: a value is out of range; the first one is named.
    """
    where = f"campaign {_text('campaign', message.campaign, _MOST_ID_CHARACTERS)}"
    _expect(bool(message.campaign), "campaign: expected an id", "none")
    _expect(0 < message.revision < _MOST_REVISIONS, f"{where}: expected a revision from 1", message.revision)
    embedding = message.embedding
    _expect(
        len(embedding) <= MAX_EMBEDDING_BYTES,
        f"{where}: expected an embedding of at most {MAX_EMBEDDING_BYTES} bytes",
        len(embedding),
    )
    _expect(
        not embedding or (any(embedding) and bool(message.bundle_id)),
        f"{where}: expected an embedding that is not zero, and its bundle",
        message.bundle_id or "no bundle",
    )
    _expect(0.0 <= message.weight <= 1.0, f"{where}: expected a weight from 0 to 1", message.weight)
    _expect(-1.0 <= message.least_cosine <= 1.0, f"{where}: expected a cosine", message.least_cosine)
    budgets = message.budget_bytes, message.vehicle_budget_bytes
    _expect(max(budgets) < _MOST_BYTES, f"{where}: expected budgets below 2^62 bytes", budgets)
    left = [MAX_CONDITIONS]
    return Probe(
        campaign=message.campaign,
        name=_text(f"{where}: name", message.name),
        revision=message.revision,
        is_stopped=message.is_stopped,
        bundle_id=_text(f"{where}: bundle", message.bundle_id),
        embedding=embedding,
        least_cosine=message.least_cosine,
        condition=_condition(where, message.condition, left, 1) if message.HasField("condition") else AllOf(),
        budget_bytes=message.budget_bytes,
        vehicle_budget_bytes=message.vehicle_budget_bytes,
        not_before_ns=_instant(where, message.not_before),
        expires_ns=_instant(where, message.expires),
        weight=message.weight,
    )


def parse(payload: bytes) -> Probe:
    """The probe in serialised form.

    Raises:
        CampaignError: it is none.
    """
    _expect(len(payload) <= MAX_PROBE_BYTES, f"expected a probe of at most {MAX_PROBE_BYTES} bytes", len(payload))
    try:
        return from_message(wire.Probe.FromString(payload))
    except DecodeError:
        raise CampaignError("expected a probe, got other bytes") from None


def set_bytes(probes: ProbeSet) -> bytes:
    """A set of probes as it lies beside the spool and in drives."""
    message = wire.ProbeSet(vehicle=probes.vehicle, written=timestamp(probes.written_ns))
    message.probes.extend(map(to_message, probes.probes))
    return message.SerializeToString(deterministic=True)


def parse_set(payload: bytes) -> ProbeSet:
    """The set of probes in serialised form.

    Raises:
        CampaignError: it is none, or larger than a loop can look for.
    """
    try:
        message = wire.ProbeSet.FromString(payload)
    except DecodeError:
        raise CampaignError("expected a set of probes, got other bytes") from None
    count = len(message.probes)
    _expect(count <= MAX_PROBES, f"expected at most {MAX_PROBES} probes", count)
    probes = tuple(map(from_message, message.probes))
    conditions = sum(size(probe.condition) for probe in probes)
    _expect(conditions <= MAX_SET_CONDITIONS, f"expected at most {MAX_SET_CONDITIONS} conditions", conditions)
    return ProbeSet(probes, _text("vehicle", message.vehicle), _instant("probes", message.written))


def _condition_message(condition: Condition) -> wire.Condition:
    if isinstance(condition, AllOf):
        return wire.Condition(all_of=wire.Conditions(parts=map(_condition_message, condition.parts)))
    if isinstance(condition, AnyOf):
        return wire.Condition(any_of=wire.Conditions(parts=map(_condition_message, condition.parts)))
    if isinstance(condition, Negated):
        return wire.Condition(negated=_condition_message(condition.part))
    if isinstance(condition, Likely):
        return wire.Condition(
            likely=wire.Likely(name=condition.name, is_sound=condition.is_sound, least=condition.least)
        )
    if isinstance(condition, Bounds):
        return wire.Condition(bounds=wire.Bounds(name=condition.name, low=condition.low, high=condition.high))
    if isinstance(condition, Within):
        place = wire.Within(
            latitude_deg=condition.latitude_deg, longitude_deg=condition.longitude_deg, radius_m=condition.radius_m
        )
        return wire.Condition(within=place)
    if isinstance(condition, Vehicles):
        return wire.Condition(vehicles=wire.Names(values=condition.names))
    return wire.Condition(bundles=wire.Names(values=condition.ids))


def _condition(where: str, message: wire.Condition, left: list[int], depth: int) -> Condition:
    left[0] -= 1
    _expect(
        left[0] >= 0 and depth <= MAX_DEPTH,
        f"{where}: expected at most {MAX_CONDITIONS} conditions, {MAX_DEPTH} deep",
        "more",
    )
    kind = message.WhichOneof("kind")
    if kind in ("all_of", "any_of"):
        conditions = message.all_of if kind == "all_of" else message.any_of
        parts = tuple(_condition(where, part, left, depth + 1) for part in conditions.parts)
        return AllOf(parts) if kind == "all_of" else AnyOf(parts)
    if kind == "negated":
        return Negated(_condition(where, message.negated, left, depth + 1))
    if kind == "likely":
        likely = message.likely
        _expect(0.0 <= likely.least <= 1.0, f"{where}: expected a probability", likely.least)
        return Likely(_text(f"{where}: label", likely.name), likely.least, likely.is_sound)
    if kind == "bounds":
        bounds = message.bounds
        _expect(
            not (math.isnan(bounds.low) or math.isnan(bounds.high)),
            f"{where}: expected bounds",
            (bounds.low, bounds.high),
        )
        return Bounds(_text(f"{where}: number", bounds.name), bounds.low, bounds.high)
    if kind == "within":
        place = message.within
        _expect(
            abs(place.latitude_deg) <= 90 and abs(place.longitude_deg) <= 180 and 0 <= place.radius_m < math.inf,
            f"{where}: expected a place and a radius",
            (place.latitude_deg, place.longitude_deg, place.radius_m),
        )
        return Within(place.latitude_deg, place.longitude_deg, place.radius_m)
    if kind in ("vehicles", "bundles"):
        names = tuple((message.vehicles if kind == "vehicles" else message.bundles).values)
        _expect(len(names) <= _MOST_NAMES, f"{where}: expected at most {_MOST_NAMES} names", len(names))
        names = tuple(_text(f"{where}: {kind}", name) for name in names)
        return Vehicles(names) if kind == "vehicles" else Bundles(names)
    # One that this version does not know may not be passed over: the campaign would bring what nobody asked for.
    raise CampaignError(f"{where}: expected a condition that is known here, got another")


def _instant(where: str, stamp: Timestamp) -> int:
    try:
        return timestamp_ns(stamp)
    except DriveFormatError as error:
        raise CampaignError(f"{where}: {error}") from None


def _text(where: str, value: str, most: int = _MOST_CHARACTERS) -> str:
    _expect(
        len(value) <= most and value.isprintable(), f"{where}: expected up to {most} printable characters", value[:40]
    )
    return value


def _expect(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise CampaignError(f"{expected}, got {got!r}")
