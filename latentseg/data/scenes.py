"""The embedded street scenes: drawn photographs of streets with the 19 classes of Cityscapes and their pixel labels.

`draw_scene` draws far things first: sky, ground, shadows, then everything that stands, by distance. Scenes differ in
the street's plan, in what stands beside it, in traffic, light, weather and camera. Looks are shared within a
super-category (see `scene_objects`), so that colour and place alone do not tell the classes apart.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentseg.data import scene_objects as things
from latentseg.data import scene_traffic as traffic
from latentseg.data.scene_objects import green, pick, structure_colour
from latentseg.data.scene_stage import (
    ASPHALT,
    CLOUD,
    GRASS,
    IGNORED,
    PLAIN,
    Colour,
    Point,
    Stage,
    develop,
    draw_weather,
    hsv,
    mix,
)
from latentseg.errors import UserError

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
FAR_METRES = 150.0


class Item(NamedTuple):
    """A thing that stands in the street: its place, how to draw it, and its size in metres for order and shadow."""

    x: float
    z: float
    draw: Callable[[], None]
    half_width: float = 0.0
    half_length: float = 0.0
    height: float = 0.0


class Street(NamedTuple):
    """Plan of a street; all lengths in metres."""

    half_road: float
    strips: tuple[tuple[tuple[float, float, int], ...], ...]
    """Left and right: ground strips outside the road, as (inner, outer distance from the centre line, class)."""
    back: tuple[float, float]
    """Left and right: distance of the line of houses and walls."""
    beyond: int
    """Class of all other ground."""
    crossing: tuple[float, float] | None
    """A side road, from z to z."""
    end: float
    """Where the street ends at a row of houses."""
    rails: float | None
    """x of the middle of a tram's rails."""
    season: float
    """Hue of the plants."""


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
        raise UserError(f"scene size {height}x{width}: each side needs at least {LEAST_SIDE} pixels; choose a larger one")
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


def plan_street(rng: np.random.Generator) -> Street:
    """Draw the plan: widths, strips beside the road, a side road, an end, rails."""
    half = rng.uniform(3.2, 8.5)
    rails = None if rng.random() > 0.24 else rng.uniform(-0.5, 0.1) * half
    strips, back = [], []
    for _ in range(2):
        parts, at = [], half
        if rng.random() < 0.35:
            parts.append((at, at := at + rng.uniform(0.7, 2.8), things.TERRAIN))
        if rng.random() < 0.92:
            parts.append((at, at := at + rng.uniform(1.5, 5.5), things.SIDEWALK))
        if rng.random() < 0.4:
            parts.append((at, at := at + rng.uniform(1.0, 7.0), things.TERRAIN))
        strips.append(tuple(parts))
        back.append(at)
    start = rng.uniform(9, 32)
    crossing = (start, start + rng.uniform(5, 11)) if rng.random() < 0.4 else None
    end = rng.uniform(38, 110) if rng.random() < 0.35 else FAR_METRES
    beyond = things.TERRAIN if rng.random() < 0.6 else things.SIDEWALK
    return Street(half, tuple(strips), (back[0], back[1]), beyond, crossing, end, rails, rng.uniform(0.16, 0.36))


# Things that stand, in the order of their distance from the road


def backdrop(stage: Stage, street: Street) -> Iterator[Item]:
    """Houses and trees at the end of the street and along the horizon."""
    rng, x, z = stage.rng, -0.8 * street.end, street.end
    green_share = rng.random()
    while x < 0.8 * street.end:
        length = rng.uniform(0.08, 0.3) * z
        if rng.random() < green_share and z == FAR_METRES:
            size = (length * 0.7, rng.uniform(4, 14))
            draw = partial(things.crown, stage, (x + length / 2, size[1] * 0.5, z), size, green(rng, street.season))
        else:
            looks = things.draw_facade_looks(rng, stage.weather.darkness)
            draw = partial(things.facade, stage, (x, z), (x + length, z), rng.uniform(6, 26), looks)
        yield Item(x, z + rng.random(), draw)
        x += length


