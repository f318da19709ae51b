"""What redaction covers, what it leaves of what models need, and what it costs.

Simulated drives of held-out towns are replayed by the reference bundle, recorded and redacted; truth says which heads
and plates were covered. Real faces and voices are those of the data folder (ROADFUSE_DATA, else ../shared/data).

    python benchmarks/redaction.py [--seconds 20] [--drives 8] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage

from edge import bundle as bundles
from edge.command import main as command
from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.preprocess import resampled
from edge.redaction.clip import redact
from edge.redaction.detect import Looker
from edge.redaction.hearing import voiced
from edge.redaction.picture import rectangles
from edge.redaction.regions import region_of, sane
from edge.redaction.sound import wordless
from edge.redaction.voice import Disguise
from roadfuse.v1.decision_pb2 import Decision
from roadfuse.v1.truth_pb2 import GroundTruth, TrueObject

DATA = Path(os.environ.get("ROADFUSE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SCENARIOS = ("urban", "crossing", "siren", "residential", "night", "mixed", "varied", "varied")
EVENTS = ("siren", "horn", "rain")

SPEECH_BANDS_HZ = ((125, 250), (250, 500), (500, 1000), (1000, 2000), (2000, 4000))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each simulated drive")
    parser.add_argument("--drives", type=int, default=8)
    parser.add_argument("--work", type=Path, help="keep the drives in this folder")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        figures = {"drives": simulated(work, options.seconds, options.drives)}
        if DATA.is_dir():
            figures |= {"faces": faces(work), "streets": streets(work), "voices": voices()}
        else:
            print(f"real faces and voices: not run: no data folder at {DATA}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    return 0


def simulated(work: Path, seconds: float, count: int) -> dict[str, Any]:
    """Recall of heads and plates, what is still heard, and the cost, over simulated drives."""
    seen: Counter[str] = Counter()
    for at in range(count):
        drive, run, out, again = (work / f"{at}-{name}.mcap" for name in ("drive", "run", "redacted", "again"))
        scenario = SCENARIOS[at % len(SCENARIOS)]
        if not run.exists():
            words = ["--seed", str(700 + at), "--town", str(300 + at), "--scenario", scenario, "--no-lidar"]
            roadfuse(["simulate", *words, "--seconds", str(seconds), "--out", str(drive), "--json"])
            roadfuse(["replay", str(drive), "--out", str(run), "--json"])
        begun = time.process_time()
        facts = redact(run, out)
        seen["cpu_us"] += int(1e6 * (time.process_time() - begun))
        assert facts is not None
        seen["pictures"] += facts.pictures
        seen["covered"] += facts.pictures_covered
        seen["sound_ms"] += int(1e3 * facts.sound_s)
        seen["sound_covered_ms"] += int(1e3 * facts.sound_covered_s)
        seen["bytes_before"] += run.stat().st_size
        seen["bytes_after"] += out.stat().st_size
        _heads_and_plates(run, out, seen)
        roadfuse(["replay", str(out), "--out", str(again), "--json"])
        _compared(run, again, seen)
    ms = seen["sound_ms"]
    print(f"\n{count} simulated drives of {seconds:g} s, {seen['pictures']} pictures")
    for what in ("head of 8 px", "head of 4 px", "plate"):
        found, there = seen[f"{what} covered"], seen[f"{what} there"]
        name = what + (" and more" if "px" in what else "")
        print(f"  {name:<22} {found} of {there} covered ({found / max(there, 1):.1%})")
    print(f"  pixels covered         {seen['px_covered'] / seen['px']:.1%} of all")
    print(f"  sound replaced         {seen['sound_covered_ms'] / max(ms, 1):.1%} of {ms / 1e3:.0f} s")
    print(f"  speech replaced        {seen['speech audible replaced']} of {seen['speech audible']} instants at which "
          f"it is at most 12 dB under the rest, {seen['speech replaced']} of {seen['speech any']} of all")  # fmt: skip
    for name in EVENTS:
        was, still, there = (seen[f"{name} {when}"] for when in ("before", "after", "there"))
        false = seen[f"{name} false before"], seen[f"{name} false after"]
        print(f"  {name:<8} heard        {was} of {there} instants before, {still} after; false {false[0]}, {false[1]}")
    print(f"  speech still said      {seen['speech after']} of {seen['speech there']} (before {seen['speech before']})")
    print(f"  scene tags             {seen['tags kept']} of {seen['tags']} the same")
    print(f"  objects                {seen['objects after']} after, {seen['objects before']} before")
    print(f"  CPU                    {seen['cpu_us'] / 1e3 / seen['pictures']:.2f} ms a picture, "
          f"{seen['cpu_us'] / 1e3 / (count * seconds):.1f} ms a second of clip; "
          f"bytes {seen['bytes_after'] / seen['bytes_before']:.2f} of before")  # fmt: skip
    return dict(seen)


def roadfuse(words: list[str]) -> None:
    """One command, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert command(words) == 0


