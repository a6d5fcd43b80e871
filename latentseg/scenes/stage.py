"""Camera, weather and buffers of the drawn street scenes: where things are put, and how a drawing becomes a photograph.

Everything is placed in street coordinates, in metres: x to the right of the road's centre line (which may bend),
y above the road (which may climb), z ahead of the camera. A point is (x, y, z); colours are RGB, 0 to 255.
"""

import colorsys
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point = tuple[float, float, float]
Colour = tuple[float, float, float]
Floats = NDArray[np.float32]


IGNORE_INDEX = 255  # pixels without a class, as everywhere; this room imports nothing of the others
PLAIN, ASPHALT, GRASS, LEAF, MASONRY, CLOUD, GLOW = range(7)
# Strength of coarse, medium and fine noise for each texture above.
GRAIN = np.array([[4, 3, 2], [7, 3, 6], [8, 11, 15], [8, 22, 22], [7, 7, 6], [10, 3, 0], [0, 0, 0]], dtype=np.float32)
OVERSAMPLING = 2
DEPTH_UNITS_PER_METRE = 1.7
NEAREST_METRES = 0.8


class Weather(NamedTuple):
    """Light and air of one scene; colours multiply, 1 = unchanged."""

    darkness: float
    """0 by day, up to 1 at night."""
    sun: Point
    """Direction towards the sun times its strength (0 when overcast)."""
    light: Colour
    """Colour of the light."""
    fog: float
    """Extinction per metre."""
    sky: tuple[Colour, Colour]
    """Sky at the zenith and at the horizon, before the light."""
    rain: int
    """Number of streaks."""


def draw_weather(rng: np.random.Generator) -> Weather:
    """Draw time of day, sun, fog, rain and the colours that follow from them."""
    hour = rng.random()
    darkness = 0.0 if hour < 0.74 else rng.uniform(0.25, 0.55) if hour < 0.89 else rng.uniform(0.6, 0.85)
    strength = rng.uniform(0.4, 0.9) if rng.random() < 0.55 and darkness < 0.6 else 0.0
    azimuth, height = rng.uniform(-math.pi, math.pi), rng.uniform(0.35, 1.1)
    flat = math.cos(height) * strength
    sun = (math.sin(azimuth) * flat, math.sin(height) * strength, math.cos(azimuth) * flat)
    warmth = rng.normal(0.0, 0.07) + (0.12 * rng.random() if strength and height < 0.6 else 0.0)
    level = (1.0 - darkness) ** 1.2
    light = (level * (1 + warmth), level * (1 + rng.normal(0, 0.03)), level * (1 - warmth + 0.25 * darkness))
    grey = rng.uniform(150, 235)
    overcast: Colour = (grey, grey + rng.uniform(-4, 6), grey + rng.uniform(-6, 14))
    blue: Colour = (rng.uniform(70, 150), rng.uniform(130, 180), rng.uniform(190, 240))
    zenith = mix(blue, overcast, rng.random() * 0.4 if strength else rng.uniform(0.7, 1.0))
    low: Colour = (rng.uniform(190, 250), rng.uniform(180, 230), rng.uniform(160, 235))
    horizon = mix(zenith, low, rng.uniform(0.2, 0.9))
    fog = rng.uniform(0.012, 0.045) if rng.random() < 0.2 else rng.uniform(0.0005, 0.006)
    rain = int(rng.integers(60, 260)) if strength == 0 and rng.random() < 0.25 else 0
    return Weather(darkness, sun, light, fog, (zenith, horizon), rain)


