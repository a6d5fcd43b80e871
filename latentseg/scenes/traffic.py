"""Vehicles of the drawn street scenes: cars, trucks, buses, trains. Coordinates as in `stage`."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from latentseg.scenes.objects import (
    BLACK,
    BUS,
    CAR,
    GLASS,
    LAMP,
    TRAIN,
    TRUCK,
    Spot,
    metal,
    paint,
    pick,
)
from latentseg.scenes.stage import GLOW, PLAIN, Colour, Point, Stage, mix

Outline = tuple[Spot, ...]
WHITE: Colour = (240, 240, 240)


class Pose(NamedTuple):
    """Place of a vehicle's middle on the ground; heading in radians, 0 = away from the camera."""

    x: float
    z: float
    heading: float


class Body(NamedTuple):
    """Shape of a vehicle; outline and glass are (length, height) shares, from the rear's foot over the top forwards."""

    length: float
    """Metres, as width and height."""
    width: float
    height: float
    outline: Outline
    side_glass: tuple[Outline, ...] = ()
    end_glass: tuple[int, ...] = ()
    """Edges of the outline that hold a window."""
    wheels: tuple[float, ...] = ()


SEDAN = Body(
    4.6, 1.8, 1.45,
    ((0, 0.18), (0, 0.62), (0.15, 0.66), (0.28, 1), (0.6, 1), (0.76, 0.64), (1, 0.54), (1, 0.18)),
    (((0.2, 0.66), (0.3, 0.93), (0.44, 0.93), (0.44, 0.66)), ((0.46, 0.66), (0.46, 0.93), (0.6, 0.93), (0.71, 0.66))),
    (2, 4), (0.19, 0.81),
)  # fmt: skip
HATCH = Body(
    3.9, 1.75, 1.5,
    ((0, 0.18), (0, 0.6), (0.09, 0.98), (0.5, 1), (0.73, 0.62), (1, 0.52), (1, 0.18)),
    (((0.08, 0.64), (0.14, 0.92), (0.32, 0.94), (0.32, 0.63)), ((0.35, 0.63), (0.35, 0.94), (0.5, 0.93), (0.67, 0.63))),
    (1, 3), (0.18, 0.82),
)  # fmt: skip
WAGON = Body(
    4.7, 1.85, 1.7,
    ((0, 0.2), (0, 0.62), (0.05, 0.99), (0.6, 1), (0.74, 0.66), (1, 0.58), (1, 0.2)),
    (((0.05, 0.66), (0.09, 0.92), (0.28, 0.93), (0.28, 0.66)), ((0.3, 0.66), (0.3, 0.93), (0.6, 0.94), (0.7, 0.66))),
    (1, 3), (0.18, 0.8),
)  # fmt: skip
VAN = Body(
    5.0, 1.95, 2.1,
    ((0, 0.15), (0, 0.5), (0.02, 1), (0.72, 1), (0.86, 0.58), (1, 0.5), (1, 0.15)),
    (((0.6, 0.6), (0.6, 0.9), (0.72, 0.9), (0.82, 0.6)), ((0.08, 0.6), (0.08, 0.88), (0.56, 0.88), (0.56, 0.6))),
    (1, 3), (0.17, 0.82),
)  # fmt: skip
CAB = Body(
    2.0, 2.3, 2.7,
    ((0, 0.15), (0, 0.92), (0.3, 1), (0.75, 1), (1, 0.55), (1, 0.15)),
    (((0.3, 0.55), (0.3, 0.85), (0.7, 0.85), (0.85, 0.55)),), (3,), (0.5,),
)  # fmt: skip
CARS = (SEDAN, HATCH, HATCH, WAGON, VAN)


def car(stage: Stage, pose: Pose) -> None:
    """Car, estate or van."""
    body = _jitter(stage.rng, pick(stage.rng, CARS), 0.1)
    vehicle(stage, pose, body, paint(stage.rng), CAR)


