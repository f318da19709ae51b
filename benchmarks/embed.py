"""The encoders' service: items a second and latency by modality, batch against single, what a cache hit costs.

    OPENBLAS_NUM_THREADS=1 python benchmarks/embed.py [--seconds 3] [--clip CLIP.mcap] [--text]

Text is also measured as search loads it: queries that are all different, in an open loop at fixed rates, each at its
own instant whatever became of those before. One thread an encoder; the towers as they were trained (one sentence of 96
pieces a call) and a numpy version of the text tower stand beside.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cloud.embed.batching import BatchLimits
from cloud.embed.cache import DiskCache, key_of
from cloud.embed.encoders import Encoders
from cloud.embed.gateway import Gateway, GatewaySettings
from cloud.embed.item import Item, Modality, Vector
from cloud.embed.lowering import session
from edge.onnx_weights import weights

PLACES = ("tunnel", "town", "motorway", "country road", "car park", "bridge", "crossing", "roundabout")
SOUNDS = ("siren from behind", "horn", "rain on the roof", "tyres squeal", "silence", "a bell", "a bus brakes")
ACTORS = ("pedestrian waits", "cyclist crosses", "lorry turns", "bus stops", "tram passes", "dog runs", "child plays")
LIGHTS = ("night", "dusk", "day", "fog", "snow", "low sun", "rain")


def sentences() -> Iterator[str]:
    """Short queries, no two alike."""
    for number in itertools.count():
        for light, sound, actor, place in itertools.product(LIGHTS, SOUNDS, ACTORS, PLACES):
            yield f"{light}, {sound}, {actor} in the {place} {number}"


class NumpyTower:
    """The text tower from the initializers of its graph, by numpy: what was measured and not taken."""

    def __init__(self, model: bytes) -> None:
        self._w = {
            name.removesuffix(".half"): np.frombuffer(weight.content, {1: "<f4", 10: "<f2"}[weight.data_type])
            .astype(np.float32)
            .reshape(weight.shape)
            for name, weight in weights(model).items()
            if weight.data_type in (1, 10)
        }

    def encode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        w, (batch, length) = self._w, tokens.shape
        there = (tokens > 0).astype(np.float32)
        x = w["pieces.weight"][tokens] + w["/Add.B"][:length]
        width = x.shape[2]
        mask = ((there - 1) * 1e4)[:, None, None, :]
        for k in (0, 1):
            node, name = f"/blocks.{k}/", f"blocks.{k}."
            flat = self._norm(x, f"{name}norm").reshape(-1, width)
            qkv = (flat @ w[f"{node}qkv/MatMul.B"] + w[f"{name}qkv.bias"]).reshape(batch, length, 3, 4, width // 4)
            query, key, value = (qkv[:, :, j].transpose(0, 2, 1, 3) for j in range(3))
            score = query @ key.transpose(0, 1, 3, 2) * (width // 4) ** -0.5 + mask
            score = np.exp(score - score.max(-1, keepdims=True))
            seen = (score / score.sum(-1, keepdims=True) @ value).transpose(0, 2, 1, 3).reshape(-1, width)
            x = x + (seen @ w[f"{node}out/MatMul.B"] + w[f"{name}out.bias"]).reshape(x.shape)
            flat = self._norm(x, f"{name}norm_mlp").reshape(-1, width)
            grown = np.maximum(flat @ w[f"{node}mlp/mlp.0/MatMul.B"] + w[f"{name}mlp.0.bias"], 0)
            x = x + (grown @ w[f"{node}mlp/mlp.2/MatMul.B"] + w[f"{name}mlp.2.bias"]).reshape(x.shape)
        mean = (self._norm(x, "norm") * there[:, :, None]).sum(1) / np.maximum(there.sum(1, keepdims=True), 1)
        grown = np.maximum(mean @ w["embed.0.weight"].T + w["embed.0.bias"], 0)
        found: NDArray[np.float32] = grown @ w["embed.2.weight"].T + w["embed.2.bias"]
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    def _norm(self, x: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * self._w[f"{name}.weight"] + self._w[f"{name}.bias"]


def rate(call: Callable[[], int], seconds: float) -> float:
    """Items a second of a call that gives how many it did."""
    call()
    done, started = 0, time.perf_counter()
    while (took_s := time.perf_counter() - started) < seconds:
        done += call()
    return done / took_s


def towers(encoders: Encoders, seconds: float) -> None:
    """The text tower in its three forms, by batch."""
    texts = list(itertools.islice(sentences(), 64))
    rows = np.stack([encoders.towers.vocabulary.encode(text) for text in texts])
    length = int((rows > 0).sum(1).max())
    original = session("text", encoders.towers.text, 1)
    by_numpy = NumpyTower(encoders.towers.text)
    expected = np.concatenate([original.run(None, {"tokens": row[None]})[0] for row in rows])
    print(f"text tower, sentences of {(rows > 0).sum(1).mean():.0f} pieces, ms a sentence by batch")

    def padded() -> int:
        for row in rows:
            original.run(None, {"tokens": row[None]})
        return len(rows)

    print(f"  as trained, (1, 96)       {1e3 / rate(padded, seconds):7.3f}")
    for name, encode in (
        ("numpy", lambda batch: by_numpy.encode(batch[:, :length])),
        ("in integers, any length", lambda batch: lowered(encoders, batch, texts)),
    ):
        apart = np.abs(np.concatenate([encode(rows[:16])]) - expected[:16]).max()
        took = []
        for size in (1, 2, 4, 8, 16, 32, 64):

            def batches(size: int = size, encode: Callable[..., object] = encode) -> int:
                for start in range(0, len(rows), size):
                    encode(rows[start : start + size])
                return len(rows)

            took.append(f"{size}: {1e3 / rate(batches, seconds):.3f}")
        print(f"  {name:25} {'  '.join(took)}   at most {apart:.1e} from it")


def lowered(encoders: Encoders, batch: NDArray[np.int64], texts: Sequence[str]) -> NDArray[np.float32]:
    """The encoders' own tower, without pieces and checks; it is given several sentences here alone."""
    encoders.open("text")
    tower = encoders._text
    assert tower is not None
    places, length = tower._places, int((batch > 0).sum(1).max())
    feed = {"tokens": np.ascontiguousarray(batch[:, :length]), "/Add.B": places[:length]}
    found: NDArray[np.float32] = tower._session.run(None, feed)[0]
    return found


