"""Deltas give the same bytes again, are small where little changed, and are refused where they are damaged or lie."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundle import MANIFEST, REFERENCE
from edge.errors import UpdateError
from edge.updates import delta, frames, tensors
from edge.updates.differences import added, of_type, streams_of, subtracted

FLOAT, INT8, INT32, HALF = 1, 3, 6, 10
Tensor = tuple[str, int, bytes]


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def model(weights: Sequence[Tensor], note: str = "a note") -> bytes:
    """An ONNX file with these initializers."""
    graph = b"".join(
        field(5, field(1, len(raw)) + field(2, data_type) + field(8, name.encode()) + field(9, raw))
        for name, data_type, raw in weights
    )
    return field(1, 8) + field(2, note.encode()) + field(7, field(1, b"\x0a\x01x") + graph + field(2, b"name"))


def noise(size: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def nudged(raw: bytes, share: float, seed: int = 2) -> bytes:
    """int8 weights of which a share is one step up or down."""
    rng = np.random.default_rng(seed)
    values = np.frombuffer(raw, np.int8).copy()
    moved = rng.random(values.size) < share
    values[moved] += rng.choice(np.array([-1, 1], np.int8), int(moved.sum()))
    return values.tobytes()


def trained(raw: bytes, by: float, seed: int = 3) -> bytes:
    """float16 weights moved a little, as training does."""
    values = np.frombuffer(raw, np.float16).astype(np.float32)
    return (values + np.random.default_rng(seed).normal(0, by, values.size)).astype(np.float16).tobytes()


def halves(count: int) -> bytes:
    return np.random.default_rng(4).normal(0, 0.05, count).astype(np.float16).tobytes()


def through(base: bytes, want: bytes) -> bytes:
    made = delta.make(base, want)
    assert delta.apply(base, made, len(want)) == want
    return made


@settings(max_examples=150)
@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_any_file_comes_out_of_any_other(base: bytes, want: bytes) -> None:
    through(base, want)


TYPES = st.sampled_from([1, 2, 3, 6, 7, 9, 10, 11, 16, 99])
WEIGHTS = st.lists(st.tuples(st.sampled_from("abcdef"), TYPES, st.binary(min_size=8, max_size=90)), max_size=6)


@settings(max_examples=200)
@given(WEIGHTS, WEIGHTS)
def test_any_model_comes_out_of_any_other(base: list[Tensor], want: list[Tensor]) -> None:
    """Renamed, reordered, doubled, of another type or size, of sizes that are no multiple of the type's."""
    through(model(base), model(want, "another"))


@settings(max_examples=200)
@given(st.data(), st.sampled_from([1, 3, 6, 7, 10, 11, 16]), st.integers(0, 9))
def test_differences_of_all_bit_patterns_are_exact(data: st.DataObject, data_type: int, count: int) -> None:
    """Also from one NaN to another, from -0 to 0, and from the largest to the smallest."""
    kind = of_type(data_type)
    size = count * kind.width
    was, now = (data.draw(st.binary(min_size=size, max_size=size)) for _ in range(2))
    streams = subtracted(kind, was, now)
    waiting = list(streams)

    def take(length: int) -> bytes:
        stream = waiting.pop(0)
        assert len(stream) == length
        return stream

    assert streams_of(kind, size, take) == streams
    assert added(kind, was, streams) == now


def test_equal_files_need_next_to_nothing() -> None:
    for name in ("camera.onnx", "fuse.onnx", "golden.npz", MANIFEST):
        content = (REFERENCE / name).read_bytes()
        assert len(through(content, content)) < 200


def test_int8_weights_of_which_few_moved_cost_few_bits_each() -> None:
    raw = noise(200_000)
    base, want = (model([("w", INT8, weights)]) for weights in (raw, nudged(raw, 0.05)))
    # The entropy is 0.05 * log2(2 / 0.05) + 0.95 * log2(1 / 0.95) = 0.34 bits a weight.
    assert len(through(base, want)) < 1.25 * 0.34 / 8 * 200_000
    assert len(frames.shrunk(want, base)) > 2 * len(delta.make(base, want))