def roadside(stage: Stage, street: Street) -> Iterator[Item]:
    """Line of houses, walls, fences, hedges and banks on both sides, and what looks over the low ones."""
    rng = stage.rng
    for side in (-1, 1):
        kinds = ("house", "wall", "fence", "hedge", "bank", "open")
        weights = rng.dirichlet((2.2, 0.8, 0.9, 0.6, 0.3, 0.5))
        at, back = 0.9, street.back[max(side, 0)]
        while at < street.end - 3:
            until = min(at + rng.uniform(4, 22), street.end)
            kind = str(rng.choice(kinds, p=weights))
            if street.crossing is None or until < street.crossing[0] or at > street.crossing[1]:
                yield from _stretch(stage, street, kind, side * (back + rng.uniform(0, 0.6)), (at, until))
            at = until + (rng.uniform(0, 3) if kind in ("house", "open") else 0)


def _stretch(stage: Stage, street: Street, kind: str, x: float, span: tuple[float, float]) -> Iterator[Item]:
    rng, (z0, z1) = stage.rng, span
    side, a, b = math.copysign(1.0, x), (x, z0), (x, z1)
    half = (z1 - z0) / 2
    if kind == "house":
        yield _house(stage, x, span)
        return
    if kind in ("wall", "fence"):
        colour = structure_colour(rng)
        if kind == "wall":
            height = rng.uniform(0.9, 3.2)
            draw = partial(things.wall, stage, a, b, height, colour)
        else:
            height, style = rng.uniform(1.1, 2.3), pick(rng, ("bars", "bars", "planks", "mesh"))
            draw = partial(things.fence, stage, a, b, height, colour, style)
        yield Item(x, z1, draw, 0.1, 0, 0)
    elif kind == "hedge":
        yield Item(x, z1, partial(things.hedge, stage, a, b, rng.uniform(0.7, 2.6), green(rng, street.season)))
    elif kind == "bank":
        top, rise = x + side * rng.uniform(2, 5), rng.uniform(0.6, 2.6)
        slope: list[Point] = [(x, 0, z0), (x, 0, z1), (top, rise, z1), (top, rise, z0)]
        colour = stage.lit(green(rng, street.season), (-side * 0.5, 0.86, 0.0))
        yield Item(x, z1, partial(stage.fill, slope, colour, things.TERRAIN, GRASS))
    behind = rng.random()
    if behind < 0.4:
        yield _house(stage, x + side * rng.uniform(3, 14), (z0, z1))
    elif behind < 0.85:
        for _ in range(1 + int(half / 3)):
            z, depth = rng.uniform(max(z0, 3.5), max(z1, 4)), x + side * rng.uniform(1.0, 7)
            draw = partial(things.tree, stage, depth, z, rng.uniform(3, 11), green(rng, street.season))
            yield Item(depth, max(z, z1) + 0.1 + rng.random(), draw, 1.5, 1.5, 5)


def _house(stage: Stage, x: float, span: tuple[float, float]) -> Item:
    rng, (z0, z1), side = stage.rng, span, math.copysign(1.0, x)
    looks, height, deep = things.draw_facade_looks(rng, stage.weather.darkness), rng.uniform(3.2, 19), rng.uniform(6, 16)
    rise = rng.uniform(1.5, 4.0) if rng.random() < 0.4 else 0.0

    def draw() -> None:
        if rise:
            things.roof(stage, (x, z0), (x, z1), height, rise, side * deep / 2)
        things.facade(stage, (x, z0), (x + side * deep, z0), height, looks._replace(shop=False))
        things.facade(stage, (x, z0), (x, z1), height, looks)

    return Item(x + side * deep / 2, z1 + 0.05, draw, deep / 2, (z1 - z0) / 2, height)


def street_plants(stage: Stage, street: Street) -> Iterator[Item]:
    """Rows of trees and low hedges along the kerb."""
    rng = stage.rng
    for side in (-1, 1):
        x = side * (street.half_road + rng.uniform(0.5, 1.4))
        if rng.random() < 0.4:
            z, gap, height = rng.uniform(4, 14), rng.uniform(6, 16), rng.uniform(3.5, 10)
            while z < min(street.end, 80):
                size = height * rng.uniform(0.8, 1.2)
                draw = partial(things.tree, stage, x, z, size, green(rng, street.season))
                yield Item(x, z, draw, 0.3 * size, 0.3 * size, size)
                z += gap * rng.uniform(0.8, 1.3)
        elif rng.random() < 0.2:
            z = rng.uniform(3, 12)
            for _ in range(int(rng.integers(1, 5))):
                draw = partial(things.hedge, stage, (x, z), (x, z + 3), rng.uniform(0.4, 0.9), green(rng, street.season))
                yield Item(x, z + 3, draw)
                z += rng.uniform(3, 5)