def truck(stage: Stage, pose: Pose, length: float) -> None:
    """Truck: a cab and a box, a tipper or a flat load."""
    rng = stage.rng
    height = rng.uniform(1.5, 3.6)
    box: Outline = ((0, 0.22), (0, 1), (1, 1), (1, 0.22))
    if height < 2.3:
        box = ((0, 0.4), (0, 0.9), (0.2, 1), (0.8, 1), (1, 0.9), (1, 0.4))
    cab = _jitter(rng, CAB, 0.12)
    cargo = Body(length - cab.length - 0.1, 2.45, height, box, (), (), (0.15, 0.32))
    load, tint = paint(rng), paint(rng)
    parts = [(-0.5 * cab.length, cargo, load), (0.5 * (cargo.length + 0.2), cab, tint)]
    for offset, body, colour in parts if math.cos(pose.heading) < 0 else parts[::-1]:
        shifted = Pose(pose.x + offset * math.sin(pose.heading), pose.z + offset * math.cos(pose.heading), pose.heading)
        vehicle(stage, shifted, body, colour, TRUCK)


def bus(stage: Stage, pose: Pose, length: float) -> None:
    """Bus: a box with a row of windows, on wheels."""
    rng, low = stage.rng, stage.rng.uniform(0.36, 0.48)
    front = rng.uniform(0.97, 1.0)
    outline: Outline = ((0, 0.1), (0, low), (0, 0.93), (0.01, 1), (front, 1), (1, low), (1, 0.1))
    glass = _windows(int(length / rng.uniform(1.3, 2.2)), low, rng.uniform(0.78, 0.88))
    body = Body(length, 2.5, rng.uniform(2.8, 3.4), outline, glass, (1, 4), (0.2, 0.78))
    vehicle(stage, pose, body, paint(rng), BUS)


def train(stage: Stage, pose: Pose, length: float) -> None:
    """Tram or train: longer and taller than a bus, rounded ends, a skirt instead of wheels, a pantograph."""
    rng, low = stage.rng, stage.rng.uniform(0.38, 0.5)
    outline: Outline = (
        (0.02, 0.06), (0, 0.25), (0.005, low), (0.03, 0.93), (0.05, 1), (0.95, 1), (0.97, 0.93), (0.995, low),
        (1, 0.25), (0.98, 0.06),
    )  # fmt: skip
    glass = _windows(int(length / rng.uniform(1.4, 3.0)), low, rng.uniform(0.76, 0.86))
    body = Body(length, 2.45, rng.uniform(3.3, 3.9), outline, glass, (2, 6))
    vehicle(stage, pose, body, paint(rng), TRAIN)
    tip = pose.z - 0.2 * length
    stage.line([(pose.x - 0.5, body.height, tip), (pose.x, body.height + 1.2, tip)], 0.08, BLACK, TRAIN)
    stage.line([(pose.x + 0.5, body.height, tip), (pose.x, body.height + 1.2, tip)], 0.08, BLACK, TRAIN)


def vehicle(stage: Stage, pose: Pose, body: Body, colour: Colour, kind: int) -> None:
    """Draw a body: its outline pulled over its width, with windows, lamps, stripe and wheels on the visible faces."""
    rng, place, (sin, cos) = stage.rng, _frame(pose, body), (math.sin(pose.heading), math.cos(pose.heading))
    glass, lit = pick(rng, GLASS), kind in (BUS, TRAIN) and stage.weather.darkness > 0.2
    faces: list[tuple[float, int, list[Point], Colour]] = []
    for edge, (p, q) in enumerate(pairwise(body.outline)):
        points = [place(*p, -0.5), place(*p, 0.5), place(*q, 0.5), place(*q, -0.5)]
        dl, dy = (q[0] - p[0]) * body.length, (q[1] - p[1]) * body.height
        size = math.hypot(dl, dy) or 1.0
        normal = (-dy / size * sin, dl / size, -dy / size * cos)
        if _faces(stage, points[0], normal):
            faces.append((sum(point[2] for point in points), edge, points, stage.lit(colour, normal)))
    for _, edge, points, tone in sorted(faces, key=lambda face: -face[0]):
        stage.fill(points, tone, kind)
        if edge in body.end_glass:
            stage.fill(_inset(points, 0.1), LAMP if lit else glass, kind, GLOW if lit else PLAIN)
    for side in (-1, 1):
        normal = (cos * side, 0.0, -sin * side)
        if _faces(stage, place(0.5, 0.5, side / 2), normal):
            _side(stage, pose, body, side, stage.lit(colour, normal), kind)
    for end, s in ((-1, -0.002), (1, 1.002)):
        if _faces(stage, place(s, 0.4, 0), (end * sin, 0.0, end * cos)):
            _end(stage, partial(place, s), body, (190, 30, 30) if end < 0 else (250, 245, 225), kind)