def percentile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(np.asarray(values), share)) * 1e3


async def media(encoders: Encoders, contents: dict[Modality, list[bytes]], seconds: float) -> None:
    """Each modality through the gateway, items that it never saw: one at a time, and 32 at once."""
    print("through the gateway, items that it never saw: ms p50 / p99 one at a time; items/s with 32 under way")
    for modality, some in contents.items():
        encoders.open(modality)
        fresh = changed(some)
        gateway = Gateway(encoders)
        took: list[float] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            started = time.perf_counter()
            (answer,) = await gateway.embed([Item(modality, next(fresh))])
            took.append(time.perf_counter() - started)
            assert isinstance(answer, Vector), answer
        done, started = 0, time.perf_counter()

        async def ask(modality: Modality = modality, fresh: Iterator[bytes] = fresh, gateway: Gateway = gateway) -> int:
            count = 0
            while time.perf_counter() < started + seconds:  # noqa: B023  # of this turn of the loop
                await gateway.embed([Item(modality, next(fresh))])
                count += 1
            return count

        done = sum(await asyncio.gather(*[ask() for _ in range(32)]))
        per_s = done / (time.perf_counter() - started)
        print(
            f"  {modality:7} {percentile(took, 0.5):8.2f} / {percentile(took, 0.99):7.2f}   {per_s:8.0f}/s"
            f"   ({len(some[0]) / 1e3:.0f} kB)"
        )
        await gateway.close()


def changed(some: list[bytes]) -> Iterator[bytes]:
    """Contents that differ in bytes that no decoder reads, behind their end; sentences as they come."""
    if len(some) > 1:
        yield from itertools.cycle(some)
    for number in itertools.count():
        yield some[0] + number.to_bytes(8, "little")


