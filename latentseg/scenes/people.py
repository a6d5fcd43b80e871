"""People and two-wheelers of the drawn street scenes, as billboards. Coordinates as in `stage`."""

import math
from collections.abc import Callable

from latentseg.scenes.objects import (
    BICYCLE,
    BLACK,
    MOTORCYCLE,
    PERSON,
    RIDER,
    Spot,
    cloth,
    disc,
    metal,
    paint,
    pick,
)
from latentseg.scenes.stage import Colour, Stage, hsv, mix


def person(stage: Stage, x: float, z: float) -> None:
    """Pedestrian: adult or child, standing or walking, in trousers, coat or skirt, with or without a bag."""
    rng = stage.rng
    size = rng.uniform(1.55, 1.95) if rng.random() < 0.85 else rng.uniform(0.95, 1.4)
    stride, lean = rng.uniform(0.02, 0.28) * size / 1.75, rng.normal(0.0, 0.03)
    girth = size * rng.uniform(0.12, 0.18)
    hip, neck = (x, 0.5 * size), (x + lean, 0.84 * size)
    feet = ((x - stride, 0.0), (x + stride, 0.0))
    swing = rng.uniform(0.0, 0.25)
    hands = ((x - girth - swing * 0.6, 0.46 * size), (x + girth + swing * 0.6, 0.48 * size))
    figure(stage, z, (hip, neck), feet, hands, girth, PERSON)


def figure(
    stage: Stage, z: float, spine: tuple[Spot, Spot], feet: tuple[Spot, Spot], hands: tuple[Spot, Spot],
    girth: float, kind: int,
) -> None:  # fmt: skip
    """Human figure from its joints, (x, y) in metres: the same for pedestrians and riders."""
    rng, (hip, neck) = stage.rng, spine
    shirt, trousers, skin = cloth(rng), cloth(rng), hsv(0.06, rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.9))
    limb = 0.55 * girth
    for foot, bulge in zip(feet, (-0.03, 0.05), strict=True):
        knee = ((hip[0] + foot[0]) / 2 + bulge, (hip[1] + foot[1]) / 2)
        stage.line([(*hip, z), (*knee, z), (*foot, z)], limb * 1.3, trousers, kind, 0.008)
    if rng.random() < 0.3:
        drop = 0.45 * hip[1]
        skirt = [(hip[0] - girth, hip[1]), (hip[0] + girth, hip[1]), (hip[0] + 1.2 * girth, hip[1] - drop)]
        skirt.append((hip[0] - 1.2 * girth, hip[1] - drop))
        stage.fill([(*spot, z) for spot in skirt], shirt, kind)
    torso = [(hip[0] - 0.85 * girth, hip[1]), (hip[0] + 0.85 * girth, hip[1])]
    torso += [(neck[0] + 1.15 * girth, neck[1] - 0.04), (neck[0] - 1.15 * girth, neck[1] - 0.04)]
    stage.fill([(*spot, z) for spot in torso], shirt, kind)
    if rng.random() < 0.35:
        bag = ((hip[0] + neck[0]) / 2 + girth * pick(rng, (-0.9, 0.0, 0.9)), hip[1] * 0.4 + neck[1] * 0.6)
        stage.fill(disc(*bag, z, (0.8 * girth, 0.2), 8), cloth(rng), kind)
    for hand, side in zip(hands, (-1, 1), strict=True):
        shoulder = (neck[0] + side * girth, neck[1] - 0.08)
        stage.line([(*shoulder, z), (*hand, z)], limb, mix(shirt, BLACK, 0.2), kind)
    head = (neck[0] + 0.15 * (neck[0] - hip[0]), neck[1] + 0.14)
    stage.fill(disc(*head, z, (0.11, 0.14), 10), skin, kind)
    if rng.random() < 0.75:
        stage.fill(disc(head[0], head[1] + 0.06, z, (0.12, 0.1), 8), cloth(rng), kind)