def _pictures(path: Path) -> Iterator[tuple[int, bytes]]:
    with DriveReader(path) as drive:
        for message in drive.messages([topics.CAMERA]):
            yield message.capture_ns, CompressedImage.FromString(message.payload).data


def _heads_and_plates(run: Path, out: Path, seen: Counter[str]) -> None:
    with DriveReader(run) as drive:
        truths = {m.capture_ns: GroundTruth.FromString(m.payload) for m in drive.messages([topics.TRUTH])}
    for (stamp_ns, before), (_, after) in zip(_pictures(run), _pictures(out)):
        if not after:
            continue
        was, now = codec.decode_jpeg(before), codec.decode_jpeg(after)
        covered = _covered(was, now)
        seen["px"] += covered.size
        seen["px_covered"] += int(covered.sum())
        for thing in truths[stamp_ns].objects if stamp_ns in truths else ():
            for what, box in _secrets(thing, *was.shape[:2]):
                left, top, right, bottom = box
                part = covered[top:bottom, left:right]
                seen[f"{what} there"] += 1
                seen[f"{what} covered"] += int(part.size > 0 and part.mean() >= 0.9)


def _covered(was: np.ndarray[Any, Any], now: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Blocks of 16 pixels that are flat now, to within JPEG's error."""
    height, width = (size // 16 * 16 for size in now.shape[:2])
    blocks = now[:height, :width].reshape(height // 16, 16, width // 16, 16, 3).astype(np.int16)
    flat = (blocks.max(axis=(1, 3)) - blocks.min(axis=(1, 3))).max(axis=-1) <= 12
    old = was[:height, :width].reshape(height // 16, 16, width // 16, 16, 3).astype(np.int16)
    changed = np.abs(old - blocks).mean(axis=(1, 3, 4)) > 1.5
    return np.repeat(np.repeat(flat & changed, 16, axis=0), 16, axis=1)


def _secrets(thing: TrueObject, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Heads and plates of a true object, by its proportions, in whole pixels."""
    left, top, width, height = thing.left_px, thing.top_px, thing.width_px, thing.height_px
    inside = left > 1 and top > 1 and left + width < columns - 1
    if thing.visibility < 0.5 or not inside:
        return
    middle = left + width / 2
    if thing.kind == "pedestrian" and 0.15 * height >= 4:
        box = int(middle - 0.06 * height), int(top), int(middle + 0.06 * height), int(top + 0.15 * height)
        yield "head of 4 px", box
        if 0.15 * height >= 8:
            yield "head of 8 px", box
    elif thing.kind == "vehicle" and width >= 64 and top + height < rows - 1:
        yield "plate", (
            int(middle - 0.15 * width), int(top + 0.7 * height), int(middle + 0.15 * width), int(top + 0.95 * height)
        )  # fmt: skip


def _compared(run: Path, again: Path, seen: Counter[str]) -> None:
    """What the loop says of the redacted drive against what it said of the recorded one."""
    with DriveReader(run) as drive:
        truths = {m.capture_ns: GroundTruth.FromString(m.payload) for m in drive.messages([topics.TRUTH])}
        before = {m.capture_ns: Decision.FromString(m.payload) for m in drive.messages([topics.DECISION])}
    with DriveReader(again) as drive:
        after = {m.capture_ns: Decision.FromString(m.payload) for m in drive.messages([topics.DECISION])}
    least = bundles.load().thresholds
    tags = bundles.load().heads["scene_tags"]
    sounds = dict(zip(bundles.load().heads["sound_events"], least["sound_events"]))
    for stamp_ns, was in before.items():
        now, truth = after.get(stamp_ns), truths.get(stamp_ns)
        if now is None or truth is None:
            continue
        true = {sound.name for sound in truth.sounds if sound.prominence_db > -6}
        for name, limit in sounds.items():
            said = [_of(decision.sound_events, name) >= limit for decision in (was, now)]
            if name in true:
                seen[f"{name} there"] += 1
                seen[f"{name} before"] += said[0]
                seen[f"{name} after"] += said[1]
            else:
                seen[f"{name} false before"] += said[0]
                seen[f"{name} false after"] += said[1]
        for tag, limit in zip(tags, least["scene_tags"]):
            seen["tags"] += 1
            seen["tags kept"] += (_of(was.scene_tags, tag) >= limit) == (_of(now.scene_tags, tag) >= limit)
        seen["objects before"] += len(was.objects)
        seen["objects after"] += len(now.objects)
    _speech_replaced(run, again, truths, seen)


def _speech_replaced(run: Path, again: Path, truths: dict[int, GroundTruth], seen: Counter[str]) -> None:
    with DriveReader(run) as old, DriveReader(again) as new:
        pairs = zip(old.messages([topics.AUDIO]), new.messages([topics.AUDIO]))
        changed = {was.capture_ns // 100_000_000: was.payload != now.payload for was, now in pairs}
    for stamp_ns, truth in truths.items():
        if any(sound.name == "speech" for sound in truth.sounds):
            seen["speech any"] += 1
            seen["speech replaced"] += changed.get(stamp_ns // 100_000_000, False)
        if any(sound.name == "speech" and sound.prominence_db > -12 for sound in truth.sounds):
            seen["speech audible"] += 1
            seen["speech audible replaced"] += changed.get(stamp_ns // 100_000_000, False)


def _of(tags: Any, name: str) -> float:
    return next((tag.probability for tag in tags if tag.name == name), 0.0)


def faces(work: Path) -> dict[str, Any]:
    """Real talkers' faces, as large as they are and smaller, found by ultraface and covered."""
    import av
    import cv2

    looker = _looker(work, "ultraface/version-RFB-320.onnx", "ultraface")
    own = Looker(bundles.load())
    found: Counter[str] = Counter()
    begun, calls = time.process_time(), 0
    for path in sorted((DATA / "av/grid").glob("*.mpg")):
        with av.open(str(path)) as video:
            pictures = [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)][::15]
        for picture in pictures:
            truth = max(looker.find(picture), key=lambda box: box.right - box.left)
            for share in (1.0, 0.5, 0.25, 0.15, 0.1):
                small = cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
                street = np.full((480, 640, 3), 110, np.uint8)
                street[100 : 100 + small.shape[0], 200 : 200 + small.shape[1]] = small
                middle = 200 + share * (truth.left + truth.right) / 2, 100 + share * (truth.top + truth.bottom) / 2
                height = share * (truth.bottom - truth.top)
                calls += 1
                boxes = looker.find(street)
                found[f"{height // 10 * 10:.0f} there"] += 1
                found[f"{height // 10 * 10:.0f} found"] += any(
                    box.left < middle[0] < box.right and box.top < middle[1] < box.bottom for box in boxes
                )
                found[f"{height // 10 * 10:.0f} own"] += any(
                    box.name == "pedestrian" and box.left < middle[0] < box.right and box.top < middle[1] < box.bottom
                    for box in own.find(street)
                )
    print("\nreal faces (GRID talkers, set into a grey picture of 640x480), by height of the face")
    for size in sorted({int(name.split()[0]) for name in found}):
        there = found[f"{size} there"]
        print(f"  {size:>4} px and more: ultraface {found[f'{size} found']} of {there}, "
              f"the reference bundle {found[f'{size} own']}")  # fmt: skip
    print(f"  CPU {1e3 * (time.process_time() - begun) / calls:.1f} ms a picture, both detectors")
    return dict(found)


def streets(work: Path) -> dict[str, Any]:
    """Real people and cars in CamVid's labelled pictures, covered by boxes alone: nothing is joined in time."""
    import cv2

    lookers = {
        "reference": [Looker(bundles.load())],
        "FastestDet": [_looker(work, "fastestdet/FastestDet.onnx", "fastestdet")],
    }
    lookers["FastestDet and ultraface"] = [
        *lookers["FastestDet"], _looker(work, "ultraface/version-RFB-320.onnx", "ultraface"),
    ]  # fmt: skip
    found: Counter[str] = Counter()
    paths = sorted((DATA / "noncommercial/camvid").glob("*/image/*.png"))
    for path in paths:
        image, labels = cv2.imread(str(path)), cv2.imread(str(path.parents[1] / "label" / path.name), 0)
        assert image is not None and labels is not None
        for name, eyes in lookers.items():
            covered = np.zeros(labels.shape, np.bool_)
            boxes = sane(box for looker in eyes for box in looker.find(np.asarray(image, np.uint8)))
            regions = [region for box in boxes if (region := region_of(box, labels.shape[0])) is not None]
            for left, top, right, bottom in rectangles(regions, labels.shape[1], labels.shape[0]):
                covered[top:bottom, left:right] = True
            found[f"{name} px"] += int(1000 * covered.mean() / len(paths))
            for what, label, least, first, last in (("person", 9, 40, 0.0, 0.17), ("car", 8, 64, 0.6, 1.0)):
                count, things, boxes_px, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8))
                for at in range(1, count):
                    x, y, width, height, _ = boxes_px[at].tolist()
                    if (height < least or width > height) if what == "person" else width < least:
                        continue
                    rows, columns = slice(y + int(first * height), y + int(last * height) + 1), slice(x, x + width)
                    found[f"{name} {what} there"] += 1
                    found[f"{name} {what}"] += covered[rows, columns][things[rows, columns] == at].mean() >= 0.9
    print(f"\nreal streets (CamVid, {len(paths)} pictures of 480x360): heads and lower parts covered")
    for name in lookers:
        people, cars = (f"{found[f'{name} {what}']} of {found[f'{name} {what} there']}" for what in ("person", "car"))
        print(f"  {name:<26} people {people}, cars {cars}; {found[f'{name} px'] / 10:.0f} % of all pixels")
    return {name: int(count) for name, count in found.items()}


def _looker(work: Path, model: str, kind: str) -> Looker:
    bundle = work / kind
    if not bundle.exists():
        roadfuse(["import-model", str(DATA / "models" / model), "--as", kind, "--out", str(bundle), "--json"])
    return Looker(bundles.load(bundle))


def voices() -> dict[str, Any]:
    """How much of the changes that make words is left of real speech, and where the rule hears voices."""
    import soundfile

    figures: dict[str, Any] = {}
    print("\nreal voices: correlation of what changes 2 to 16 times a second, before and after, by octave")
    names = ["audio/jfk/jfk.flac", *(str(path.relative_to(DATA)) for path in sorted(
        (DATA / "audio/librispeech").glob("*.ogg")))]  # fmt: skip
    for name in names:
        sound, rate_hz = soundfile.read(DATA / name, dtype="float32", always_2d=True)
        sound = sound[:, 0].copy()
        begun = time.process_time()
        share = float(voiced(sound, 0, 0, len(sound), rate_hz).mean())
        made = wordless(Disguise(rate_hz, 1), sound, 0, 0, len(sound), rate_hz)
        cpu_ms = 1e3 * (time.process_time() - begun) / (len(sound) / rate_hz)
        left = [round(value, 2) for value in correlation(sound, made, rate_hz)]
        figures[name] = {"correlation": left, "heard_by_rule": share, "cpu_ms_per_s": cpu_ms}
        print(f"  {name:<44} {left}, the rule hears {share:.0%}, CPU {cpu_ms:.1f} ms a second")
    figures["in_noise"] = _in_noise(names)
    for kind in ("esc10/rain", "esc10/helicopter", "esc10/chainsaw", "sonyc", "fsdd"):
        shares = []
        for path in sorted((DATA / "audio" / kind).iterdir()):
            if path.suffix in (".wav", ".ogg", ".flac"):
                sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
                shares.append(float(voiced(sound[:, 0].copy(), 0, 0, len(sound), rate_hz).mean()))
        figures[kind] = float(np.mean(shares))
        print(f"  {kind:<44} the rule hears a voice in {np.mean(shares):.0%} of {len(shares)} clips' time")
    return figures


def _in_noise(names: list[str]) -> dict[str, list[float]]:
    """Share of real speech that the rule hears in real noise, by how much louder the speech is."""
    talk = [_at_16_khz(DATA / name) for name in names]
    shares = {}
    for noise in ("sonyc/02_027672.wav", "sonyc/29_027704.wav", "esc10/rain/1-17367-A.ogg"):
        other = _at_16_khz(DATA / "audio" / noise)
        other = other / np.sqrt(np.mean(other**2))
        shares[noise] = []
        for louder_db in (10, 5, 0, -5):
            heard = []
            for sound in talk:
                level = np.sqrt(np.mean(sound**2)) * 10 ** (-louder_db / 20)
                mixed = (sound + level * np.resize(other, len(sound))).astype(np.float32)
                heard.append(float(voiced(mixed, 0, 0, len(mixed), 16_000).mean()))
            shares[noise].append(float(np.mean(heard)))
        said = ", ".join(f"{share:.0%}" for share in shares[noise])
        print(f"  speech 10, 5, 0, -5 dB over {noise:<26} the rule hears {said}")
    return shares


def _at_16_khz(path: Path) -> Any:
    import soundfile

    sound, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
    pcm = np.ascontiguousarray(sound[:, 0])
    return (resampled(pcm, len(pcm) * 16_000 // rate_hz) / 32768).astype(np.float32)


def correlation(before: Any, after: Any, rate_hz: int) -> list[float]:
    """Of the levels of octaves, of what changes 2 to 16 times a second."""
    changes = [_changes(sound, rate_hz) for sound in (before, after)]
    return [float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-30)) for a, b in zip(*changes)]


def _changes(sound: Any, rate_hz: int) -> Any:
    size, hop = 2 * int(rate_hz * 0.0125), int(rate_hz * 0.01)
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop] * np.hanning(size)
    power, hz = np.abs(np.fft.rfft(frames, axis=1)) ** 2, np.fft.rfftfreq(size, 1 / rate_hz)
    levels = np.array([np.sqrt(power[:, (hz >= low) & (hz < high)].sum(axis=1)) for low, high in SPEECH_BANDS_HZ])
    spectrum = np.fft.rfft(levels - levels.mean(axis=1, keepdims=True), axis=1)
    rate = np.fft.rfftfreq(levels.shape[1], 0.01)
    spectrum[:, (rate < 2) | (rate > 16)] = 0
    return np.fft.irfft(spectrum, levels.shape[1], axis=1)


if __name__ == "__main__":
    raise SystemExit(main())
