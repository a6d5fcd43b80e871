"""The embedded street scenes: drawn photographs of streets with the 19 classes of Cityscapes and their pixel labels.

`draw_scene` draws far things first: sky, ground, shadows, then everything that stands, by distance. Scenes differ in
the street's plan, in what stands beside it, in traffic, light, weather and camera. Looks are shared within a
super-category (`objects`), so that colour and place alone do not tell the classes apart.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from latentseg.errors import UserError
from latentseg.scenes import objects as things
from latentseg.scenes.layout import (
    FAR_METRES,
    Item,
    Street,
    backdrop,
    furniture,
    people,
    plan_street,
    roadside,
    street_plants,
    vehicles,
)
from latentseg.scenes.objects import green
from latentseg.scenes.stage import (
    ASPHALT,
    CLOUD,
    GRASS,
    IGNORE_INDEX,
    PLAIN,
    Colour,
    Point,
    Stage,
    develop,
    draw_weather,
    hsv,
    mix,
)

CLASSES: tuple[str, ...] = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
PALETTE: tuple[tuple[int, int, int], ...] = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
    (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip
LEAST_SIDE = 32


def draw_scene(seed: int, index: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one street scene: a pure function of its arguments.

    Args:
        seed: Seed of the whole set.
        index: Number of the scene in the set.
        height: Rows, at least 32. The same (seed, index) shows the same street at any size; shapes other than 16:9
            show its middle.
        width: Columns, at least 32.

    Returns:
        Image (H, W, 3), RGB, and targets (H, W): train ids 0 to 18 in the order of `CLASSES`, 255 = ignored.

    Raises:
        UserError: If a side is under 32 pixels, or the seed or the index is negative.
    """
    if min(height, width) < LEAST_SIDE:
        raise UserError(f"scene size {height}x{width}: each side needs {LEAST_SIDE} pixels or more; ask for more")
    if min(seed, index) < 0:
        raise UserError(f"scene seed {seed}, index {index}: both must be 0 or more; choose another one")
    rng = np.random.default_rng([seed, index])
    stage = Stage(rng, height, width, draw_weather(rng))
    street = plan_street(rng)
    stage.shift_metres = street.half_road * rng.uniform(0.0, 0.7)
    items = [
        *backdrop(stage, street), *roadside(stage, street), *street_plants(stage, street), *furniture(stage, street),
        *vehicles(stage, street), *people(stage, street),
    ]  # fmt: skip
    draw_sky(stage)
    draw_ground(stage, street)
    draw_markings(stage, street)
    draw_shadows(stage, items)
    for item in far_to_near(stage, items):
        item.draw()
    draw_own_car(stage)
    return develop(stage)


def draw_sky(stage: Stage) -> None:
    """Sky from the zenith's to the horizon's colour; it reaches below the horizon, where the ground covers it."""
    zenith, horizon = stage.weather.sky
    steps, top, bottom = 24, -0.9, stage.vanishing[1] + 0.04
    for k in range(steps):
        edges = (top + (bottom - top) * k / steps, top + (bottom - top) * (k + 1) / steps)
        stage.band(*edges, mix(zenith, horizon, (k / steps) ** 1.5), things.SKY, CLOUD)
    stage.band(bottom, 0.9, (90, 90, 90), things.TERRAIN, GRASS)


def draw_ground(stage: Stage, street: Street) -> None:
    """Open ground, then road, sidewalks, strips of terrain and the side road over it, band by band."""
    rng = stage.rng
    looks = {kind: _ground_looks(rng, kind, street.season) for kind in (things.ROAD, things.SIDEWALK, things.TERRAIN)}
    edges = sorted({*np.geomspace(1.0, 1.25 * FAR_METRES, 24).tolist(), *(street.crossing or ())})
    bands = [(z0, z1, rng.normal(1.0, 0.02)) for z0, z1 in pairwise(edges)][::-1]
    for base in (True, False):  # one after the other: rounding would leave seams
        for z0, z1, tone in bands:
            wide, near = 60 + 1.5 * z1, 0.96 * z0
            open_ground = (-wide, wide, street.beyond if z1 < 50 else things.TERRAIN)
            for x0, x1, kind in [open_ground] if base else _cross_section(street, z0, wide):
                colour, texture = looks[kind]
                points: list[Point] = [(x0, 0, near), (x1, 0, near), (x1, 0, z1), (x0, 0, z1)]
                stage.fill(points, mix((0, 0, 0), colour, tone), kind, texture)


def _cross_section(street: Street, z: float, wide: float) -> list[tuple[float, float, int]]:
    """Strips from x to x, with their class."""
    if street.crossing is not None and street.crossing[0] <= z < street.crossing[1]:
        return [(-wide, wide, things.ROAD)]
    parts = [(-street.half_road, street.half_road, things.ROAD)]
    for side, strips in zip((-1, 1), street.strips, strict=True):
        parts += [(side * inner, side * outer, kind) for inner, outer, kind in strips]
    return parts


def _ground_looks(rng: np.random.Generator, kind: int, season: float) -> tuple[Colour, int]:
    if kind == things.TERRAIN:
        return green(rng, season), GRASS
    grey = hsv(rng.uniform(0.0, 0.7), abs(rng.normal(0.03, 0.07)), rng.uniform(0.25, 0.75))
    return grey, ASPHALT if rng.random() < 0.7 else PLAIN