def _side(stage: Stage, pose: Pose, body: Body, side: int, colour: Colour, kind: int) -> None:
    """Side of a vehicle: stripe, windows, wheels."""
    rng, place = stage.rng, _frame(pose, body)
    lit = kind in (BUS, TRAIN) and stage.weather.darkness > 0.2
    stage.fill([place(*spot, side * 0.5) for spot in body.outline], colour, kind)
    if rng.random() < (0.1 if kind == CAR else 0.5):
        low = rng.uniform(0.15, 0.3) if body.side_glass else rng.uniform(0.3, 0.7)
        strip = ((0.03, low), (0.97, low), (0.97, low + 0.12), (0.03, low + 0.12))
        stage.detail([place(*spot, side * 0.5) for spot in strip], mix(paint(rng), colour, 0.3))
    glass = pick(rng, GLASS)
    for pane in body.side_glass:
        points = [place(*spot, side * 0.5) for spot in pane]
        if lit:
            stage.fill(points, mix(LAMP, glass, 0.3), kind, GLOW)
        else:
            stage.detail(points, glass)
    radius = min(0.4, 0.22 * body.height) if kind == CAR else 0.5
    turns = [2 * math.pi * k / 10 for k in range(10)]
    for wheel in body.wheels:
        for share, tone in ((1.0, BLACK), (0.5, metal(rng))):
            rim = [(share * radius * math.cos(t), radius * (1 + share * math.sin(t))) for t in turns]
            points = [place(wheel + dl / body.length, y / body.height, side * 0.5) for dl, y in rim]
            stage.fill(points, tone, kind)


def _end(stage: Stage, place: Callable[[float, float], Point], body: Body, hue: Colour, kind: int) -> None:
    """Front or rear: lamps, plate, and the wheels below."""
    burning = stage.weather.darkness > 0.2 or stage.rng.random() < 0.2
    high = 0.5 if kind == CAR else 0.3
    for w in (-0.45, 0.31):
        lamp = _patch(place, high - 0.1, high, w, w + 0.14)
        if burning:
            stage.fill(lamp, hue, kind, GLOW)
        else:
            stage.detail(lamp, mix(hue, BLACK, 0.3))
    for w in (-0.45, 0.33) if body.wheels else ():
        stage.fill(_patch(place, 0.0, 0.2, w, w + 0.12), BLACK, kind)
    stage.detail(_patch(place, 0.28, 0.36, -0.14, 0.14), (215, 215, 205))


def _frame(pose: Pose, body: Body) -> Callable[[float, float, float], Point]:
    """Map (share of length, share of height, share of width from the middle) to the street."""
    sin, cos = math.sin(pose.heading), math.cos(pose.heading)

    def place(s: float, h: float, w: float) -> Point:
        ahead, right = (s - 0.5) * body.length, w * body.width
        return pose.x + ahead * sin + right * cos, h * body.height, pose.z + ahead * cos - right * sin

    return place


def _patch(place: Callable[[float, float], Point], h0: float, h1: float, w0: float, w1: float) -> list[Point]:
    return [place(h0, w0), place(h0, w1), place(h1, w1), place(h1, w0)]


def _faces(stage: Stage, point: Point, normal: Point) -> bool:
    """Whether a face is turned to the camera, which a bend shows under another angle."""
    x, y, z = point
    eye_x = stage.shift_metres - stage.bend * z * z
    return (eye_x - x) * normal[0] + (stage.eye_metres - y) * normal[1] - z * normal[2] > 0


def _inset(points: list[Point], share: float) -> list[Point]:
    middle = [sum(part) / len(points) for part in zip(*points, strict=True)]
    return [
        (x + (middle[0] - x) * share, y + (middle[1] - y) * share, z + (middle[2] - z) * share) for x, y, z in points
    ]


def _windows(count: int, low: float, high: float) -> tuple[Outline, ...]:
    edges = [0.03 + 0.94 * k / count for k in range(count + 1)]
    gap = 0.12 / count
    return tuple(((a + gap, low), (a + gap, high), (b - gap, high), (b - gap, low)) for a, b in pairwise(edges))


def _jitter(rng: np.random.Generator, body: Body, spread: float) -> Body:
    length, width, height = (float(size * rng.uniform(1 - spread, 1 + spread)) for size in body[:3])
    return body._replace(length=length, width=width, height=height)
