"""Words are gone, sirens are not, and where nobody speaks every sample is as it was."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.redaction import tones
from edge.redaction.hearing import Spans, merged, voiced
from edge.redaction.sound import SoundRedaction, wordless
from edge.redaction.voice import Disguise, faded
from edge.streams import SECOND

from .sounds import RATE_HZ, babble, noise, siren, words_left

START_NS = 1_000 * SECOND
LEFT = 0.35  # of any octave; of all together less
LEFT_MEAN = 0.15


def pcm(sound: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)[:, None]


def redacted(
    sound: NDArray[np.int16], spans: Spans | None = None, sizes: tuple[int, ...] = (320,), rate_hz: int = RATE_HZ
) -> NDArray[np.int16]:
    """The sound as it leaves, however it is cut into blocks."""
    out = io.BytesIO()
    redaction = SoundRedaction(spans or Spans(), out)
    at = turn = 0
    while at < len(sound):
        size = sizes[turn % len(sizes)]
        redaction.take(sound[at : at + size], START_NS + at * SECOND // rate_hz, rate_hz)
        at, turn = at + size, turn + 1
    redaction.finish()
    return np.frombuffer(out.getvalue(), "<i2").reshape(-1, sound.shape[1])


def test_of_the_world_s_speech_the_words_are_gone_and_the_loudness_is_left() -> None:
    spoken = babble(10) + noise(10, 0.003)
    left = redacted(pcm(spoken))[:, 0]
    correlations = words_left(spoken, left)
    assert max(correlations) < LEFT and np.mean(correlations) < LEFT_MEAN
    levels = [np.sqrt(np.mean(np.square(sound, dtype=np.float64))) for sound in (spoken, left / 32768)]
    assert 0.7 < levels[1] / levels[0] < 1.4


def test_of_real_speech_the_words_are_gone(recordings: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    paths = [recordings / "audio/jfk/jfk.flac", *sorted((recordings / "audio/librispeech").glob("*.ogg"))]
    assert len(paths) >= 3
    for path in paths:
        sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        left = redacted(pcm(sound[:, 0]), rate_hz=rate_hz)[:, 0]
        assert not np.any(np.all(np.lib.stride_tricks.sliding_window_view(left == pcm(sound[:, 0])[:, 0], 200), axis=1))
        correlations = words_left(sound[:, 0], left, rate_hz)
        assert max(correlations) < LEFT and np.mean(correlations) < LEFT_MEAN, path


@pytest.mark.parametrize("kind", ["wail", "yelp", "hi_lo", "whoop"])
def test_a_siren_is_still_there_where_somebody_speaks(kind: str) -> None:
    alert, spoken = siren(6, kind), babble(6, 0.05)
    sound = alert + spoken + noise(6, 0.01)
    everywhere = Spans()
    everywhere.add(0, 1 << 62)
    left = redacted(pcm(sound), everywhere)[:, 0] / 32768
    inner = slice(RATE_HZ, -RATE_HZ)
    kept = float(left[inner] @ alert[inner] / (alert[inner] @ alert[inner]))
    assert kept > 0.5
    assert np.mean(words_left(spoken, left)) < 0.2


def test_speech_has_no_tones_that_last(recordings: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    for path in sorted((recordings / "audio/librispeech").glob("*.ogg")):
        sound, rate_hz = soundfile.read(path, dtype="float32")
        kept = tones.tones(sound, 0, 0, len(sound), rate_hz)
        assert np.sum(kept**2) < 0.01 * np.sum(sound**2)


@pytest.mark.parametrize("sound", [noise(8), noise(8, 0.2), siren(8, "wail") + noise(8, 0.005), np.zeros(80_000)])
def test_where_nobody_speaks_every_sample_is_as_it_was(sound: NDArray[np.float32]) -> None:
    given_pcm = pcm(np.asarray(sound, np.float32))
    assert np.array_equal(redacted(given_pcm), given_pcm)


def test_only_what_lies_around_a_voice_is_replaced() -> None:
    sound = noise(12, 0.005)
    sound[5 * RATE_HZ : 7 * RATE_HZ] += babble(2)
    given_pcm = pcm(sound)
    changed = redacted(given_pcm)[:, 0] != given_pcm[:, 0]
    assert changed[5 * RATE_HZ : 7 * RATE_HZ].mean() > 0.95
    assert not changed[: 3 * RATE_HZ].any() and not changed[9 * RATE_HZ :].any()


def test_a_voice_that_the_loop_heard_is_replaced_though_the_rule_hears_none() -> None:
    given_pcm, spans = pcm(noise(8)), Spans()
    spans.add(START_NS + 3 * SECOND, START_NS + 4 * SECOND)
    changed = redacted(given_pcm, spans)[:, 0] != given_pcm[:, 0]
    assert changed[3 * RATE_HZ : 4 * RATE_HZ].mean() > 0.99
    assert not changed[: int(2.9 * RATE_HZ)].any() and not changed[int(4.1 * RATE_HZ) :].any()


@settings(max_examples=8)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=5))
def test_how_sound_is_cut_into_messages_changes_nothing(sizes: list[int]) -> None:
    sound = np.concatenate((noise(3), babble(3) + noise(3), noise(5, seed=2)))
    whole = redacted(pcm(sound), sizes=(320,))
    assert np.array_equal(redacted(pcm(sound), sizes=(*sizes, 4000)), whole)


def test_each_channel_is_redacted() -> None:
    sound = np.concatenate((pcm(babble(5)), pcm(noise(5)), pcm(-babble(5))), axis=1)
    left = redacted(sound)
    for channel in (0, 2):
        assert np.mean(words_left(sound[:, channel], left[:, channel])) < LEFT_MEAN


@pytest.mark.parametrize("rate_hz", [1_000, 8_000, 11_025, 48_000])
def test_any_rate_comes_out_as_long_as_it_went_in(rate_hz: int) -> None:
    rng = np.random.default_rng(1)
    beats = np.sin(2 * np.pi * 4 * np.arange(3 * rate_hz) / rate_hz) > 0
    sound = pcm((0.2 * rng.standard_normal(3 * rate_hz) * beats).astype(np.float32))
    left = redacted(sound, rate_hz=rate_hz)
    assert left.shape == sound.shape
    assert (left != sound).mean() > 0.9


def test_lost_late_and_doubled_blocks_begin_a_stretch_of_their_own_and_keep_their_length() -> None:
    sound, out = pcm(babble(4)), io.BytesIO()
    redaction = SoundRedaction(Spans(), out)
    order = [*range(50), *range(60, 100), 55, 55, *range(100, 150)]
    for at in order:
        redaction.take(sound[at * 320 : at * 320 + 320], START_NS + at * 20_000_000, RATE_HZ)
    redaction.finish()
    assert len(out.getvalue()) == len(order) * 640


def test_full_scale_does_not_wrap_around() -> None:
    sound = pcm(np.sign(babble(3)) * 0.9999)
    left = redacted(sound)
    assert np.abs(left.astype(int)).max() <= 32767


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 50)), max_size=30), st.integers(0, 1000))
def test_spans_are_what_was_added(starts: list[tuple[int, int]], at: int) -> None:
    spans, given_spans = Spans(), [(start, start + length) for start, length in starts]
    for span in given_spans:
        spans.add(*span)
    inside = any(first <= at < last for first, last in given_spans)
    assert bool(spans.within(at, at + 1)) == inside
    together = merged(given_spans)
    assert all(a[1] < b[0] for a, b in pairwise(together))


def test_the_fade_is_whole_all_over_the_voice() -> None:
    mask = np.zeros(4000, np.bool_)
    mask[1000:2000] = True
    share = faded(mask, RATE_HZ)
    assert len(share) == 4000 and np.all(share[1000:2000] > 0.999)
    assert not share[:700].any() and not share[2300:].any()


def test_a_stretch_comes_out_the_same_whatever_part_of_it_is_asked_for() -> None:
    sound = babble(6) + noise(6)
    disguise = Disguise(RATE_HZ, 7)
    whole = wordless(disguise, sound, 0, 0, len(sound), RATE_HZ)
    context = disguise.context + tones.context(RATE_HZ)
    first, last = 40_000, 50_000
    part = wordless(
        Disguise(RATE_HZ, 7), sound[first - context : last + context], first - context, first, last, RATE_HZ
    )
    assert np.allclose(part, whole[first:last], atol=1e-6)
    heard = voiced(sound, 0, 0, len(sound), RATE_HZ)
    assert heard.mean() > 0.9