def test_halves_that_training_moved_cost_less_than_their_bytes() -> None:
    raw = halves(100_000)
    base, want = (model([("w.half", HALF, weights)]) for weights in (raw, trained(raw, 1e-4)))
    assert len(through(base, want)) < 0.33 * len(raw)
    assert len(frames.shrunk(want, base)) > 2 * len(delta.make(base, want))


def test_a_new_tensor_costs_itself_and_the_others_nothing() -> None:
    known = [("a", INT8, noise(50_000, 5)), ("b", HALF, halves(20_000))]
    fresh = ("c", INT8, noise(3_000, 6))
    base, want = model(known), model([known[1], fresh, known[0]])
    assert 3_000 < len(through(base, want)) < 3_400


def test_a_renamed_tensor_is_found_by_its_bytes() -> None:
    base, want = (model([(name, INT8, noise(50_000, 5)), ("b", INT8, noise(99, 6))]) for name in ("old", "new"))
    assert len(through(base, want)) < 400


@pytest.mark.skipif("ROADFUSE_LONG" not in os.environ, reason="20 s; ROADFUSE_LONG=1 runs it")
def test_the_whole_of_a_large_base_is_looked_through() -> None:
    base = noise(40_000_000)
    want = base[1_000_000:] + b"inserted" + base[:1_000_000]
    assert len(through(base, want)) < 10_000


def test_the_same_files_give_the_same_delta() -> None:
    raw = noise(9_000)
    base, want = model([("w", INT8, raw)]), model([("w", INT8, nudged(raw, 0.2))])
    assert delta.make(base, want) == delta.make(bytes(bytearray(base)), want)


def test_a_delta_is_of_one_base() -> None:
    made = delta.make(b"one base" * 9, b"wanted" * 9)
    with pytest.raises(UpdateError, match="expected one of the base"):
        delta.apply(b"an other base", made, 54)


@pytest.mark.parametrize("length", [0, 53, 55, 1 << 40, -1])
def test_a_delta_makes_the_signed_length_or_nothing(length: int) -> None:
    made = delta.make(b"one base" * 9, b"wanted" * 9)
    with pytest.raises(UpdateError, match="expected"):
        delta.apply(b"one base" * 9, made, length)


@pytest.mark.parametrize("content", [b"", b"rfd1", b"PK\x03\x04" + bytes(40), b"rfd2" + bytes(40)])
def test_what_is_no_delta_is_refused(content: bytes) -> None:
    with pytest.raises(UpdateError, match="bytes that are none"):
        delta.apply(b"", content, 8)


BASE = model([("a", INT8, noise(900)), ("b", HALF, halves(300)), ("c", INT32, noise(400)), ("d", FLOAT, noise(80))])
WANT = model([
    ("a", INT8, nudged(noise(900), 0.4)), ("b", HALF, trained(halves(300), 1e-3)), ("c", INT32, noise(400, 8)),
    ("e", FLOAT, noise(80, 9)),
], "new")  # fmt: skip
DELTA = delta.make(BASE, WANT)


def test_the_delta_that_is_damaged_below_goes_by_tensor() -> None:
    assert DELTA[4] == delta.TENSORS


@settings(max_examples=600)
@given(st.integers(0, len(DELTA) - 1), st.integers(1, 255), st.sampled_from(["flip", "cut", "add", "swap"]))
def test_damaged_deltas_are_refused_or_give_what_the_digest_tells_apart(at: int, by: int, how: str) -> None:
    """Never another error, and never more bytes than were signed."""
    damaged = {
        "flip": DELTA[:at] + bytes([DELTA[at] ^ by]) + DELTA[at + 1 :],
        "cut": DELTA[:at],
        "add": DELTA[:at] + bytes([by]) + DELTA[at:],
        "swap": DELTA[at:] + DELTA[:at],
    }[how]
    try:
        assert len(delta.apply(BASE, damaged, len(WANT))) == len(WANT)
    except UpdateError as error:
        assert "\n" not in str(error)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.sampled_from([delta.GENERIC, delta.TENSORS, 2, 255]))
def test_bodies_that_anybody_could_make_up_are_refused(body: bytes, kind: int) -> None:
    head = DELTA[:4] + bytes([kind]) + DELTA[5:21]
    with pytest.raises(UpdateError):
        delta.apply(BASE, head + body, len(WANT))