def two_wheeler(stage: Stage, x: float, z: float, kind: int, turn: float) -> Callable[[float, float], Spot]:
    """Bicycle or motorcycle, seen from the side (turn 1 or -1) to the end (near 0).

    Returns:
        Its map from metres (along its length, above the ground) to the billboard's (x, y), for a rider to sit on.
    """
    rng, colour = stage.rng, mix(paint(stage.rng), metal(stage.rng), 0.4)

    def place(along: float, y: float) -> Spot:
        return x + along * turn, y

    heavy = kind == MOTORCYCLE
    radius, half = (0.31, 0.68) if heavy else (0.34, 0.54)
    for along in (-half, half):
        wide = max(abs(turn), 0.3 if heavy else 0.22) * radius
        wheel = disc(*place(along, radius), z, (wide, radius), 12)
        stage.mark(wheel, kind)
        stage.line([*wheel, wheel[0]], 0.12 if heavy else 0.06, BLACK, kind)
        if heavy:
            stage.fill(disc(*place(along, radius), z, (0.6 * wide, 0.6 * radius), 8), metal(rng), kind)
    if heavy:
        _engine(stage, place, z, colour)
    else:
        frame = ((-half, radius), (-0.15, 0.85), (0.4, 0.85), (half, radius))
        stage.mark([(*place(*spot), z) for spot in ((-half, radius), (-0.2, 0.85), (0.4, 0.9), (0.1, 0.3))], kind)
        for path in (frame, ((-half, radius), (0.0, 0.3), (-0.15, 0.9)), ((0.0, 0.3), (0.4, 0.85), (0.36, 1.02))):
            stage.line([(*place(*spot), z) for spot in path], 0.06, colour, kind, 0.007)
        stage.line([(*place(-0.28, 0.93), z), (*place(-0.05, 0.93), z)], 0.09, BLACK, kind)
    grip, wide = place(0.36 if not heavy else 0.4, 1.05), 0.28 * (1 - 0.5 * abs(turn))
    stage.line([(grip[0] - wide, grip[1], z), (grip[0] + wide, grip[1], z)], 0.06, BLACK, kind)
    return place


def _engine(stage: Stage, place: Callable[[float, float], Spot], z: float, colour: Colour) -> None:
    """Middle of a motorcycle or scooter: block, tank, seat, fork, perhaps a shield and a case."""
    rng, dark = stage.rng, mix(metal(stage.rng), BLACK, 0.5)
    middle = place(0, 0)[0]
    width = 0.2 * (1 - abs(place(1, 0)[0] - middle))  # seen from its end it is still this wide
    shapes: list[tuple[tuple[Spot, ...], Colour]] = [
        (((-0.4, 0.25), (0.35, 0.25), (0.42, 0.6), (-0.45, 0.6)), dark),
        (((-0.85, 0.72), (-0.7, 0.55), (0.4, 0.55), (0.5, 0.85), (0.1, 0.95), (-0.1, 0.78)), colour),
        (((-0.8, 0.74), (-0.1, 0.74), (-0.1, 0.84), (-0.85, 0.86)), BLACK),
    ]
    if rng.random() < 0.5:
        shapes.append((((0.42, 0.7), (0.58, 0.7), (0.45, 1.25), (0.36, 1.2)), mix(colour, (200, 210, 220), 0.4)))
    if rng.random() < 0.4:
        shapes.append((((-0.95, 0.85), (-0.5, 0.85), (-0.5, 1.2), (-0.95, 1.2)), dark))
    for outline, tone in shapes:
        points = [(*place(*spot), z) for spot in outline]
        stage.fill([(x + math.copysign(width, x - middle), y, z) for x, y, _ in points], tone, MOTORCYCLE)
    stage.line([(*place(0.68, 0.31), z), (*place(0.42, 1.05), z)], 0.09, dark, MOTORCYCLE)


def rider(stage: Stage, x: float, z: float, kind: int) -> None:
    """Person's figure on a bicycle or motorcycle."""
    rng = stage.rng
    turn = float(rng.uniform(0.25, 1.0) * pick(rng, (-1, 1)))
    place = two_wheeler(stage, x, z, kind, turn)
    heavy, upright = kind == MOTORCYCLE, rng.uniform(0.0, 0.3)
    hip, neck = place(-0.3, 0.88 if heavy else 0.95), place(-0.18 + upright, rng.uniform(1.4, 1.52))
    low = 0.32 if heavy else 0.22
    gap = 0.1 * (1 - abs(turn))
    feet = (place(0.1, low), place(0.05, low + (0.0 if heavy else 0.25)))
    feet = ((feet[0][0] - gap, feet[0][1]), (feet[1][0] + gap, feet[1][1]))
    grip = place(0.36, 1.07)
    wide = 0.25 * (1 - 0.6 * abs(turn))
    hands = ((grip[0] - wide, grip[1]), (grip[0] + wide, grip[1]))
    figure(stage, z, (hip, neck), feet, hands, rng.uniform(0.19, 0.27), RIDER)


def parked(stage: Stage, x: float, z: float, kind: int) -> None:
    """Two-wheeler without a rider."""
    two_wheeler(stage, x, z, kind, float(stage.rng.uniform(0.3, 1.0)))


def walker_with_bicycle(stage: Stage, x: float, z: float) -> None:
    """Person beside a bicycle: a pedestrian all the same."""
    two_wheeler(stage, x + 0.4, z, BICYCLE, 0.8)
    person(stage, x - 0.1, z)