def furniture(stage: Stage, street: Street) -> Iterator[Item]:
    """Poles with lights, signs and lamps, railings along the kerb, bins."""
    rng, crossing = stage.rng, street.crossing
    signalled = rng.random() < (0.85 if crossing else 0.4)
    for side in (-1, 1):
        kerb = side * (street.half_road + rng.uniform(0.3, 0.9))
        z, gap = rng.uniform(4.5, 12), rng.uniform(5, 16)
        while z < 48:
            load = pick(rng, ("none", "sign", "sign", "lamp", "both" if signalled else "sign"))
            yield Item(kerb, z, partial(things.pole, stage, kerb, z, load, -side), 0.1, 0.1, 4)
            z += gap * rng.uniform(0.6, 1.5)
        if signalled:
            z = (crossing[0] if crossing else rng.uniform(8, 24)) - 0.5
            for x in (kerb, side * (street.half_road + rng.uniform(0.2, 2.5))):
                yield Item(x, z, partial(things.pole, stage, x, z, pick(rng, ("light", "both")), -side), 0.1, 0.1, 4)
                z += rng.uniform(0.5, 9)
        if rng.random() < 0.18:
            start, colour, style = rng.uniform(3, 12), things.metal(rng), pick(rng, ("rail", "bars"))
            for k in range(int(rng.integers(2, 6))):
                a, b = (kerb, start + 4 * k), (kerb, start + 4 * k + 4)
                yield Item(kerb, b[1], partial(things.fence, stage, a, b, rng.uniform(0.8, 1.1), colour, style))
        for _ in range(int(rng.integers(0, 3))):
            x, z = kerb + side * rng.uniform(0, 2), rng.uniform(5, 25)
            yield Item(x, z, partial(things.bin_or_box, stage, x, z), 0.3, 0.3, 1)


def vehicles(stage: Stage, street: Street) -> Iterator[Item]:
    """Tram, parked rows, traffic in both directions, a vehicle that crosses."""
    rng, half = stage.rng, street.half_road
    if street.rails is not None and rng.random() < 0.75:
        length = rng.uniform(14, 38)
        z = rng.uniform(9, 40) + length / 2
        draw = partial(traffic.train, stage, traffic.Pose(street.rails, z, pick(rng, (0.0, math.pi))), length)
        yield Item(street.rails, z, draw, 1.3, length / 2, 3.5)
    weights = rng.dirichlet((4.5, 0.9, 0.8, 0.5, 0.6))
    lanes = [(-half + 1.2, 0.5, 0.0), (half - 1.2, 0.5, 0.0), (0.35 * half, 0.7, 12.0), (-0.35 * half, 0.6, 6.0)]
    for x, chance, free in lanes:
        blocked = street.rails is not None and abs(street.rails - x) < 2.6
        ahead = abs(x - stage.shift_metres) < 2.4
        if rng.random() > chance or blocked:
            continue
        z, parked = rng.uniform(4, 9) + (free or 6.0 * ahead), free == 0
        while z < min(70, street.end - 4):
            kind = int(rng.choice(5, p=weights))
            if kind > 2 and not parked:
                kind = 0
            heading = (math.pi if x < 0 or (parked and rng.random() < 0.3) else 0.0) + rng.normal(0, 0.04)
            item = _vehicle(stage, kind, x, z, heading)
            if rng.random() < 0.8:
                yield item
            z += 2 * item.half_length + (rng.uniform(0.7, 3) if parked else rng.uniform(5, 26))
    if street.crossing and rng.random() < 0.6:
        z, x = sum(street.crossing) / 2, rng.uniform(-12, 12)
        yield _vehicle(stage, int(rng.integers(3)), x, z, pick(rng, (-1, 1)) * math.pi / 2)


def _vehicle(stage: Stage, kind: int, x: float, near: float, heading: float) -> Item:
    """Car, truck, bus, motorcycles or bicycles (kind 0 to 4), its nearest point at z = near."""
    rng = stage.rng
    if kind > 2:
        wheels = things.MOTORCYCLE if kind == 3 else things.BICYCLE
        return Item(x, near, partial(traffic.parked, stage, x, near, wheels), 0.7, 0.6, 1)
    length = (4.6, rng.uniform(5.5, 10.5), rng.uniform(8, 17))[kind]
    along, across = abs(math.cos(heading)), abs(math.sin(heading))
    half_length = along * length / 2 + across
    pose = traffic.Pose(x, near + half_length, heading)
    if kind == 0:
        draw = partial(traffic.car, stage, pose)
    else:
        draw = partial(traffic.truck if kind == 1 else traffic.bus, stage, pose, length)
    return Item(x, pose.z, draw, across * length / 2 + along * 1.1, half_length, (1.6, 3.0, 3.2)[kind])


