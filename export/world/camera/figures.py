"""People as limbs: tapered strips that turn towards the camera, swung by their own stride."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from export.world.camera.model import Builder, Colour, Model
from export.world.town import Look

SKINS: tuple[Colour, ...] = ((150, 180, 225), (115, 150, 200), (80, 115, 165), (50, 75, 115))


def person(
    look: int, height_m: float, stride_m: float, intent: str, bearing_rad: float, view_rad: float, style: Look
) -> Model:
    """A person in the levelled ego's axes, origin at the feet.

    Args:
        intent: walks, waits, will_cross or crosses; who is about to cross stands on their toes with an arm held out
            to the traffic, so that the intent can be seen.
        stride_m: distance walked so far; swings the limbs.
        bearing_rad: the way they face, in the ego frame.
        view_rad: direction from the camera to them, in the ego frame; strips lie across it.
    """
    rng = np.random.Generator(np.random.PCG64(look))
    skin, top = SKINS[int(rng.integers(len(SKINS)))], style.clothes[int(rng.integers(len(style.clothes)))]
    legs, hair = style.trousers[int(rng.integers(len(style.trousers)))], tuple(float(c) for c in rng.uniform(20, 95, 3))
    if rng.random() < style.hats:
        hair = style.clothes[int(rng.integers(len(style.clothes)))]
    moving, signals = intent in ("walks", "crosses"), intent == "will_cross"
    h = height_m
    swing = 0.42 * math.sin(2 * math.pi * stride_m / (0.8 * h)) if moving else 0.05
    forward = np.array([math.cos(bearing_rad), math.sin(bearing_rad), 0.0])
    left = np.array([-forward[1], forward[0], 0.0])
    across = np.array([math.sin(view_rad), -math.cos(view_rad), 0.0])
    broad = abs(float(left @ across))
    b = Builder()

    def limb(a: NDArray[np.float64], c: NDArray[np.float64], wide_a: float, wide_c: float, colour: Colour) -> None:
        da, dc = across * (0.5 * wide_a * h), across * (0.5 * wide_c * h)
        b.face([_t(a - da), _t(a + da), _t(c + dc), _t(c - dc)], colour, two_sided=True)

    hip, neck = np.array([0.0, 0.0, 0.50 * h]), np.array([0.0, 0.0, 0.83 * h])
    for side, phase in ((1.0, 1.0), (-1.0, -1.0)):
        foot = left * (0.045 * h * side) + forward * (0.42 * h * math.sin(swing * phase))
        foot = foot + np.array([0.0, 0.0, 0.03 * h + 0.03 * h * max(0.0, phase * swing)])
        knee = 0.5 * (hip + left * (0.05 * h * side) + foot) + forward * (0.05 * h * abs(swing) * 2)
        darker: Colour = (legs[0] * 0.85, legs[1] * 0.85, legs[2] * 0.85)
        limb(hip + left * (0.05 * h * side), knee, 0.085, 0.07, legs if side > 0 else darker)
        limb(knee, foot, 0.07, 0.05, legs if side > 0 else darker)
        limb(
            foot - np.array([0.0, 0.0, 0.025 * h]) - forward * 0.02 * h,
            foot + forward * 0.06 * h,
            0.05,
            0.05,
            (30, 30, 30),
        )
    for side, phase in ((1.0, -1.0), (-1.0, 1.0)):
        shoulder = np.array([0.0, 0.0, 0.80 * h]) + left * (0.105 * h * side)
        hand = shoulder + forward * (0.30 * h * math.sin(swing * phase)) + np.array([0.0, 0.0, -0.33 * h])
        if signals and side > 0:
            hand = shoulder + forward * (0.30 * h) + np.array([0.0, 0.0, 0.12 * h])
        limb(shoulder, hand, 0.055, 0.04, (top[0] * 0.8, top[1] * 0.8, top[2] * 0.8))
    width = 0.15 + 0.11 * broad
    limb(hip - np.array([0.0, 0.0, 0.03 * h]), neck, width * 0.85, width, top)
    head = np.array([0.0, 0.0, 0.925 * h])
    angles = np.arange(8) * (math.pi / 4)
    ring = [head + across * (0.055 * h * math.cos(a)) + np.array([0.0, 0.0, 0.072 * h * math.sin(a)]) for a in angles]
    b.face([_t(p) for p in ring], skin, two_sided=True)
    facing_away = float(forward @ np.array([math.cos(view_rad), math.sin(view_rad), 0.0])) > 0.3
    cap = ring if facing_away else [ring[0], ring[1], ring[2], ring[3], ring[4]]
    b.face([_t(p) for p in cap], hair, two_sided=True)  # type: ignore[arg-type]
    return b.build()


def _t(p: NDArray[np.float64]) -> tuple[float, float, float]:
    return (float(p[0]), float(p[1]), float(p[2]))