def hostile(table: bytes, *others: bytes, base: bytes = BASE, length: int = len(WANT)) -> bytes:
    """A delta by tensor with a table of one's own making; the base as dictionary is not needed to lie."""
    head = DELTA[:4] + bytes([delta.TENSORS]) + delta._mark(base) + struct.pack("<Q", length)
    return head + b"".join(struct.pack("<I", len(part)) + part for part in (frames.shrunk(table), *others))


def row(gap: int, length: int, source: int, how: int, count: int = 1) -> bytes:
    columns = [struct.pack("<I", value) * count for value in (gap, length)]
    return struct.pack("<I", count) + b"".join(columns) + struct.pack("<i", source) * count + bytes([how]) * count


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (row(0, 1 << 31, 0, tensors.LITERAL), "within 2054 bytes"),
        (row(1 << 31, 0, 0, tensors.LITERAL), "within 2054 bytes"),
        (row(0, 900, 0, tensors.SAME, count=9), "within 2054 bytes, got 8100"),
        (row(0, 900, 77, tensors.SAME), "of the base's 4"),
        (row(0, 900, -1, tensors.SAME), "of the base's 4"),
        (row(0, 899, 0, tensors.DIFFERENT), "as large as the base's"),
        (row(0, 16, 0, 3), "told in ways 0 to 2, got 3"),
        (row(0, 1, 0, tensors.LITERAL)[:-1], "a table of 1 tensors"),
        (struct.pack("<I", 0xFFFFFFFF), "a table of 4294967295 tensors"),
        (bytes(tensors.MOST_TENSORS * 20), "at most 65536 tensors"),
    ],
)
def test_tables_that_lie_are_refused(table: bytes, why: str) -> None:
    with pytest.raises(UpdateError, match=why):
        delta.apply(BASE, hostile(table, b"", b""), len(WANT))


def test_nothing_may_follow_a_delta() -> None:
    with pytest.raises(UpdateError, match="the end of the delta, got 3 bytes more"):
        delta.apply(BASE, DELTA + b"xyz", len(WANT))


def test_a_frame_that_unfolds_to_more_than_was_signed_is_not_unfolded() -> None:
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(1 << 28))
    head = DELTA[:4] + bytes([delta.GENERIC]) + DELTA[5:13] + struct.pack("<Q", 1000)
    with pytest.raises(UpdateError, match="expected a frame of 1000 bytes, got one of 268435456"):
        delta.apply(BASE, head + bomb, 1000)


def test_a_frame_that_does_not_tell_its_length_is_refused() -> None:
    writer = zstandard.ZstdCompressor(write_content_size=False)
    head = DELTA[:4] + bytes([delta.GENERIC]) + DELTA[5:13] + struct.pack("<Q", 1000)
    with pytest.raises(UpdateError, match="expected a frame of 1000 bytes"):
        delta.apply(BASE, head + writer.compress(bytes(1000)), 1000)


def test_a_frame_that_lies_about_its_length_gives_no_more_than_it_says() -> None:
    frame = bytearray(zstandard.ZstdCompressor(level=1).compress(noise(2_000)))
    said = frame.index(struct.pack("<H", 2_000 - 256))
    frame[said : said + 2] = struct.pack("<H", 1_000 - 256)
    head = DELTA[:4] + bytes([delta.GENERIC]) + DELTA[5:13] + struct.pack("<Q", 1000)
    with pytest.raises(UpdateError, match="expected a whole one"):
        delta.apply(BASE, head + bytes(frame), 1000)


def test_a_delta_by_tensor_of_a_base_that_is_no_model_is_refused() -> None:
    for base in (b"", b"\xff" * 500, field(7, b"\x2a\xff\xff")):
        made = hostile(row(0, 0, 0, tensors.LITERAL), b"", b"", base=base)
        with pytest.raises(UpdateError):
            delta.apply(base, made, len(WANT))


def test_a_lowering_that_is_a_patch_goes_through_too() -> None:
    base, want = ((REFERENCE / name).read_bytes() for name in ("camera.trt.patch", "camera.arm.patch"))
    assert len(through(base, want)) < len(want) + 64
