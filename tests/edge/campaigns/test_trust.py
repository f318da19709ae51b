"""Whose probes a vehicle takes: the cloud's campaign key's, and nobody else's."""

from __future__ import annotations

import time

import pytest

from edge.campaigns.probe import MAX_PROBE_BYTES, AllOf, Bounds, Likely, Negated, Probe
from edge.campaigns.trust import CAMPAIGN_SIGNING, Trust
from edge.campaigns.wire import from_message, parse, parse_set, to_message
from edge.errors import CampaignError
from roadfuse.v1 import campaign_pb2 as wire
from roadfuse.v1.campaign_pb2 import SignedProbe

from .signing import CLIENT, DAY_NS, Authority, authority, probe, trust


def refused(signed: SignedProbe, words: str, by: Trust | None = None, now_ns: int | None = None) -> None:
    with pytest.raises(CampaignError, match=words) as caught:
        (by or trust()).opened(signed, time.time_ns() if now_ns is None else now_ns)
    assert "\n" not in str(caught.value)


def test_what_the_campaign_key_signed_is_taken_as_it_was_signed() -> None:
    asked = probe("a", Likely("night", 0.75), bundle_id="b" * 64, embedding=bytes(range(192)), least_cosine=0.5)
    assert trust().opened(authority().sign(asked), time.time_ns()) == asked


@pytest.mark.parametrize("part", ["probe", "signature", "certificate"])
def test_every_altered_byte_is_found_out(part: str) -> None:
    signed = authority().sign(probe())
    content = getattr(signed, part)
    for place in range(0, len(content), max(len(content) // 12, 1)):
        altered = SignedProbe.FromString(signed.SerializeToString())
        setattr(altered, part, content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(CampaignError):
            trust().opened(altered, time.time_ns())


def test_another_cas_campaign_key_is_refused() -> None:
    refused(Authority().sign(probe()), "device CA")


def test_a_certificate_of_a_vehicle_signs_no_campaign() -> None:
    ours = authority()
    refused(ours.sign(probe(), ours.issue(CLIENT, 100)), "for campaigns alone")
    refused(ours.sign(probe(), ours.ca), "campaign certificate")


def test_a_certificate_that_is_over_or_not_yet_valid_signs_nothing() -> None:
    refused(authority().sign(probe()), "valid now", now_ns=time.time_ns() + 101 * DAY_NS)
    refused(authority().sign(probe()), "valid now", now_ns=time.time_ns() - 300 * DAY_NS)
    refused(authority().sign(probe(), authority().issue(CAMPAIGN_SIGNING, -1)), "valid now")


def test_a_signature_over_something_else_counts_for_no_probe() -> None:
    """A key that signs other things too must not sign a campaign by it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    signed = authority().sign(probe())
    signed.signature = authority().key.sign(signed.probe, ec.ECDSA(hashes.SHA256()))
    refused(signed, "signature")


def deep(levels: int) -> Probe:
    condition: Negated | Bounds = Bounds("hardness")
    for _ in range(levels):
        condition = Negated(condition)
    return probe(condition=condition)


@pytest.mark.parametrize(
    "hostile",
    [
        probe(""),
        probe("x" * 65),
        probe("line\nbreak"),
        probe(revision=0),
        probe(weight=1.5),
        probe(weight=float("nan")),
        probe(least_cosine=float("nan")),
        probe(embedding=bytes(4096), bundle_id="b"),
        probe(embedding=bytes(192), bundle_id="b"),
        probe(embedding=b"\1\2"),
        probe(budget_bytes=1 << 63),
        probe(condition=Likely("night", 1.5)),
        probe(condition=Bounds("hardness", float("nan"))),
        probe(condition=AllOf(tuple(Bounds("hardness") for _ in range(64)))),
        deep(9),
    ],
)
def test_a_probe_that_makes_no_sense_is_refused_though_it_is_signed(hostile: Probe) -> None:
    with pytest.raises(CampaignError) as caught:
        trust().opened(authority().sign(hostile), time.time_ns())
    assert "\n" not in str(caught.value)


def test_a_condition_of_a_later_version_refuses_the_whole_probe() -> None:
    message = to_message(probe())
    message.condition.ClearField("kind")
    with pytest.raises(CampaignError, match="known here"):
        from_message(message)


def test_other_bytes_are_no_probe() -> None:
    for content in (b"\xff\xff", bytes(MAX_PROBE_BYTES + 1)):
        with pytest.raises(CampaignError):
            parse(content)
    with pytest.raises(CampaignError, match="at most"):
        parse_set(wire.ProbeSet(probes=[to_message(probe())] * 1001).SerializeToString())
