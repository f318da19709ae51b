"""Differences are taken where they are cheaper; whatever is wrong with one, the whole file still comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.updates import delta
from edge.updates.fetch import Fetcher, TryLater
from roadfuse.v1 import updates_pb2

from .link import Link


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link(tmp_path)


def offered(link: Link, base: bytes, made: bytes, told: bytes | None = None) -> dict[bytes, str]:
    """A base on board, and a difference that the cloud offers for the file."""
    link.disk.make_folder("bundles")
    link.disk.write("bundles/base", base)
    known = link.holds(base)
    offer = link.holds(made if told is None else told)
    del link.cloud.files[known.sha256]
    link.cloud.files[offer.sha256] = made

    def answer(have: list[bytes], want: bytes) -> updates_pb2.DeltaResponse:
        assert have == [known.sha256]
        if want != link.file.sha256:
            return updates_pb2.DeltaResponse()
        return updates_pb2.DeltaResponse(
            base_sha256=known.sha256, delta_sha256=offer.sha256, delta_bytes=len(made if told is None else told)
        )

    link.cloud.delta_answer = answer
    return {known.sha256: "bundles/base"}


def near(link: Link) -> bytes:
    return link.content[:20_000] + b"other" + link.content[20_005:]


def fetched_whole(link: Link) -> bool:
    return any(digest == link.file.sha256 for digest, _ in link.cloud.fetched)


def test_difference_is_fetched_instead_of_the_file(link: Link) -> None:
    have = offered(link, near(link), delta.make(near(link), link.content))
    assert link.disk.read(link.fetcher.fetch(link.file, have)) == link.content
    assert not fetched_whole(link)
    assert link.disk.list("parts") == [link.file.sha256.hex()]


@pytest.mark.parametrize(
    "wrong", ["garbage", "of another file", "of another base", "altered on the way", "no such base"]
)
def test_wrong_difference_falls_back_to_the_whole_file(link: Link, wrong: str) -> None:
    base, right = near(link), delta.make(near(link), link.content)
    if wrong == "garbage":
        have = offered(link, base, b"rfd1" + bytes(200))
    elif wrong == "of another file":
        have = offered(link, base, delta.make(base, base[:-1] + b"!"))
    elif wrong == "of another base":
        have = offered(link, base, delta.make(link.content[::-1], link.content)[:40_000])
    elif wrong == "altered on the way":
        have = offered(link, base, right[:-1] + b"!", told=right)
    else:
        have = offered(link, base, right)
        link.disk.write("bundles/base", bytes(len(base)))  # damaged on board
    assert link.disk.read(link.fetcher.fetch(link.file, have)) == link.content
    assert fetched_whole(link)
    assert link.disk.list("parts") == [link.file.sha256.hex()]
    link.disk.remove(link.part())
    link.cloud.fetched.clear()
    link.fetcher.fetch(link.file, have)
    assert [digest for digest, _ in link.cloud.fetched] == [link.file.sha256]  # it is not tried twice


def test_difference_that_is_dearer_than_what_is_missing_is_not_taken(link: Link) -> None:
    have = offered(link, near(link), delta.make(near(link), link.content))
    link.stream(lambda offset: link.chunks(offset, len(link.content) - 8))
    link.fetcher = Fetcher(link.disk, link.cloud, link.clock)
    with pytest.raises(TryLater):
        link.fetcher.fetch(link.file)
    link.cloud.stream = None
    link.cloud.fetched.clear()
    Fetcher(link.disk, link.cloud, link.clock, delta.apply).fetch(link.file, have)
    assert len(link.cloud.fetched) == 1 and fetched_whole(link)


def test_cut_off_difference_goes_on_where_it_ended(link: Link) -> None:
    made = delta.make(near(link)[:30_000], link.content)
    have = offered(link, near(link)[:30_000], made)
    link.cloud.stream = lambda digest, offset: iter([made[offset : offset + 3000]])
    with pytest.raises(TryLater, match=r"difference to camera\.onnx"):
        link.fetcher.fetch(link.file, have)
    link.cloud.stream = None
    link.fetcher.fetch(link.file, have)
    assert [offset for _, offset in link.cloud.fetched] == [0, 3000] and not fetched_whole(link)
