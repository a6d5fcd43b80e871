"""Layout of the drawn street scenes: the street's plan, and the things that stand in it.

Each function yields `Item`s; `draw` sorts and draws them. Coordinates as in `stage`.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from latentseg.scenes import objects as things
from latentseg.scenes import people as figures
from latentseg.scenes import traffic
from latentseg.scenes.objects import green, pick, structure_colour
from latentseg.scenes.stage import GRASS, Point, Stage

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


def plan_street(rng: np.random.Generator) -> Street:
    """Draw the plan: widths, strips beside the road, a side road, an end, rails."""
    half = rng.uniform(2.9, 7.5)
    rails = None if rng.random() > 0.26 else rng.uniform(-0.5, 0.1) * half
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
        weights = rng.dirichlet((2.0, 1.2, 0.9, 0.6, 0.3, 0.5))
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
    looks = things.draw_facade_looks(rng, stage.weather.darkness)
    height, deep = rng.uniform(3.2, 19), rng.uniform(6, 16)
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
                height, colour = rng.uniform(0.4, 0.9), green(rng, street.season)
                draw = partial(things.hedge, stage, (x, z), (x, z + 3), height, colour)
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
        z = rng.uniform(7, 32) + length / 2
        draw = partial(traffic.train, stage, traffic.Pose(street.rails, z, pick(rng, (0.0, math.pi))), length)
        yield Item(street.rails, z, draw, 1.3, length / 2, 3.5)
    weights = rng.dirichlet((5.0, 0.9, 0.7, 0.8, 0.8))
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
        return Item(x, near, partial(figures.parked, stage, x, near, wheels), 0.7, 0.6, 1)
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
    for _ in range(int(rng.gamma(1.8, 2.9))):
        side = pick(rng, (-1, 1))
        x = side * rng.uniform(half, max(street.back[max(side, 0)] - 0.4, half + 1))
        if rng.random() < 0.2:
            x = rng.uniform(-half, half)
        z = rng.uniform(5, 30)
        for k in range(pick(rng, (1, 1, 1, 2, 3))):
            place = x + k * rng.uniform(0.45, 0.8), z + rng.normal(0, 0.3)
            yield Item(*place, partial(figures.person, stage, *place), 0.25, 0.15, 1.7)
    for kind in (things.BICYCLE, things.MOTORCYCLE):
        for _ in range(int(rng.poisson(0.7))):
            x, z = rng.uniform(-half, half + 1.5), rng.uniform(5, 24)
            yield Item(x, z, partial(figures.rider, stage, x, z, kind), 0.4, 0.7, 1.7)
        if rng.random() < 0.3:
            side = pick(rng, (-1, 1))
            x, z = side * rng.uniform(half - 0.4, street.back[max(side, 0)]), rng.uniform(4.5, 18)
            for _ in range(int(rng.integers(1, 4))):
                yield Item(x, z, partial(figures.parked, stage, x, z, kind), 0.7, 0.3, 1)
                x, z = x + rng.normal(0, 0.3), z + rng.uniform(0.5, 1.6)
    if rng.random() < 0.12:
        x, z = rng.uniform(-half - 2, half + 2), rng.uniform(5, 16)
        yield Item(x, z, partial(figures.walker_with_bicycle, stage, x, z), 0.6, 0.3, 1.7)
