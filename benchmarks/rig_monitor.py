"""How soon a knocked rig is noticed, how often a sound one is doubted, and what watching costs; figures as JSON.

Drives are rendered at two instants a second, as often as the monitor compares, with sweeps at, 50 ms before and 50 ms
after each picture; their evidence is gathered with the sound rig and with each fault planted (the pose turned or moved,
the other sweeps taken for this one). Faults begin after 15 s and after 45 s of driving. False alarms are those of the
drives' own evidence, counted drive by drive, and drawn with replacement into sequences of 10 hours.

    python benchmarks/rig_monitor.py [--lidar-columns N --lidar-rings N] [--quick] [--drives N] [--faulty N]
                                     [--first-seed N] [--cache DIR] [--kitti DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.alignment.projection import Rig
from edge.alignment.range_edges import FINE_RAD
from edge.alignment.rig_evidence import AXES, SEEN_SHAPE, STEPS, evidence
from edge.alignment.rig_monitor import KEPT, LEAST_WAY_M, RigMonitor, Verdict
from edge.samples import Frame, Sweep
from export.world.camera.camera import Camera
from export.world.camera.lens import Lens
from export.world.journey import undertake
from export.world.lidar import AZIMUTHS, HIGHEST_RAD, LOWEST_RAD, RINGS, Lidar
from export.world.motion import Motion
from export.world.rig import messages
from export.world.scenario import SCENARIOS, compose
from export.world.scene import Stage
from export.world.scenery import build_scenery
from export.world.town import town, town_of
from export.world.weather import Weather

WIDTH_PX, HEIGHT_PX = 640, 384
PICTURES_HZ = 2.0
FIRST_SEED = 21000
LATE_MS = (0, -50, 50)
COARSE = (AZIMUTHS, RINGS)
AHEAD_RAD = 0.72  # a dense sweep is cast that far to either side only; the picture reaches 0.57 rad
PER_M = 512.0  # ranges lie in the cache as 16 bits: 2 mm where the noise is 15 mm
SOON_S, LATER_S = 10.0, 30.0
BEGINS_S = (15, 45)
KITTI = Path(__file__).resolve().parents[2] / "shared/data/noncommercial/kitti-2011_09_26"
FAULTS = [(axis, sign * step) for axis, step in zip(AXES, STEPS, strict=True) for sign in (1.0, -1.0)]


@dataclass(frozen=True, slots=True)
class Drive:
    """What the monitor sees of a drive, twice a second.

    motion: (n, 3) s, m/s, rad/s. sweeps: by lateness in ms; of the part ahead of the vehicle, without intensities.
    """

    what: str
    motion: NDArray[np.float64]
    pictures: list[NDArray[np.uint8]]
    sweeps: dict[int, list[NDArray[np.float32]]]


def rendered(seed: int, seconds: float, rays: tuple[int, int], late_ms: tuple[int, ...]) -> dict[str, Any]:
    """The arrays that `Drive` is made of, as they lie in the cache."""
    name = SCENARIOS[seed % len(SCENARIOS)]
    scenario = compose(seed, "mixed" if name == "demo" else name, seconds, None, None)
    place = town(town_of(seed))
    journey = undertake(seed, place, scenario, seconds)
    weather, motion = Weather(seed, scenario), Motion(seed, journey.road, journey.ego)
    stage = Stage(journey, build_scenery(seed, place, scenario, journey), weather, motion)
    camera = Camera(seed, place, journey, weather, WIDTH_PX, HEIGHT_PX)
    lidar = Lidar(seed) if rays == COARSE else Lidar(seed, *rays, camera.drawn, AHEAD_RAD)
    moved: list[tuple[float, float, float]] = []
    jpegs: list[NDArray[np.uint8]] = []
    sweeps: dict[int, list[NDArray[np.uint16]]] = {late: [] for late in late_ms}
    for n in range(int(seconds * PICTURES_HZ)):
        time_s = 0.1 + n / PICTURES_HZ
        scene = stage.at(time_s)
        grey = cv2.cvtColor(camera.render(scene, round(time_s * 20)).picture, cv2.COLOR_BGR2GRAY)
        jpegs.append(np.asarray(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]).ravel())
        for late in late_ms:
            points = lidar.sweep(
                scene if late == 0 else stage.at(time_s + late / 1000), round(time_s * 10) * 1000 + late
            )
            sweeps[late].append(packed(points[(points[:, 0] > 0.5) & (np.abs(points[:, 1]) < points[:, 0])], rays))
        moved.append((time_s, scene.pose.speed_mps, scene.pose.yaw_rate_radps))
    arrays: dict[str, Any] = {
        "what": np.array([name, scenario.weather, scenario.lights[0][1]]), "motion": np.array(moved),
        "jpeg": np.concatenate(jpegs), "jpeg_n": np.array([len(jpeg) for jpeg in jpegs]),
    }  # fmt: skip
    return arrays | {f"late{late}": np.stack(sweeps[late]) for late in late_ms}


def packed(points: NDArray[np.float32], rays: tuple[int, int]) -> NDArray[np.uint16]:
    """(rings, about columns / 4) ranges ahead, 0 where nothing is met; the world's rays lie on an even grid."""
    columns, rings = rays
    first = 3 * columns // 8
    range_m = np.linalg.norm(points[:, :3], axis=1)
    column = np.rint((np.arctan2(points[:, 1], points[:, 0]) / (2.0 * np.pi) + 0.5) * columns - 0.5).astype(int)
    rise = (HIGHEST_RAD - LOWEST_RAD) / (rings - 1)
    ring = np.rint((np.arcsin(points[:, 2] / range_m) - LOWEST_RAD) / rise).astype(int)
    ranges = np.zeros((rings, columns - 2 * first), np.uint16)
    ranges[ring, column - first] = np.rint(range_m * PER_M)
    return ranges


