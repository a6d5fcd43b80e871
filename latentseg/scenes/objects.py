"""Things of the drawn street scenes: structures, plants, poles, vehicles, two-wheelers and people.

Classes of one super-category take their colours from one distribution (`structure_colour`, `green`, `metal`,
`paint`, `cloth`) and stand in the same places; shape, size and context tell them apart, as on photographs.
Coordinates as in `stage`. Billboards (poles, people, two-wheelers) stand in a plane of constant z.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from latentseg.scenes.stage import GLOW, IGNORE_INDEX, LEAF, MASONRY, PLAIN, Colour, Point, Stage, hsv, mix

(
    ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN, SKY, PERSON, RIDER, CAR,
    TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE,
) = range(19)  # fmt: skip
Spot = tuple[float, float]
Choice = TypeVar("Choice")
GLASS: tuple[Colour, ...] = ((28, 34, 42), (52, 62, 72), (96, 112, 124), (70, 74, 72))
BLACK: Colour = (22, 22, 24)
LAMP: Colour = (255, 222, 160)


def pick(rng: np.random.Generator, options: Sequence[Choice]) -> Choice:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def structure_colour(rng: np.random.Generator) -> Colour:
    """Colour of buildings, walls and fences: plaster, brick, concrete, wood."""
    hue = rng.uniform(0.0, 0.14) if rng.random() < 0.8 else rng.uniform(0.4, 0.7)
    return hsv(hue, abs(rng.normal(0.12, 0.2)), rng.uniform(0.25, 0.95))


def metal(rng: np.random.Generator) -> Colour:
    """Colour of poles, of housings of lights and of the backs of signs."""
    return hsv(rng.uniform(0.05, 0.65), abs(rng.normal(0.0, 0.12)), rng.uniform(0.1, 0.75))


def paint(rng: np.random.Generator) -> Colour:
    """Colour of vehicles of any class."""
    if rng.random() < 0.6:
        return hsv(rng.random(), 0.05 * rng.random(), rng.uniform(0.08, 0.95))
    return hsv(pick(rng, (0.0, 0.02, 0.12, 0.35, 0.55, 0.6, 0.63)), rng.uniform(0.4, 0.9), rng.uniform(0.25, 0.85))


def cloth(rng: np.random.Generator) -> Colour:
    """Colour of clothes, of pedestrians and of riders."""
    return hsv(rng.random(), abs(rng.normal(0.1, 0.3)), rng.uniform(0.08, 0.5) if rng.random() < 0.65 else 0.85)


def green(rng: np.random.Generator, season: float) -> Colour:
    """Colour of plants and of terrain; `season` is the hue of the scene's plants."""
    if rng.random() < 0.15:
        return hsv(0.09, rng.uniform(0.2, 0.4), rng.uniform(0.25, 0.55))  # earth, dry grass, bare bushes
    return hsv(season + rng.normal(0, 0.02), rng.uniform(0.2, 0.65), rng.uniform(0.18, 0.55))


def disc(x: float, y: float, z: float, radii: Spot, corners: int = 12) -> list[Point]:
    """Ellipse as a billboard."""
    turns = [2 * math.pi * k / corners for k in range(corners)]
    return [(x + radii[0] * math.cos(turn), y + radii[1] * math.sin(turn), z) for turn in turns]


def blob(rng: np.random.Generator, x: float, y: float, z: float, radii: Spot) -> list[Point]:
    """Irregular round billboard: foliage."""
    rough = rng.uniform(0.8, 1.18, 14).tolist()
    turns = [2 * math.pi * k / 14 for k in range(14)]
    return [
        (x + radii[0] * r * math.cos(turn), max(0.0, y + radii[1] * r * math.sin(turn)), z)
        for r, turn in zip(rough, turns, strict=True)
    ]


# Structures: on a line from one ground point (x, z) to another


class Facade(NamedTuple):
    """Looks of a building, shared by its faces."""

    colour: Colour
    windows: str
    floor_metres: float
    bay_metres: float
    lit_share: float
    shop: bool


def draw_facade_looks(rng: np.random.Generator, darkness: float) -> Facade:
    """Draw the looks of one building."""
    windows = pick(rng, ("holes", "holes", "tall", "tall", "ribbon", "ribbon", "glass", "none"))
    lit = rng.uniform(0.1, 0.6) if darkness > 0.2 else 0.02
    return Facade(
        structure_colour(rng), windows, rng.uniform(2.7, 4.2), rng.uniform(1.8, 4.5), lit, rng.random() < 0.35
    )


