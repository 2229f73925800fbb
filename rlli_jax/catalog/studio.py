"""The built-in studio: real photographs, rendered by four providers in their own styles.

It lets the whole project run on real pictures without a download. The requests are photographs
that ship inside scikit-image; the providers are image pipelines, not generative models, and
stand where generative services stand in the paper. Pictures are painted when first looked at, kept
in the user's cache folder, and the same on every run; another processor or library version may
round single pixels differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image
from platformdirs import user_cache_path
from skimage import data, feature

from rlli_jax.catalog.pictures import Pixels, decode, shrink
from rlli_jax.errors import InputError
from rlli_jax.files import whole

Array = NDArray[np.float32]

LONG_SIDE = 512

_PHOTOGRAPHS: dict[str, Callable[[], Pixels]] = {
    "a cat looking at the camera": data.chelsea,
    "a portrait of an astronaut": data.astronaut,
    "a cup of coffee on a wooden table": data.coffee,
    "a rocket on the launch pad": data.rocket,
    "galaxies in deep space": data.hubble_deep_field,
    "a motorcycle in a workshop": lambda: data.stereo_motorcycle()[0],
}


@cache
def _photograph(request: str) -> Pixels:
    """The photograph behind a request: uint8 [H, W, 3], longer side at most LONG_SIDE."""
    return shrink(_PHOTOGRAPHS[request](), LONG_SIDE)


@cache
def render(request: str, provider: str) -> Pixels:
    """The photograph of a request in a provider's style: uint8 [H, W, 3], read-only."""
    kept = _cache_folder() / f"{provider}-{request.replace(' ', '-')}.png"
    try:
        pixels = decode(kept)
    except InputError:  # it is not there, or damaged
        pixels = paint(request, provider)
        _keep(pixels, kept)
    pixels.flags.writeable = False
    return pixels


def paint(request: str, provider: str) -> Pixels:
    """As :func:`render`, made anew."""
    rgb: Array = np.divide(_photograph(request), 255, dtype=np.float32)
    return (np.clip(_STYLES[provider](rgb), 0, 1) * 255).round().astype(np.uint8)


@cache
def _cache_folder() -> Path:
    """Named by all that pictures depend on, so that a new version paints anew."""
    libraries = [version(name) for name in ("numpy", "scipy", "scikit-image", "pillow")]
    painter = hashlib.sha256(Path(__file__).read_bytes() + " ".join(libraries).encode())
    return user_cache_path("rlli_jax") / "studio" / painter.hexdigest()[:16]


def _keep(pixels: Pixels, file: Path) -> None:
    """Write a PNG whole or not at all; without a writable folder it is painted again next time."""
    with suppress(InputError), whole(file) as partial:
        Image.fromarray(pixels).save(partial)


# The styles. Each maps float32 [H, W, 3] in [0, 1] to the same shape; clipping comes after.


def prism(rgb: Array) -> Array:
    """Vivid: richer colour, most where it was pale, with clear local contrast."""
    grey = _grey(rgb)
    light = grey + 0.3 * (grey - _blur(grey, 14)) + 0.35 * (grey - _blur(grey, 1))
    light = _contrast(np.clip(light, 0, 1), 0.35)
    tint = rgb - grey[..., None]
    strength = np.abs(tint).max(axis=2, keepdims=True)
    return light[..., None] + tint * (1.3 + 0.6 * np.exp(-((strength / 0.2) ** 2)))


def celluloid(rgb: Array) -> Array:
    """Muted film: faded blacks, warm cast with green-blue shadows, halation, grain, vignette."""
    grey = _grey(rgb)[..., None]
    film = grey + 0.68 * (rgb - grey)
    glow = _blur(np.clip(grey[..., 0] - 0.6, 0, None), 8)[..., None]
    film = _contrast(np.clip(film**0.85, 0, 1), 0.3)
    shadow = np.array([0.105, 0.125, 0.135], np.float32)
    highlight = np.array([0.985, 0.945, 0.84], np.float32)
    film = shadow + film * (highlight - shadow) + glow * np.array([0.3, 0.12, 0.03], np.float32)
    film = film * _vignette(rgb.shape, 0.3)
    midtones = 0.35 + 0.65 * 4 * grey * (1 - grey)
    return film + 0.022 * midtones * _grain(rgb.shape, 0.6)[..., None]


def gouache(rgb: Array) -> Array:
    """Painterly: broad touches on plain areas, fine ones on detail, highlights set on last.

    Two brushes, the finer where the picture departs from the broad one, as in Hertzmann,
    "Painterly rendering with curved brush strokes of multiple sizes", SIGGRAPH 1998.
    """
    broad, fine = _kuwahara(rgb, 2.4), _kuwahara(rgb, 1.2)
    missed = _blur(np.abs(rgb - broad).max(axis=2), 1.5)[..., None]
    detail = np.clip((missed - 0.035) / 0.09, 0, 1)
    paint = broad + detail * (fine - broad)
    highlights = np.dstack([_blur(rgb[..., c], 0.7) for c in range(3)]) - paint
    paint = paint + 1.3 * np.clip(highlights - 0.08, 0, None)
    grey = _grey(paint)[..., None]
    paint = grey + 1.25 * (paint - grey)
    plain = 1 - np.clip(1.6 * _blur(detail[..., 0], 6), 0, 0.8)[..., None]
    relief = plain * (0.012 + 0.045 * np.sqrt(np.clip(grey, 0, 1)))
    return paint + relief * _strokes(grey[..., 0])[..., None]