def unpacked(ranges: NDArray[np.uint16], rays: tuple[int, int]) -> NDArray[np.float32]:
    """(n, 4) points ring by ring."""
    columns, rings = rays
    ring, column = np.nonzero(ranges)
    azimuth = ((column + 3 * columns // 8 + 0.5) / columns - 0.5) * 2.0 * np.pi
    elevation = LOWEST_RAD + ring * (HIGHEST_RAD - LOWEST_RAD) / (rings - 1)
    level = np.cos(elevation)
    ahead = np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation), np.zeros(len(ring))], axis=1)
    return (ahead * (ranges[ring, column] / PER_M)[:, None]).astype(np.float32)


def drive_of(
    seed: int, seconds: float, cache: Path | None, rays: tuple[int, int] = COARSE, late_ms: tuple[int, ...] = LATE_MS
) -> Drive:
    """A rendered drive, from the cache where it lies there."""
    path = cache / f"drive-{seed}-{rays[1]}x{rays[0]}-{len(late_ms)}.npz" if cache else None
    if path and path.exists():
        arrays = dict(np.load(path))
    else:
        arrays = rendered(seed, seconds, rays, late_ms)
        if path:
            np.savez(path, **arrays)
    jpegs = np.split(arrays["jpeg"], np.cumsum(arrays["jpeg_n"])[:-1])
    pictures = [np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE), np.uint8) for jpeg in jpegs]
    sweeps = {late: [unpacked(ranges, rays) for ranges in arrays[f"late{late}"]] for late in late_ms}
    return Drive(" ".join(arrays["what"]), arrays["motion"], pictures, sweeps)


def world_rig(rays: tuple[int, int] = COARSE) -> Rig:
    """The rig of every drive of the world with such a LiDAR."""
    (_, calibration), *poses = messages(Lens(WIDTH_PX, HEIGHT_PX), 0, 0.0 if rays == COARSE else 0.5)
    return Rig.from_messages(calibration, [message for _, message in poses])  # type: ignore[arg-type,misc]


def planted(rig: Rig, axis: str, amount: float) -> Rig:
    """The calibration that is wrong by a fault: the LiDAR really is where this rig, moved by `amount`, says."""
    number = AXES.index(axis)
    turn, shift = np.zeros(3), np.zeros(3)
    if axis.endswith("_deg"):
        turn[number] = np.radians(amount)
    elif axis.endswith("_cm"):
        shift[number - 3] = 0.01 * amount
    step = np.eye(4)
    step[:3, :3], step[:3, 3] = cv2.Rodrigues(turn)[0], shift
    return rig.moved(np.linalg.inv(step))


def gathered(drive: Drive, rig: Rig, late_ms: int = 0) -> NDArray[np.float64]:
    """(n, KINDS, FAULTS) evidence of a drive's comparisons, those at a standstill left out."""
    seen, found = np.zeros(SEEN_SHAPE, np.float32), []
    # a sweep whose stamp is 50 ms late shows what was 50 ms before
    for points, picture, (_, speed, yaw_rate) in zip(drive.sweeps[-late_ms], drive.pictures, drive.motion.tolist()):
        if speed / PICTURES_HZ >= LEAST_WAY_M:
            found.append(evidence(rig, points, picture, 0.0, speed, yaw_rate, seen)[0])
    return np.array(found).reshape(-1, *evidence_shape())


def evidence_shape() -> tuple[int, int]:
    return Verdict().freeze()["ratios"].shape[1:]


def alarms_in(ratios: NDArray[np.float64], is_fine: bool) -> list[str]:
    """The axes of the alarms that a stretch of evidence raises."""
    verdict, raised, doubted = Verdict(is_fine), [], False
    for number, one in enumerate(ratios):
        reading = verdict.add(one, number)
        if reading.is_in_doubt and not doubted:
            raised.append(reading.axis)
        doubted = reading.is_in_doubt
    return raised