def facade(stage: Stage, a: Spot, b: Spot, height: float, looks: Facade, kind: int = BUILDING) -> None:
    """Face of a building above the ground line a-b, with windows and perhaps a shop."""
    rng, place, normal = stage.rng, _plane(a, b), _normal(stage, a, b)
    wall_colour = stage.lit(looks.colour, normal)
    stage.fill(_box(place, 0, 1, 0, height), wall_colour, kind, MASONRY)
    length = math.dist(a, b)
    share = {"holes": (0.45, 0.5), "tall": (0.35, 0.75), "ribbon": (1.0, 0.45), "glass": (0.92, 0.85)}
    if looks.windows == "none":
        courses(stage, place, height, wall_colour)
    else:
        wide, high = share[looks.windows]
        bays, floors = min(9, int(length / looks.bay_metres)), min(8, int(height / looks.floor_metres))
        dark = stage.lit(pick(rng, GLASS), normal)
        for floor in range(1 if looks.shop else 0, floors):
            bottom = (floor + 0.5 - high / 2) * looks.floor_metres
            for bay in range(bays):
                s, half = (bay + 0.5) / bays, wide / 2 / bays
                box = _box(place, s - half, s + half, bottom, bottom + high * looks.floor_metres)
                if rng.random() < looks.lit_share:
                    stage.fill(box, mix(LAMP, dark, 0.5 * rng.random()), kind, GLOW)
                else:
                    stage.detail(box, mix(dark, wall_colour, 0.3 * rng.random()))
    if looks.shop and length > 5:
        stage.detail(_box(place, 0.06, 0.94, 0.2, 2.5), stage.lit(pick(rng, GLASS), normal))
        stage.detail(_box(place, 0.03, 0.97, 2.6, 3.3), stage.lit(paint(rng), normal))
    stage.detail(_box(place, 0, 1, height - 0.3, height), mix(wall_colour, BLACK, 0.35))


def roof(stage: Stage, a: Spot, b: Spot, bottom: float, rise: float, back: float) -> None:
    """Roof that leans back from the top of a facade; `back` is the ridge's offset in x."""
    points = [(a[0], bottom, a[1]), (b[0], bottom, b[1])]
    ridge = [(x + back, bottom + rise, z) for x, _, z in reversed(points)]
    colour = stage.lit(mix(structure_colour(stage.rng), (90, 50, 40), 0.6), (0.0, 1.0, 0.0))
    stage.fill(points + ridge, colour, BUILDING, MASONRY)


def courses(stage: Stage, place: Callable[[float, float], Point], height: float, colour: Colour) -> None:
    """Joints between stones or panels."""
    rows = stage.rng.integers(2, 7)
    joint = mix(colour, BLACK, stage.rng.uniform(0.1, 0.4))
    for row in range(1, rows):
        stage.line([place(0, height * row / rows), place(1, height * row / rows)], 0.04, joint, least=0.003)
    for column in range(1, 2 * rows):
        s = column / 2 / rows
        stage.line([place(s, 0), place(s, height)], 0.04, joint, least=0.003)


def wall(stage: Stage, a: Spot, b: Spot, height: float, colour: Colour) -> None:
    """Wall with joints and a cap."""
    place, normal = _plane(a, b), _normal(stage, a, b)
    face = stage.lit(colour, normal)
    stage.fill(_box(place, 0, 1, 0, height), face, WALL, MASONRY)
    if stage.rng.random() < 0.7:
        courses(stage, place, height, face)
    stage.fill(_box(place, 0, 1, height, height + 0.12), mix(face, (255, 255, 255), 0.15), WALL)


def fence(stage: Stage, a: Spot, b: Spot, height: float, colour: Colour, style: str) -> None:
    """Fence: `bars` and `mesh` are seen through, `planks` are not, `rail` is a low beam."""
    place, face = _plane(a, b), stage.lit(colour, _normal(stage, a, b))
    posts = max(2, int(math.dist(a, b) / (2.5 if style in ("rail", "mesh") else 0.45)))
    if style == "planks":
        stage.fill(_box(place, 0, 1, 0, height), face, FENCE)
    else:
        stage.mark(_box(place, 0, 1, 0, height), FENCE)
    for low, high in ((0.55, 1.0),) if style == "rail" else ((0.08, 0.16), (0.88, 0.96)):
        stage.detail(_box(place, 0, 1, low * height, high * height), face)
    ink = mix(face, BLACK, 0.45) if style == "planks" else face
    for k in range(posts + 1):
        stage.line([place(k / posts, 0), place(k / posts, height)], 0.06, ink, least=0.004)
    if style == "mesh":
        for k in range(1, 6):
            stage.line([place(0, height * k / 6), place(1, height * k / 6)], 0.02, face, least=0.003)