async def open_loop(encoders: Encoders, rates: Sequence[int], seconds: float, limits: BatchLimits) -> None:
    """Different sentences at a fixed rate: how long from the instant at which each was due."""
    encoders.open("text")
    fresh = sentences()
    for per_s in rates:
        gateway = Gateway(encoders, settings=GatewaySettings(text=limits))
        took: list[float] = []
        asked: set[asyncio.Task[None]] = set()

        async def ask(text: str, due: float, gateway: Gateway = gateway, took: list[float] = took) -> None:
            (answer,) = await gateway.embed([Item.of_text(text)])
            if isinstance(answer, Vector):
                took.append(time.perf_counter() - due)

        used = time.process_time()
        started = time.perf_counter()
        for number in range(int(per_s * seconds)):
            due = started + number / per_s
            if (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            task = asyncio.create_task(ask(next(fresh), due))
            asked.add(task)
            task.add_done_callback(asked.discard)
        if asked:
            await asyncio.wait(asked)
        cpu_ms = (time.process_time() - used) / int(per_s * seconds) * 1e3
        print(
            f"  {per_s:5}/s, wait {limits.wait_s * 1e3:g} ms: p50 {percentile(took, 0.5):6.2f}  p99 "
            f"{percentile(took, 0.99):6.2f} ms, {cpu_ms:.2f} ms of CPU each, refused {int(per_s * seconds) - len(took)}"
        )
        await gateway.close()


async def hits(encoders: Encoders) -> None:
    """What an item costs that was embedded before."""
    with tempfile.TemporaryDirectory() as folder:
        gateway = Gateway(encoders)
        item = Item.of_text("night, siren from behind, pedestrian waits")
        (vector,) = await gateway.embed([item])
        assert isinstance(vector, Vector)
        count, started = 20_000, time.perf_counter()
        for _ in range(count):
            await gateway.embed([item])
        memory_us = (time.perf_counter() - started) / count * 1e6
        disk = DiskCache(Path(folder), 1 << 30, 1e9)
        keys = [key_of(Item.of_text(str(n)), "s", "m", 1) for n in range(2000)]
        started = time.perf_counter()
        for key in keys:
            disk.put(key, vector)
        put_us = (time.perf_counter() - started) / len(keys) * 1e6
        started = time.perf_counter()
        for key in keys:
            assert disk.get(key) is not None
        get_us = (time.perf_counter() - started) / len(keys) * 1e6
        print(f"cache: hit in memory {memory_us:.1f} us, on disk {get_us:.0f} us; a write to disk {put_us:.0f} us")
        await gateway.close()


def samples(clip: bytes | None) -> dict[Modality, list[bytes]]:
    """Content by modality: made up, but for the clip."""
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 255, (45, 80, 3), np.uint8), (1280, 720), interpolation=cv2.INTER_CUBIC)
    found: dict[Modality, list[bytes]] = {
        "text": [text.encode() for text in itertools.islice(sentences(), 50_000)],
        "image": [cv2.imencode(".jpg", picture)[1].tobytes()],
        "audio": [sound(rng)],
    }
    if clip is not None:
        found |= {"video": [clip], "motion": [clip], "lidar": [clip]}
    return found


def sound(rng: np.random.Generator) -> bytes:
    """A WAV of a second."""
    import io
    import wave

    into = io.BytesIO()
    with wave.open(into, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(rng.integers(-9000, 9000, 16000).astype("<i2").tobytes())
    return into.getvalue()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each figure")
    parser.add_argument("--clip", type=Path, help="a drive clip, for video, motion and LiDAR")
    parser.add_argument("--text", action="store_true", help="text alone")
    args = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load}")
    print(json.dumps({"python": platform.python_version()}))
    encoders = Encoders()
    towers(encoders, args.seconds / 4)
    contents = samples(args.clip.read_bytes() if args.clip else None)
    if args.text:
        contents = {"text": contents["text"]}
    asyncio.run(media(encoders, contents, args.seconds))
    print("text in an open loop, all sentences different: ms from the instant each was due")
    for wait_s in (0.0, 0.001, 0.002):
        asyncio.run(open_loop(encoders, (500, 1000, 2000), args.seconds, BatchLimits(wait_s=wait_s)))
    asyncio.run(hits(encoders))


if __name__ == "__main__":
    main()
