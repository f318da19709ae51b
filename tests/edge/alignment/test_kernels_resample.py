"""The resampling kernels, emulated: bit-equal to the reference under any order of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge.alignment import reference
from edge.alignment.kernel_inputs import StreamArrays

EPOCH_NS = 1_760_000_000_000_000_000  # float32 or float64 stamps would be off by far


def _run(bench: Any, instants_ns: Any, streams: Any) -> list[Any]:
    """out and valid of each stream; streams: (stamps_ns, values, tolerance_ns, nearest)."""
    given = []
    for stamps_ns, values, tolerance_ns, nearest in streams:
        out = bench.room((len(instants_ns), values.shape[1]), "float32")
        valid = bench.room((len(instants_ns),), "uint8")
        arrays = bench.put(np.asarray(stamps_ns, np.int64)), bench.put(values), out, valid
        given.append(StreamArrays(*arrays, tolerance_ns, nearest))
    launch = bench.kernels.resample(bench.put(np.asarray(instants_ns, np.int64)), given)
    return bench.run(launch, *(array for stream in given for array in (stream.out, stream.valid)))


def _check(bench: Any, instants_ns: Any, streams: Any) -> list[Any]:
    found = _run(bench, instants_ns, streams)
    for k, stream in enumerate(streams):
        for got, wanted in zip(found[2 * k :], reference.resample(np.asarray(instants_ns, np.int64), *stream)):
            assert got.tobytes() == wanted.tobytes()
    return found


def _stream(random: Any, count: int, channels: int, span_ns: int, nearest: bool) -> Any:
    stamps_ns = np.sort(EPOCH_NS + random.integers(0, span_ns, count))
    return stamps_ns, random.normal(size=(count, channels)).astype(np.float32), span_ns // 50, nearest


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("instants", [0, 1, 256, 700])
def test_streams_of_many_rates_are_the_references(bench: Any, random: Any, instants: int, nearest: bool) -> None:
    span_ns = 10**10
    at_ns = np.sort(EPOCH_NS + random.integers(-span_ns // 10, span_ns * 11 // 10, instants))
    _check(bench, at_ns, [_stream(random, *size, span_ns, nearest) for size in ((0, 2), (1, 1), (2, 3), (900, 12))])


def test_instants_in_any_order_are_the_references(bench: Any, random: Any) -> None:
    at_ns = EPOCH_NS + random.integers(0, 10**9, 300)
    _check(bench, at_ns, [_stream(random, 50, 2, 10**9, False)])


def test_outside_the_first_or_last_sample_is_held_and_flagged_beyond_the_tolerance(bench: Any) -> None:
    values = np.array([[1.0], [3.0]], np.float32)
    at_ns = [EPOCH_NS + shift for shift in (-11, -10, 0, 25, 100, 110, 111)]
    out, valid = _check(bench, at_ns, [([EPOCH_NS, EPOCH_NS + 100], values, 10, False)])
    assert out[:, 0].tolist() == [1.0, 1.0, 1.0, 1.5, 3.0, 3.0, 3.0]
    assert valid.tolist() == [0, 1, 1, 0, 1, 1, 0]


def test_the_older_of_two_equally_near_samples_is_taken(bench: Any) -> None:
    values = np.array([[1.0], [3.0]], np.float32)
    out, _ = _check(bench, [EPOCH_NS + 5, EPOCH_NS + 6], [([EPOCH_NS, EPOCH_NS + 10], values, 10, True)])
    assert out[:, 0].tolist() == [1.0, 3.0]


def test_of_equal_stamps_the_last_sample_counts(bench: Any) -> None:
    values = np.array([[1.0], [2.0], [4.0]], np.float32)
    stamps_ns = [EPOCH_NS, EPOCH_NS, EPOCH_NS + 10]
    out, _ = _check(bench, [EPOCH_NS, EPOCH_NS + 5], [(stamps_ns, values, 10, False)])
    assert out[:, 0].tolist() == [2.0, 3.0]


def test_a_value_that_is_no_number_spoils_only_what_it_is_next_to(bench: Any) -> None:
    values = np.array([[1.0], [np.nan], [3.0]], np.float32)
    out, _ = _run(bench, [0, 5, 20], [([0, 10, 20], values, 10, False)])
    assert np.isnan(out[:, 0]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("count", "samples", "rates", "offset_ns"),
    [(0, 5, (48000, 16000), 0), (1, 1, (16000, 16000), 0), (4800, 1603, (48000, 16000), -10**6),
     (441, 2500, (44100, 16000), 12345), (160, 1025, (16000, 48000), 10**6), (300, 1000, (48000, 44100), 0)],
)  # fmt: skip
def test_sound_at_another_rate_is_the_references(
    bench: Any, random: Any, count: int, samples: int, rates: tuple[int, int], offset_ns: int
) -> None:
    pcm = random.integers(-32768, 32768, count).astype(np.int16)
    out = bench.room((samples,), "float32")
    [got] = bench.run(bench.kernels.resample_sound(bench.put(pcm), out, *rates, offset_ns), out)
    assert got.tobytes() == reference.resample_sound(pcm, samples, *rates, offset_ns).tobytes()


def test_sound_at_its_own_rate_is_itself(bench: Any, random: Any) -> None:
    pcm = random.integers(-32768, 32768, 2000).astype(np.int16)
    out = bench.room((2000,), "float32")
    [got] = bench.run(bench.kernels.resample_sound(bench.put(pcm), out, 16000, 16000), out)
    assert np.array_equal(got, pcm / np.float32(32768))