def _plane(a: Spot, b: Spot) -> Callable[[float, float], Point]:
    return lambda s, y: (a[0] + (b[0] - a[0]) * s, y, a[1] + (b[1] - a[1]) * s)


def _box(place: Callable[[float, float], Point], s0: float, s1: float, y0: float, y1: float) -> list[Point]:
    return [place(s0, y0), place(s1, y0), place(s1, y1), place(s0, y1)]


def _normal(stage: Stage, a: Spot, b: Spot) -> Point:
    length = math.dist(a, b) or 1.0
    nx, nz = (b[1] - a[1]) / length, (a[0] - b[0]) / length
    towards_camera = nx * (stage.shift_metres - a[0]) - nz * a[1]
    return (nx, 0.0, nz) if towards_camera >= 0 else (-nx, 0.0, -nz)


# Plants


def tree(stage: Stage, x: float, z: float, height: float, colour: Colour) -> None:
    """Tree: broad, conifer or bare. The trunk, as thin and dark as a pole, is vegetation."""
    rng, form = stage.rng, pick(stage.rng, ("broad", "broad", "broad", "conifer", "bare"))
    bark = mix(metal(rng), (84, 66, 50), 0.5)
    stage.line([(x, 0, z), (x, height * 0.6, z)], height * 0.035, bark, VEGETATION, least=0.012)
    if form == "conifer":
        for k in range(4):
            low, half = height * (0.12 + 0.2 * k), height * (0.24 - 0.05 * k)
            points = [(x - half, low, z), (x + half, low, z), (x, low + 0.36 * height, z)]
            stage.fill(points, mix(colour, BLACK, 0.3 - 0.06 * k), VEGETATION, LEAF)
    elif form == "bare":
        for _ in range(12):
            low, reach = rng.uniform(0.3, 0.65) * height, rng.uniform(-0.35, 0.35) * height
            tip = (x + reach, low + rng.uniform(0.15, 0.35) * height, z)
            stage.line([(x, low, z), tip], 0.1, bark, VEGETATION, least=0.008)
    else:
        crown(stage, (x, height * 0.65, z), (height * rng.uniform(0.25, 0.42), height * 0.36), colour)


def crown(stage: Stage, centre: Point, radii: Spot, colour: Colour) -> None:
    """Heap of leaves: darker below, lighter above."""
    (x, y, z), rng = centre, stage.rng
    for _ in range(int(rng.integers(4, 9))):
        dx, dy = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6)
        part = (radii[0] * rng.uniform(0.4, 0.65), radii[1] * rng.uniform(0.4, 0.65))
        tone = mix((0, 0, 0), colour, 0.95 + 0.4 * dy + rng.normal(0, 0.08))
        stage.fill(blob(rng, x + dx * radii[0], y + dy * radii[1], z, part), tone, VEGETATION, LEAF)


def hedge(stage: Stage, a: Spot, b: Spot, height: float, colour: Colour) -> None:
    """Cut hedge or a row of bushes along a line."""
    place, rng = _plane(a, b), stage.rng
    top = [place(s, height * rng.uniform(0.85, 1.1)) for s in np.linspace(1, 0, 9).tolist()]
    stage.fill([place(0, 0), place(1, 0), *top], stage.lit(colour, _normal(stage, a, b)), VEGETATION, LEAF)
    for _ in range(int(rng.integers(0, 5))):
        x, y, z = place(rng.random(), height * rng.uniform(0.3, 0.9))
        tone = mix((0, 0, 0), colour, rng.uniform(0.7, 1.25))
        stage.fill(blob(rng, x, y, z, (0.5 * height, 0.4 * height)), tone, VEGETATION, LEAF)


# Poles and what they carry


def pole(stage: Stage, x: float, z: float, load: str, inward: float) -> None:
    """Pole with a load: `light`, `sign`, `both`, `lamp` or `none`; `inward` is the direction of the road, -1 or 1."""
    rng, colour = stage.rng, metal(stage.rng)
    height = rng.uniform(2.6, 3.6) if load in ("light", "sign") else rng.uniform(3.4, 7.5)
    least = rng.uniform(0.015, 0.022)
    stage.line([(x, 0, z), (x, height, z)], rng.uniform(0.12, 0.24), colour, POLE, least)
    arm = inward * rng.uniform(1.0, 3.0)
    if load == "lamp" or (load == "both" and rng.random() < 0.5):
        stage.line([(x, height, z), (x + arm, height + 0.3, z)], 0.12, colour, POLE, 0.014)
    if load == "lamp" and stage.weather.darkness > 0.2:
        stage.fill(disc(x + arm, height + 0.2, z, (0.4, 0.15), 8), LAMP, POLE, GLOW)
    if load in ("light", "both"):
        traffic_light(stage, (x if load == "light" else x + arm * pick(rng, (0, 1)), height, z), colour)
    if load in ("sign", "both"):
        sign(stage, (x, height - 0.2 if load == "sign" else rng.uniform(2.2, 3.2), z), colour)