def noticed(before: NDArray[np.float64], after: NDArray[np.float64], is_fine: bool) -> tuple[float, str] | None:
    """Seconds of driving until a fault is noticed, and as which axis then; None if it is not, or was doubted before."""
    verdict = Verdict(is_fine)
    for number, one in enumerate(before):
        verdict.add(one, number)
    if verdict.reading.is_in_doubt:
        return None
    for number, one in enumerate(after):
        if verdict.add(one, len(before) + number).is_in_doubt:
            return (number + 1) / PICTURES_HZ, verdict.reading.axis
    return None


def faults_figures(
    sound: list[NDArray[np.float64]], faulty: dict[tuple[str, float], list[NDArray[np.float64]]], is_fine: bool
) -> dict[str, Any]:
    """By fault: share noticed within 10 and 30 s of driving, median seconds of the latter, share named rightly."""
    figures, length = {}, round(LATER_S * PICTURES_HZ)
    for (axis, amount), drives in faulty.items():
        found = [
            noticed(clean[max(begin - KEPT, 0) : begin], broken[begin : begin + length], is_fine)
            for clean, broken in zip(sound, drives, strict=True)
            for begin in (round(s * PICTURES_HZ) for s in BEGINS_S)
            if len(clean) >= begin + length
        ]
        hits = [hit for hit in found if hit is not None]
        figures[f"{axis} {amount:+g}"] = {
            "trials": len(found),
            "within_10_s": round(sum(hit[0] <= SOON_S for hit in hits) / max(len(found), 1), 2),
            "within_30_s": round(len(hits) / max(len(found), 1), 2),
            "median_s": float(np.median([hit[0] for hit in hits])) if hits else None,
            "named": round(float(np.mean([hit[1] == axis for hit in hits])), 2) if hits else None,
        }
    return figures


def false_alarm_figures(sound: list[NDArray[np.float64]], is_fine: bool) -> dict[str, Any]:
    """Alarms of sound rigs: as driven, and in sequences of 10 h drawn from whole drives with a fixed seed."""
    raised = [alarms_in(ratios, is_fine) for ratios in sound]
    hours = np.array([len(ratios) / PICTURES_HZ / 3600.0 for ratios in sound])
    counts, rng = np.array([len(axes) for axes in raised]), np.random.default_rng(0)
    runs = []
    for _ in range(2000):
        order = rng.integers(len(hours), size=int(30.0 / max(float(hours.mean()), 1e-6)))
        runs.append(counts[order[: int(np.searchsorted(hours[order].cumsum(), 10.0)) + 1]].sum())
    return {
        "hours_driven": round(float(hours.sum()), 2),
        "alarms": int(counts.sum()),
        "axes": sorted(axis for axes in raised for axis in axes),
        "mean_in_10_h": round(float(np.mean(runs)), 2),
        "share_of_10_h_with_at_most_one": round(float(np.mean(np.array(runs) <= 1)), 3),
    }


def cost_figures(drive: Drive, rig: Rig, cycles: int) -> dict[str, float]:
    """CPU time of RigMonitor.update over all frames of a camera at 20 Hz, sweeps at 10 Hz."""
    colours = [cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) for picture in drive.pictures]
    behind, copies = drive.sweeps[0], 4 if len(drive.sweeps[0][0]) > 5000 else 3
    monitor, taken, compared, frames = RigMonitor(rig), 0.0, 0.0, 0
    for cycle in range(cycles):
        for number, picture in enumerate(colours):
            points = np.concatenate([behind[number]] * copies)  # about a whole revolution
            points[len(behind[number]) :, 0] *= -1.0
            speed, yaw_rate = max(float(drive.motion[number, 1]), 5.0), float(drive.motion[number, 2])
            for sub in range(
                10
            ):  # the sweep changes with every second frame, the picture with none: only the work counts
                stamp_ns = ((cycle * len(colours) + number) * 10 + sub) * 50_000_000
                frame = Frame(stamp_ns, 0, np.asarray(picture, np.uint8))
                sweep = Sweep(stamp_ns - stamp_ns % 100_000_000, 0, points)
                begin = time.process_time()
                monitor.update(frame, sweep, speed, yaw_rate)
                spent = time.process_time() - begin
                taken, frames, compared = taken + spent, frames + 1, max(compared, spent)
    return {
        "ms_a_frame": round(1e3 * taken / frames, 3),
        "slowest_frame_ms": round(1e3 * compared, 2),
        "frames": frames,
        "points_a_sweep": len(points),
    }