def people(stage: Stage, street: Street) -> Iterator[Item]:
    """Pedestrians on and off the sidewalk, riders on the road, parked two-wheelers by the walls."""
    rng, half = stage.rng, street.half_road
    for _ in range(int(rng.gamma(1.6, 2.4))):
        side = pick(rng, (-1, 1))
        x = side * rng.uniform(half, max(street.back[max(side, 0)] - 0.4, half + 1))
        if rng.random() < 0.2:
            x = rng.uniform(-half, half)
        z = rng.uniform(5, 30)
        for k in range(pick(rng, (1, 1, 1, 2, 3))):
            place = x + k * rng.uniform(0.45, 0.8), z + rng.normal(0, 0.3)
            yield Item(*place, partial(traffic.person, stage, *place), 0.25, 0.15, 1.7)
    for kind in (things.BICYCLE, things.MOTORCYCLE):
        for _ in range(int(rng.poisson(0.55))):
            x, z = rng.uniform(-half, half + 1.5), rng.uniform(5, 24)
            yield Item(x, z, partial(traffic.rider, stage, x, z, kind), 0.4, 0.7, 1.7)
        if rng.random() < 0.3:
            side = pick(rng, (-1, 1))
            x, z = side * rng.uniform(half - 0.4, street.back[max(side, 0)]), rng.uniform(4.5, 18)
            for _ in range(int(rng.integers(1, 4))):
                yield Item(x, z, partial(traffic.parked, stage, x, z, kind), 0.7, 0.3, 1)
                x, z = x + rng.normal(0, 0.3), z + rng.uniform(0.5, 1.6)
    if rng.random() < 0.12:
        x, z = rng.uniform(-half - 2, half + 2), rng.uniform(5, 16)
        yield Item(x, z, partial(traffic.walker_with_bicycle, stage, x, z), 0.6, 0.3, 1.7)


# Drawing, in this order


def draw_sky(stage: Stage) -> None:
    """Sky from the zenith's to the horizon's colour; it reaches below the horizon, where the ground covers it."""
    zenith, horizon = stage.weather.sky
    steps, top, bottom = 24, -0.9, stage.vanishing[1] + 0.04
    for k in range(steps):
        edges = (top + (bottom - top) * k / steps, top + (bottom - top) * (k + 1) / steps)
        stage.band(*edges, mix(zenith, horizon, (k / steps) ** 1.5), things.SKY, CLOUD)
    stage.band(bottom, 0.9, (90, 90, 90), things.TERRAIN, GRASS)


def draw_ground(stage: Stage, street: Street) -> None:
    """Road, sidewalks and strips of terrain, band by band from far to near, and the side road."""
    rng = stage.rng
    looks = {kind: _ground_looks(rng, kind, street.season) for kind in (things.ROAD, things.SIDEWALK, things.TERRAIN)}
    edges = sorted({*np.geomspace(1.0, 1.25 * FAR_METRES, 24).tolist(), *(street.crossing or ())})
    for z0, z1 in list(zip(edges, edges[1:], strict=False))[::-1]:
        tone = rng.normal(1.0, 0.02)
        wide = 60 + 1.5 * z1
        crossed = street.crossing is not None and street.crossing[0] <= z0 < street.crossing[1]
        parts = [(-wide, wide, things.ROAD if crossed else street.beyond)]
        if not crossed:
            parts.append((-street.half_road, street.half_road, things.ROAD))
            for side, strips in zip((-1, 1), street.strips, strict=True):
                parts += [(side * inner, side * outer, kind) for inner, outer, kind in strips]
        for x0, x1, kind in parts:
            colour, texture = looks[kind]
            stage.fill([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], mix((0, 0, 0), colour, tone), kind, texture)


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
    for z0, z1 in zip(edges, edges[1:], strict=False):
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
    long = [item for item in items if 1.5 < item.half_length and 0 < item.height < 4]
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
        stage.overlay([(-0.1, 1.1), *arc[::-1], (1.1, 1.1)], traffic.paint(rng), IGNORED)
    if rng.random() < 0.4:
        wide = rng.uniform(0.008, 0.025)
        for x in (0.0, 1.0 - wide):
            stage.overlay([(x, 0), (x + wide, 0), (x + wide, 1), (x, 1)], None, IGNORED)