def traffic_light(stage: Stage, top: Point, colour: Colour) -> None:
    """Housing with two or three lamps, or its back, or turned to the side."""
    rng, (x, y, z) = stage.rng, top
    lamps = pick(rng, (3, 3, 3, 2))
    half, height = 0.24 * rng.uniform(0.75, 1.15), 0.38 * lamps * rng.uniform(0.85, 1.1)
    housing = mix(BLACK, colour, rng.uniform(0.0, 0.7)) if rng.random() < 0.8 else (196, 160, 40)
    if rng.random() < 0.25:
        board = [(x - 1.7 * half, y + 0.12), (x + 1.7 * half, y + 0.12)]
        board += [(x + 1.7 * half, y - height - 0.12), (x - 1.7 * half, y - height - 0.12)]
        stage.fill([(p, q, z) for p, q in board], mix(housing, (255, 255, 255), 0.15), LIGHT)
    corners = [(x - half, y, z), (x + half, y, z), (x + half, y - height, z), (x - half, y - height, z)]
    stage.fill(corners, housing, LIGHT)
    if rng.random() < 0.2:
        return
    burning = int(rng.integers(lamps))
    for k in range(lamps):
        spot = disc(x, y - height * (k + 0.5) / lamps, z, (half * 0.62, half * 0.62), 8)
        hue = ((235, 60, 40), (245, 190, 50), (60, 220, 140))[k if lamps == 3 else 2 * k]
        if k == burning:
            stage.fill(spot, hue, LIGHT, GLOW if stage.weather.darkness else PLAIN)
        else:
            stage.detail(spot, mix(hue, BLACK, 0.75))


def sign(stage: Stage, centre: Point, back: Colour) -> None:
    """Traffic sign: disc, triangle, board; bright in front, the pole's metal behind."""
    rng, (x, y, z) = stage.rng, centre
    form, size = pick(rng, ("disc", "disc", "triangle", "square", "board", "diamond")), rng.uniform(0.38, 0.6)
    wide = size * rng.uniform(1.2, 2.6) if form == "board" else size * rng.uniform(0.8, 1.0)
    corners = {"disc": 14, "triangle": 3, "square": 4, "board": 4, "diamond": 4}[form]
    turn = {"triangle": math.pi / 2 * pick(rng, (1, 1, -1)), "square": math.pi / 4, "board": math.pi / 4}.get(form, 0.0)

    def shape(share: float) -> list[Point]:
        turns = [turn + 2 * math.pi * k / corners for k in range(corners)]
        return [(x + wide * share * math.cos(t), y + size * share * math.sin(t), z) for t in turns]

    if rng.random() < 0.35:
        stage.fill(shape(1.0), mix(back, (128, 128, 128), 0.3), SIGN)
        return
    outer, inner = pick(
        rng, (((190, 40, 45), (225, 225, 220)), ((40, 80, 160), (50, 90, 170)), ((210, 210, 205), (40, 80, 150)),
              ((225, 225, 220), (235, 190, 50)), ((50, 110, 80), (220, 220, 215)), ((120, 120, 120), (220, 220, 215)))
    )  # fmt: skip
    stage.fill(shape(1.0), outer, SIGN)
    stage.detail(shape(rng.uniform(0.6, 0.8)), inner)
    if rng.random() < 0.7:
        stage.detail(disc(x, y, z, (0.3 * wide, 0.18 * size), 6), mix(inner, BLACK, 0.8))


# Street furniture that no class names


def bin_or_box(stage: Stage, x: float, z: float) -> None:
    """Bin, mailbox or junction box; ignored."""
    half, height = stage.rng.uniform(0.25, 0.6), stage.rng.uniform(0.7, 1.4)
    corners = [(x - half, 0.0, z), (x + half, 0.0, z), (x + half, height, z), (x - half, height, z)]
    stage.fill(corners, stage.lit(paint(stage.rng), (0, 0, -1)), IGNORE_INDEX)