class Stage:
    """A camera in a street, and the two buffers that every thing draws into.

    `colour` takes what is seen; `facts` takes class, texture and depth of the same pixels. Both are
    `OVERSAMPLING` times the size of the scene. The frame is 16:9; other shapes are cut out of its middle, so that a
    scene's content does not depend on its size.

    Args:
        rng: Source of the camera's place and of all later draws. No draw may depend on the size.
        height: Rows of the finished scene.
        width: Columns of the finished scene.
        weather: Light of the scene.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int, weather: Weather) -> None:
        self.rng = rng
        self.weather = weather
        self.focal = rng.uniform(1.1, 1.8)  # in frame heights, as all lengths in the picture
        self.eye_metres = rng.uniform(1.25, 2.1)
        self.vanishing = (rng.uniform(-0.32, 0.32), rng.uniform(-0.14, 0.02))
        self.roll = rng.normal(0.0, 0.012)
        self.bend = 0.0 if rng.random() < 0.45 else rng.normal(0.0, 0.0035)  # x shifts by bend * z * z
        self.climb = rng.normal(0.0, 0.00025)
        self.shift_metres = 0.0  # camera's x; the street decides
        self.scale = OVERSAMPLING * max(height, width * 9 / 16)
        self.centre = (OVERSAMPLING * width / 2, OVERSAMPLING * height / 2)
        size = (OVERSAMPLING * width, OVERSAMPLING * height)
        self.colour = Image.new("RGB", size)
        self.facts = Image.new("RGB", size, (IGNORE_INDEX, PLAIN, 255))
        self._colour_pen = ImageDraw.Draw(self.colour)
        self._facts_pen = ImageDraw.Draw(self.facts)

    def at(self, point: Point) -> tuple[float, float]:
        """Pixel (column, row) in the buffers of a point of the street."""
        x, y, z = point
        z = max(z, NEAREST_METRES)
        u = self.vanishing[0] + self.focal * (x - self.shift_metres + self.bend * z * z) / z
        v = self.vanishing[1] - self.focal * (y - self.eye_metres + self.climb * z * z) / z
        u, v = u - self.roll * v, v + self.roll * u
        return self.centre[0] + u * self.scale, self.centre[1] + v * self.scale

    def fill(self, points: Sequence[Point], colour: Colour, kind: int, texture: int = PLAIN) -> None:
        """Draw a polygon of class `kind`."""
        pixels = [self.at(point) for point in points]
        self._colour_pen.polygon(pixels, fill=_rgb(colour))
        self._facts_pen.polygon(pixels, fill=(kind, texture, _depth(points)))

    def detail(self, points: Sequence[Point], colour: Colour) -> None:
        """Draw a polygon that belongs to the thing below: colour only."""
        self._colour_pen.polygon([self.at(point) for point in points], fill=_rgb(colour))

    def mark(self, points: Sequence[Point], kind: int) -> None:
        """Give a see-through polygon (a fence, a wheel) its class, and leave the colours behind it."""
        self._facts_pen.polygon([self.at(point) for point in points], fill=(kind, PLAIN, _depth(points)))

    def line(
        self,
        points: Sequence[Point],
        metres: float,
        colour: Colour,
        kind: int | None = None,
        least: float = 0.006,
    ) -> None:
        """Draw a line of the given thickness, at least `least` frame heights; without `kind` colour only."""
        z = max(points[0][2], NEAREST_METRES)
        pixels = [self.at(point) for point in points]
        thickness = max(1, round(self.scale * max(least, metres * self.focal / z)))
        self._colour_pen.line(pixels, fill=_rgb(colour), width=thickness, joint="curve")
        if kind is not None:
            self._facts_pen.line(pixels, fill=(kind, PLAIN, _depth(points)), width=thickness, joint="curve")

    def band(self, top: float, bottom: float, colour: Colour, kind: int, texture: int) -> None:
        """Draw a horizontal band over the whole width; top and bottom in frame heights from the middle."""
        box = (
            0.0,
            self.centre[1] + top * self.scale,
            2 * self.centre[0],
            self.centre[1] + bottom * self.scale,
        )
        self._colour_pen.rectangle(box, fill=_rgb(colour))
        self._facts_pen.rectangle(box, fill=(kind, texture, 255))

    def overlay(self, points: Sequence[tuple[float, float]], colour: Colour | None, kind: int) -> None:
        """Draw a polygon given in the frame, (0, 0) to (1, 1); without colour only its class."""
        pixels = [(x * 2 * self.centre[0], y * 2 * self.centre[1]) for x, y in points]
        if colour is not None:
            self._colour_pen.polygon(pixels, fill=_rgb(colour))
        self._facts_pen.polygon(pixels, fill=(kind, PLAIN, 0))

    def darken(self, shadows: Sequence[Sequence[Point]], strength: float) -> None:
        """Multiply what is drawn so far by soft-edged shadows of the given strength (0 to 1)."""
        layer = Image.new("L", self.colour.size, 255)
        pen = ImageDraw.Draw(layer)
        for shadow in shadows:
            pen.polygon([self.at(point) for point in shadow], fill=round(255 * (1 - strength)))
        layer = layer.filter(ImageFilter.BoxBlur(self.scale * 0.003))
        self.colour.paste(ImageChops.multiply(self.colour, Image.merge("RGB", [layer] * 3)))

    def lit(self, colour: Colour, normal: Point) -> Colour:
        """Colour of a face that looks along `normal` (unit length)."""
        sun = self.weather.sun
        facing = max(0.0, sum(a * b for a, b in zip(sun, normal, strict=True)))
        ambient = 0.78 + 0.12 * normal[1] - 0.25 * math.hypot(*sun)
        return mix((0.0, 0.0, 0.0), colour, ambient + 0.75 * facing)


def develop(stage: Stage) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Turn the buffers into a photograph and its targets: texture, light, fog, rain, lens and sensor."""
    rng, weather = stage.rng, stage.weather
    facts = np.asarray(stage.facts)[::OVERSAMPLING, ::OVERSAMPLING]
    targets, texture, depth = facts[..., 0].copy(), facts[..., 1], facts[..., 2] / DEPTH_UNITS_PER_METRE
    height, width = targets.shape
    fields = np.stack([_noise(rng, rows, height, width) for rows in (9, 42, 144)], axis=-1)
    grain = ((GRAIN * np.float32(rng.uniform(0.005, 0.016)))[texture] * fields).sum(-1, keepdims=True)
    surface = _floats(stage.colour.reduce(OVERSAMPLING)) / 255 * (1 + grain)
    light, glowing = np.array(weather.light, dtype=np.float32), (texture == GLOW)[..., None]
    image = np.where(glowing, surface, surface * light)
    haze = np.array(weather.sky[1], dtype=np.float32) / 255 * light
    clear = np.exp(-weather.fog * depth.astype(np.float32))[..., None]
    image = image * clear + haze * (1 - clear)
    glare = rng.uniform(0.3, 0.9) * (0.2 + weather.darkness)
    image += glare * _blur(np.where(glowing, surface, np.float32(0)), 0.02 * height)
    image += light.max() * _rain(rng, weather.rain, height, width)[..., None]
    return _expose(rng, image, weather.darkness), targets