def draw_markings(stage: Stage, street: Street) -> None:
    """What lies on the ground without a class of its own: lines, zebra, patches, slabs, kerbs, rails."""
    rng, half = stage.rng, street.half_road
    _patches(stage, half)
    white: Colour = mix((200, 200, 195), (120, 120, 120), rng.uniform(0.0, 0.7))
    if rng.random() < 0.7:
        for z in np.arange(2, 70, rng.uniform(4, 9)).tolist():
            _stripe(stage, 0.0, 0.14, (z, z + 3), white)
    for side, strips in zip((-1, 1), street.strips, strict=True):
        if rng.random() < 0.35:
            _stripe(stage, side * (half - rng.uniform(0.2, 2.4)), 0.12, (1.5, 90), white)
        _stripe(stage, side * (half + 0.08), 0.16, (1.2, 90), hsv(0.1, 0.05, rng.uniform(0.3, 0.85)))
        if rng.random() < 0.6:
            _slabs(stage, side, strips)
    if rng.random() < (0.6 if street.crossing else 0.15):
        z = street.crossing[0] - 4 if street.crossing else rng.uniform(7, 20)
        for x in np.arange(-half + 0.3, half - 0.5, rng.uniform(0.9, 1.3)).tolist():
            stage.detail([(x, 0, z), (x + 0.5, 0, z), (x + 0.5, 0, z + 3), (x, 0, z + 3)], white)
    if street.rails is not None:
        for gauge in (-0.72, 0.72):
            _stripe(stage, street.rails + gauge, 0.1, (1.2, 120), (70, 66, 62))


def _stripe(stage: Stage, x: float, thickness: float, span: tuple[float, float], colour: Colour) -> None:
    edges = np.geomspace(*span, 2 + int(6 * math.log(span[1] / span[0]))).tolist()
    for z0, z1 in pairwise(edges):
        a, b = x - thickness / 2, x + thickness / 2
        stage.detail([(a, 0, z0), (b, 0, z0), (b, 0, z1), (a, 0, z1)], colour)


def _patches(stage: Stage, half: float) -> None:
    rng = stage.rng
    for _ in range(int(rng.integers(0, 7))):
        x, z, wide, long = rng.uniform(-half, half - 1), rng.uniform(3, 30), rng.uniform(0.5, 3), rng.uniform(0.6, 8)
        far, right = z + long, min(x + wide, half)
        grey = hsv(0.1, 0.05, rng.uniform(0.2, 0.6))
        stage.detail([(x, 0, z), (right, 0, z), (right, 0, far), (x, 0, far)], grey)


def _slabs(stage: Stage, side: int, strips: tuple[tuple[float, float, int], ...]) -> None:
    shade = hsv(0.1, 0.05, stage.rng.uniform(0.15, 0.6))
    for inner, outer, kind in strips:
        if kind != things.SIDEWALK:
            continue
        for z in np.geomspace(2, 28, 26).tolist():
            stage.line([(side * inner, 0, z), (side * outer, 0, z)], 0.03, shade, least=0.003)
        for share in (0.33, 0.67):
            _stripe(stage, side * (inner + share * (outer - inner)), 0.04, (2, 28), shade)


def draw_shadows(stage: Stage, items: list[Item]) -> None:
    """Darken the ground below things and, in sunshine, away from the sun."""
    solid = [item for item in items if item.height and item.z < 70]
    stage.darken([_footprint(item, (0.0, 0.0)) for item in solid], 0.45)
    x, y, z = stage.weather.sun
    if not y:
        return
    cast: list[list[Point]] = []
    for item in solid:
        reach = min(item.height / y, 12.0)
        base, tip = _footprint(item, (0.0, 0.0)), _footprint(item, (-x * reach, -z * reach))
        cast.append(tip)
        cast += [[base[k - 1], base[k], tip[k], tip[k - 1]] for k in range(4)]
    stage.darken(cast, stage.rng.uniform(0.3, 0.6))


def _footprint(item: Item, shift: tuple[float, float]) -> list[Point]:
    x, z = item.x + shift[0], item.z + shift[1]
    w, h = item.half_width, item.half_length
    return [(x - w, 0, z - h), (x + w, 0, z - h), (x + w, 0, z + h), (x - w, 0, z + h)]


def far_to_near(stage: Stage, items: list[Item]) -> list[Item]:
    """Order for the painter: by distance, but what stands beside a long vehicle, on the far side, before it."""
    keys = [item.z for item in items]
    long = [item for item in items if item.half_length > 1.5 and 0 < item.height < 4]
    for number, item in enumerate(items):
        for other in long:
            side = math.copysign(1.0, other.x - stage.shift_metres)
            if abs(item.z - other.z) < other.half_length and side * (item.x - other.x) > 0.5 and item is not other:
                keys[number] = max(keys[number], other.z + 0.01)
    return [items[number] for number in sorted(range(len(items)), key=lambda number: -keys[number])]


def draw_own_car(stage: Stage) -> None:
    """Ignored pixels: the own car's bonnet and the strips that rectification leaves at the sides."""
    rng = stage.rng
    if rng.random() < 0.5:
        middle, rise, tilt = rng.uniform(0.4, 0.6), rng.uniform(0.05, 0.14), rng.normal(0, 0.01)
        arc = [
            (middle + 0.62 * math.cos(turn), 1.01 - rise * math.sin(turn) ** 0.6 + tilt * math.cos(turn))
            for turn in np.linspace(0, math.pi, 15).tolist()
        ]
        stage.overlay([(-0.1, 1.1), *arc[::-1], (1.1, 1.1)], things.paint(rng), IGNORE_INDEX)
    if rng.random() < 0.4:
        wide = rng.uniform(0.008, 0.025)
        for x in (0.0, 1.0 - wide):
            stage.overlay([(x, 0), (x + wide, 0), (x + wide, 1), (x, 1)], None, IGNORE_INDEX)
