"""The log-mel kernel, emulated: the same bits under any order of threads, within 1e-4 of the exact logarithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge.alignment import reference
from edge.alignment.kernel_inputs import LogmelOptions, LogmelTables, logmel_tables

TOLERANCE = 1e-4  # of log(power): 0.0004 dB


def _bands(count: int) -> Any:
    """Triangles over all 257 bins, and one band without bins."""
    edges = np.linspace(0, 256, count + 2)
    bins = np.arange(257)
    rows = [np.clip(np.minimum(bins - a, c - bins) / (b - a), 0, None) for a, b, c in zip(edges, edges[1:], edges[2:])]
    rows[-1] = np.zeros(257)
    return np.asarray(rows, np.float32)


def _run(bench: Any, pcm: Any, bands: Any, steps: int, options: LogmelOptions) -> tuple[Any, Any]:
    """Result, and window."""
    host = logmel_tables(bands)
    tables = LogmelTables(**{name: bench.put(array) for name, array in host.items()})
    out = bench.room((len(pcm), len(bands), steps), "float32")
    [got] = bench.run(bench.kernels.logmel(bench.put(pcm), tables, out, options), out)
    return got, host["window"]


@pytest.mark.parametrize(
    "options", [LogmelOptions(), LogmelOptions(floor_added=False, lead=0, hop=100, shift=0, gain=1)]
)
@pytest.mark.parametrize(("clips", "samples", "steps", "bands"), [(1, 0, 1, 3), (2, 1, 2, 64), (3, 1777, 7, 150)])
def test_sound_is_the_references(
    bench: Any, random: Any, clips: int, samples: int, steps: int, bands: int, options: LogmelOptions
) -> None:
    pcm = (random.normal(size=(clips, samples)) * 0.2).astype(np.float32)
    filters = _bands(bands)
    got, window = _run(bench, pcm, filters, steps, options)
    for one, sound in zip(got, pcm):
        wanted = reference.logmel(sound, window, filters, steps, options)
        assert np.abs(one - wanted).max() <= TOLERANCE * options.gain


def test_a_tone_stands_in_its_own_bin(bench: Any) -> None:
    tone = np.sin(2 * np.pi * 37 * np.arange(512) / 512).astype(np.float32)
    got, _ = _run(bench, tone[None], np.eye(257, dtype=np.float32), 1, LogmelOptions(lead=0, shift=0, gain=1))
    assert np.argmax(got[0, :, 0]) == 37
    assert got[0, 37, 0] == pytest.approx(0.0, abs=1e-3)  # a full-scale tone has power 1
    assert (np.delete(got[0, :, 0], [36, 37, 38]) < -15).all()


def test_no_sound_or_no_steps_are_no_launch(bench: Any) -> None:
    for clips, steps in ((0, 4), (2, 0)):
        got, _ = _run(bench, np.zeros((clips, 100), np.float32), _bands(4), steps, LogmelOptions())
        assert got.size == 0


def test_it_is_what_the_audio_encoder_hears(bench: Any, random: Any) -> None:
    """The encoder's basis is rounded to float16, so about 0.1 dB where there is sound."""
    torch = pytest.importorskip("torch", reason="torch is not installed: the encoder's spectrum is not here")
    from export.model import spectrum

    pcm = (random.normal(size=(1, 16000)) * 0.1).astype(np.float32)
    got, _ = _run(bench, pcm, spectrum.mel_bands(), spectrum.STEPS, LogmelOptions())
    with torch.no_grad():
        wanted = spectrum.LogMel()(torch.from_numpy(pcm))[0, 0].numpy()
    assert got.shape == (1, spectrum.BANDS, spectrum.STEPS)
    assert np.abs(got[0] - wanted).max() < 0.003