def kitti_frames(folder: Path) -> Iterator[tuple[Rig, NDArray[np.float32], NDArray[np.uint8]]]:
    """Rig, sweep and picture of the three frames that have both; rectified pictures of the left colour camera."""
    rows = {
        line.split(":")[0]: np.array(line.split(":")[1].split(), np.float64)
        for line in (folder / "calib.txt").read_text().splitlines()
        if ":" in line and not line.startswith("#")
    }
    lens = rows["P_rect_00"].reshape(3, 4)
    rectified_SE3_cam, cam_SE3_lidar = np.eye(4), np.eye(4)
    rectified_SE3_cam[:3, :3] = rows["R_rect_00"].reshape(3, 3)
    cam_SE3_lidar[:3, :3], cam_SE3_lidar[:3, 3] = rows["R"].reshape(3, 3), rows["T"]
    pose = rectified_SE3_cam @ cam_SE3_lidar
    left, _, right = np.linalg.svd(pose[:3, :3])
    pose[:3, :3] = left @ right  # the file's six digits are no exact rotation
    for path in sorted((folder / "velodyne_points/data").glob("*.bin")):
        picture = np.asarray(cv2.imread(str(folder / f"image_02/data/{path.stem}.png")), np.uint8)
        rig = Rig(lens[0, 0], lens[1, 1], lens[0, 2], lens[1, 2], picture.shape[1], picture.shape[0], pose)
        yield rig, np.fromfile(path, np.float32).reshape(-1, 4), picture


def kitti_figures(folder: Path) -> dict[str, Any]:
    """Per planted fault: what the frames together say for it against "as calibrated", and CPU time a comparison."""
    if not folder.is_dir():
        return {"skipped": f"no folder {folder}"}
    frames, figures, spent = list(kitti_frames(folder)), {}, []
    for axis, amount in [("", 0.0), *(fault for fault in FAULTS if fault[0] != "late_ms")]:
        total = np.zeros(evidence_shape())
        for rig, points, picture in frames:
            begin = time.process_time()
            wrong = planted(rig, axis, amount) if axis else rig
            total += evidence(wrong, points, picture, 0.0, 0.0, 0.0, np.zeros(SEEN_SHAPE, np.float32))[0]
            spent.append(time.process_time() - begin)
        said = total.sum(axis=0)
        if not axis:
            figures["sound"] = {f"{a} {s:+g}": round(float(v), 1) for (a, s), v in zip(FAULTS, said, strict=True)}
            continue
        best = FAULTS[int(said.argmax())]
        own = float(said[FAULTS.index((axis, amount))])
        figures[f"{axis} {amount:+g}"] = {
            "own": round(own, 1),
            "best": f"{best[0]} {best[1]:+g}" if said.max() > 0 else "none",
        }
    return {"frames": len(frames), "ms_a_comparison": round(1e3 * float(np.median(spent)), 2), **figures}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Detection, false alarms and cost of the rig monitor.")
    parser.add_argument("--quick", action="store_true", help="4 drives of 60 s: shows that all runs, measures little")
    parser.add_argument("--drives", type=int, default=90, help="of 120 s each")
    parser.add_argument("--faulty", type=int, default=45, help="that many of them with planted faults, too")
    parser.add_argument("--lidar-columns", type=int, default=AZIMUTHS, help=f"rays around (default {AZIMUTHS})")
    parser.add_argument("--lidar-rings", type=int, default=RINGS, help=f"rays upward (default {RINGS})")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--cache", type=Path, help="folder in which rendered drives are kept (10 to 30 MB)")
    parser.add_argument("--kitti", type=Path, default=KITTI)
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    drives, seconds = (4, 60.0) if options.quick else (options.drives, 120.0)
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
    rays = (options.lidar_columns, options.lidar_rings)
    rig, sound, is_fine = world_rig(rays), [], 2.0 * np.pi / options.lidar_columns < FINE_RAD
    faulty: dict[tuple[str, float], list[NDArray[np.float64]]] = {fault: [] for fault in FAULTS}
    cost: dict[str, float] = {}
    for number in range(drives):
        late = LATE_MS if number < options.faulty else (0,)
        drive = drive_of(options.first_seed + number, seconds, options.cache, rays, late)
        sound.append(gathered(drive, rig))
        for (axis, amount), found in faulty.items() if number < options.faulty else ():
            late_ms = round(amount) if axis == "late_ms" else 0
            found.append(gathered(drive, planted(rig, axis, amount), late_ms))
        if number == min(2, drives - 1):
            cost = cost_figures(drive, rig, 1)
        print(f"{number + 1}/{drives} {drive.what}", file=sys.stderr, flush=True)
    figures = {
        "false_alarms": false_alarm_figures(sound, is_fine),
        "faults": faults_figures(sound[: options.faulty], faulty, is_fine),
        "cost": cost,
        "kitti": kitti_figures(options.kitti),
    }
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
