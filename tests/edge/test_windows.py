"""Sound windows: each sample is heard once and in order, however frames fall and whatever is lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.samples import AudioChunk
from edge.streams import SECOND
from edge.windows import SoundWindows
from tests.edge.frames import START_NS, sounds

HOP, SAMPLES = 512, 576


def listen(
    chunks: list[AudioChunk], frames_ns: list[int], window_ns: int = 1_040_000_000
) -> tuple[list[NDArray[np.float32]], int]:
    """The windows that frames at these instants bring, and how often the stream began anew."""
    out = np.zeros(SAMPLES, np.float32)
    windows, heard, anew = SoundWindows(out, 16000, HOP), [], 0
    for frame_ns in frames_ns:
        anew += windows.take([chunk for chunk in chunks if frame_ns - window_ns < chunk.stamp_ns <= frame_ns])
        while windows.step():
            heard.append(out.copy())
    return heard, anew


def frames(seconds: float, rate_hz: float = 30.0) -> list[int]:
    return [START_NS + int(i * SECOND / rate_hz) for i in range(int(seconds * rate_hz) + 3)]


def noise(samples: int) -> NDArray[np.int16]:
    return np.random.default_rng(4).integers(-30000, 30000, samples, dtype=np.int16)


def test_windows_follow_each_other_with_the_end_of_the_last_in_front() -> None:
    pcm = noise(16000)
    heard, anew = listen(sounds(pcm, 16000, 320), frames(1.0))
    assert anew == 1 and len(heard) == 16000 // HOP
    stream = np.concatenate((np.zeros(SAMPLES - HOP, np.int16), pcm)) / np.float32(32768)
    for i, window in enumerate(heard):
        assert (window == stream[i * HOP : i * HOP + SAMPLES]).all()


@settings(max_examples=30)
@given(
    rate_hz=st.sampled_from([8000, 16000, 44100, 48000]),
    chunk_ms=st.integers(3, 90),
    instants_ms=st.sets(st.integers(0, 1500), min_size=1),
)
def test_how_frames_fall_changes_nothing(rate_hz: int, chunk_ms: int, instants_ms: set[int]) -> None:
    chunks = sounds(noise(rate_hz), rate_hz, rate_hz * chunk_ms // 1000)
    grid, _ = listen(chunks, frames(1.0))
    # No two frames further apart than the window that they see, or sound would be missed.
    instants = sorted(
        {START_NS + ms * 1_000_000 for ms in instants_ms} | set(range(START_NS, START_NS + 2 * SECOND, SECOND))
    )
    other, _ = listen(chunks, instants)
    assert len(grid) == len(other) > 28
    assert all((a == b).all() for a, b in zip(grid, other))


def test_stamps_that_jitter_lose_no_sample() -> None:
    pcm = noise(16000)
    rng = np.random.default_rng(7)
    chunks = [
        AudioChunk(chunk.stamp_ns + int(rng.integers(0, 3_000_000)), chunk.seq, chunk.rate_hz, chunk.pcm)
        for chunk in sounds(pcm, 16000, 320)
    ]
    exact, _ = listen(sounds(pcm, 16000, 320), frames(1.0))
    jittered, anew = listen(chunks, frames(1.0))
    assert anew == 1 and all((a == b).all() for a, b in zip(exact, jittered))


def test_lost_chunks_are_silence_of_their_length() -> None:
    pcm = np.full(16000, 1000, np.int16)
    chunks = sounds(pcm, 16000, 320)
    heard, anew = listen(chunks[:10] + chunks[25:], frames(1.0))
    stream = np.concatenate([window[-HOP:] for window in heard])
    assert anew == 1 and (stream == 0).nonzero()[0].tolist() == list(range(3200, 8000))


def test_after_a_long_silence_the_stream_begins_anew() -> None:
    early = sounds(np.full(3200, 1000, np.int16), 16000, 320)
    late = sounds(np.full(3200, 2000, np.int16), 16000, 320, start_ns=START_NS + 2 * SECOND)
    late = [AudioChunk(chunk.stamp_ns, chunk.seq + 50, chunk.rate_hz, chunk.pcm) for chunk in late]
    heard, anew = listen([*early, *late], frames(2.3))
    assert anew == 2 and len(heard) == 2 * (3200 // HOP)
    assert (heard[6][: SAMPLES - HOP] == 0).all()  # nothing of before is in front


def test_another_rate_begins_anew() -> None:
    early = sounds(noise(3200), 16000, 320)
    late = sounds(noise(9600), 48000, 960, start_ns=START_NS + SECOND // 5)
    late = [AudioChunk(chunk.stamp_ns, chunk.seq + 10, chunk.rate_hz, chunk.pcm) for chunk in late]
    assert listen([*early, *late], frames(0.5))[1] == 2


def test_a_thawed_stream_goes_on_where_it_was() -> None:
    chunks, instants = sounds(noise(48000), 48000, 960), frames(1.0)
    whole, _ = listen(chunks, instants)
    for cut in (0, 1, 9, 20):
        heard, windows = [], SoundWindows(np.zeros(SAMPLES, np.float32), 16000, HOP)
        for i, frame_ns in enumerate(instants):
            if i == cut:
                frozen = windows.freeze()
                windows = SoundWindows(np.zeros(SAMPLES, np.float32), 16000, HOP)
                windows.thaw(frozen)
            windows.take([chunk for chunk in chunks if frame_ns - SECOND < chunk.stamp_ns <= frame_ns])
            while windows.step():
                heard.append(windows._out.copy())
        assert len(heard) == len(whole) and all((a == b).all() for a, b in zip(heard, whole))