def noir(rgb: Array) -> Array:
    """Stark monochrome: as through a red filter, deep blacks, bright whites, fine grain."""
    grey = rgb @ np.array([0.55, 0.35, 0.10], np.float32)
    low, high = np.percentile(grey, [1, 99.7]).astype(np.float32)
    grey = np.clip((grey - low) / (high - low), 0, 1)
    grey = np.clip(grey + 0.4 * (grey - _blur(grey, 16)), 0, 1)
    grey = _contrast(grey, 0.9)
    grey = grey * _vignette(rgb.shape, 0.35)[..., 0]
    grey = grey + 0.015 * _grain(rgb.shape, 0.5)
    return np.repeat(grey[..., None], 3, axis=2)


_STYLES: dict[str, Callable[[Array], Array]] = {
    "Prism": prism,
    "Celluloid": celluloid,
    "Gouache": gouache,
    "Noir": noir,
}

PROVIDERS = tuple(_STYLES)
REQUESTS = tuple(_PHOTOGRAPHS)


def _blur(plane: Array, sigma: float) -> Array:
    return scipy.ndimage.gaussian_filter(plane, sigma, mode="nearest", truncate=3)


def _grey(rgb: Array) -> Array:
    """[H, W], Rec. 709 luma."""
    return rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32)


def _contrast(values: Array, amount: float) -> Array:
    """Blend values in [0, 1] towards the S-curve 3v² - 2v³."""
    return values + amount * (values * values * (3 - 2 * values) - values)


def _vignette(shape: tuple[int, ...], depth: float) -> Array:
    """[H, W, 1] factors: 1 in the middle, 1 - depth in the corners."""
    y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    radius = (x * x + y * y) / 2
    return (1 - depth * radius * radius * (3 - 2 * radius))[..., None].astype(np.float32)


def _grain(shape: tuple[int, ...], size: float) -> Array:
    """[H, W] noise of unit variance with grains of about ``size`` pixels; always the same."""
    noise = np.random.default_rng(0).standard_normal(shape[:2], dtype=np.float32)
    noise = _blur(noise, size)
    return noise / noise.std()


def _kuwahara(rgb: Array, radius: float) -> Array:
    """Edge-preserving smoothing with eight Gaussian windows around each pixel.

    Each pixel becomes the mean of the windows' means, weighted by their variance to the power
    -4, so flat windows win: Papari, Petkov & Campisi, "Artistic edge and corner enhancing
    smoothing", IEEE Trans. Image Processing 16 (2007), with round windows in place of sectors,
    which makes all eight of them shifts of one blurred picture.
    """
    mean = np.dstack([_blur(rgb[..., c], radius) for c in range(3)])
    square = np.dstack([_blur(rgb[..., c] ** 2, radius) for c in range(3)])
    variance = np.clip(square - mean * mean, 0, None).sum(axis=2, keepdims=True) + 1e-4
    windows = np.concatenate([mean, variance], axis=2)
    reach = 2 * radius
    total = np.zeros_like(rgb)
    weights = np.zeros_like(variance)
    pad = int(np.ceil(reach))
    padded = np.pad(windows, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    height, width = rgb.shape[:2]
    for angle in np.arange(8) * np.pi / 4:
        dy, dx = round(reach * np.sin(angle)), round(reach * np.cos(angle))
        window = padded[pad + dy : pad + dy + height, pad + dx : pad + dx + width]
        weight = 1 / np.square(np.square(window[..., 3:] / 1e-3))
        total += weight * window[..., :3]
        weights += weight
    return total / weights


def _strokes(grey: Array, length: int = 10) -> Array:
    """[H, W] relief of brush strokes: noise smeared along the picture's contours.

    Line integral convolution (Cabral & Leedom, SIGGRAPH 1993) along the minor eigenvector of the
    smoothed structure tensor; zero mean, unit variance.
    """
    rows, mixed, columns = feature.structure_tensor(grey, sigma=6, mode="nearest")
    angle = 0.5 * np.arctan2(2 * mixed, columns - rows) + np.pi / 2
    dy, dx = np.sin(angle), np.cos(angle)
    noise = _grain(grey.shape, 1.2)
    height, width = grey.shape
    total = noise.copy()
    for sign in (-1, 1):
        y, x = np.mgrid[:height, :width].astype(np.float32)
        step_y, step_x = sign * dy, sign * dx
        for _ in range(length):
            y = np.clip(y + step_y, 0, height - 1)
            x = np.clip(x + step_x, 0, width - 1)
            at = (y + 0.5).astype(np.int32) * width + (x + 0.5).astype(np.int32)
            total += noise.take(at)
            # An axis has no direction: keep going the way we came.
            here_y, here_x = dy.take(at), dx.take(at)
            turn = np.sign(here_y * step_y + here_x * step_x)
            step_y, step_x = turn * here_y, turn * here_x
    total -= total.mean()
    return total / total.std()