def _expose(rng: np.random.Generator, image: Floats, darkness: float) -> NDArray[np.uint8]:
    """Lens and sensor: vignette, blur, exposure, colour cast, contrast, noise."""
    height, width = image.shape[:2]
    vignette = _vignette(height, width, rng.uniform(0.0, 0.35))[..., None]
    image = _blur(image * vignette, height * max(0.0, rng.normal(0.001, 0.0025)))
    gain = rng.lognormal(0.05 + 0.8 * darkness, 0.22) * rng.normal(1.0, 0.035, 3).astype(np.float32)
    image = np.clip(image * gain, 0, 1) ** np.float32(rng.uniform(0.75, 1.2))
    image = rng.uniform(0.0, 0.08) + image * rng.uniform(0.85, 1.0)
    sigma = np.float32(rng.uniform(0.004, 0.022) * (1 + darkness))
    image += sigma * rng.standard_normal(image.shape, dtype=np.float32)  # last: the only draw that knows the size
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Colour between two others; share 0 gives the first, 1 the second."""
    r, g, b = (a + (z - a) * share for a, z in zip(first, second, strict=True))
    return r, g, b


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """RGB colour from hue, saturation and value in 0..1 (the hue wraps)."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return r * 255, g * 255, b * 255


def _rgb(colour: Colour) -> tuple[int, int, int]:
    r, g, b = (max(0, min(255, int(part))) for part in colour)
    return r, g, b


def _depth(points: Sequence[Point]) -> int:
    mean = sum(point[2] for point in points) / len(points)
    return max(0, min(255, int(mean * DEPTH_UNITS_PER_METRE)))


def _noise(rng: np.random.Generator, rows: int, height: int, width: int) -> Floats:
    grid = rng.standard_normal((rows, rows * 16 // 9), dtype=np.float32)
    return _floats(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _floats(picture: Image.Image) -> Floats:
    array: Floats = np.asarray(picture, dtype=np.float32)
    return array


def _blur(image: Floats, radius: float) -> Floats:
    if radius < 0.2 or not image.any():
        return image
    picture = Image.fromarray((np.clip(image, 0, 1.99) * 128).astype(np.uint8))
    return _floats(picture.filter(ImageFilter.GaussianBlur(radius))) / np.float32(128)


def _rain(rng: np.random.Generator, streaks: int, height: int, width: int) -> Floats:
    layer = Image.new("L", (width, height))
    pen = ImageDraw.Draw(layer)
    slant = rng.normal(0.0, 0.2)
    for x, y, length in rng.random((streaks, 3)).tolist():
        end = ((x + 0.1 * slant * length) * width, (y + 0.1 * length) * height)
        pen.line([(x * width, y * height), end], fill=40)
    return _floats(layer) / np.float32(255)


def _vignette(height: int, width: int, strength: float) -> Floats:
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    falloff: Floats = (1 - strength * (rows**2 + columns**2) / 2).astype(np.float32)
    return falloff
