"""Augmentation of event frames: random changes that return new frames.

The frames of a sample show one scene. So all T frames, and both polarities, get the same change. Pixels that
enter from outside are 0. Each new pixel is a copy of one old pixel (the nearest neighbour), so that counts of
events stay whole numbers.
"""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np

CHANGES = ("identity", "shear_x", "translate_x", "translate_y", "rotate", "cutout")


def augment_frames(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return frames [n, T, H, W, 2], changed by Spikformer's policy for CIFAR10-DVS.

    Each sample is mirrored with probability ½. Then it gets one of six changes, all equally likely: none, a
    shear along x of up to ±0.3, a translation along x of up to ±5 pixels, the same along y, a rotation of up
    to ±30°, or a cutout of 0.1–11 % of the area. Strengths are continuous here; the authors' code draws one
    of 31 strengths.
    Raises ValueError for another shape.
    """
    if frames.ndim != 5:
        raise ValueError(f"augment_frames takes [n, T, H, W, 2], got {list(frames.shape)}")
    result = np.empty_like(frames)
    for i, sample in enumerate(frames):
        if rng.random() < 0.5:
            sample = sample[:, :, ::-1]
        result[i] = change(sample, rng.choice(CHANGES), rng)
    return result


def change(frames: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """Return the frames [..., H, W, 2] of one sample after one change of random strength.

    name: one of CHANGES; another name raises ValueError.
    """
    if name == "identity":
        return frames
    if name == "shear_x":
        return warp(frames, [[1, rng.uniform(-0.3, 0.3)], [0, 1]])
    if name == "translate_x":
        return warp(frames, shift=(rng.uniform(-5, 5), 0))
    if name == "translate_y":
        return warp(frames, shift=(0, rng.uniform(-5, 5)))
    if name == "rotate":
        angle = radians(rng.uniform(-30, 30))
        return warp(frames, [[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    if name == "cutout":
        return cutout(frames, rng.uniform(0.001, 0.11), rng)
    raise ValueError(f"no change {name!r}; there are {', '.join(CHANGES)}")


def warp(frames: np.ndarray, matrix=((1, 0), (0, 1)), shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Return frames [..., H, W, C] in which the pixel at r has moved to matrix·r + shift.

    r = (x, y), measured from the centre of the frame.    shift: (x, y) in pixels.

    The result is computed backwards: its pixel at r is the old pixel nearest to matrix⁻¹·(r − shift), or 0 if
    this place is outside. So all frames share one table of H·W places.
    """
    H, W = frames.shape[-3:-1]
    centre = np.array([(W - 1) / 2, (H - 1) / 2])
    here = np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1) - centre  # [H, W, 2] of (x, y)
    there = (here - shift) @ np.linalg.inv(matrix).T + centre
    x, y = np.floor(there + 0.5).astype(int).transpose(2, 0, 1)  # [H, W] each
    inside = (x >= 0) & (x < W) & (y >= 0) & (y < H)
    taken = frames[..., y * inside, x * inside, :]
    taken[..., ~inside, :] = 0
    return taken


def cutout(frames: np.ndarray, area: float, rng: np.random.Generator) -> np.ndarray:
    """Return frames [..., H, W, C] in which one square at a random place is set to 0.

    area: the area of the square, as a share of H·W.
    """
    H, W = frames.shape[-3:-1]
    side = min(max(round((area * H * W) ** 0.5), 1), H, W)
    top, left = rng.integers(0, H - side + 1), rng.integers(0, W - side + 1)
    result = frames.copy()
    result[..., top : top + side, left : left + side, :] = 0
    return result
