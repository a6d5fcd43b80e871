"""The figures of docs/method.md and docs/latent_classes.md, as SVG: `python docs/figures/draw.py`.

What they compute, the package computes.
"""

import csv
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from latentseg.analysis.heatmap import heat_maps
from latentseg.losses import conditional_entropy, latent_given_class, semantic_to_latent
from latentseg.methods.latent_classes import LatentClasses

FOLDER = Path(__file__).parent
BLUE, ORANGE, GREY, DARK = "#2b6cb0", "#d9480f", "#868e96", "#212529"
CLASSES = ("background", "horse", "cow")
COLORS = np.array([[222, 226, 230], [43, 108, 176], [217, 72, 15]], np.uint8)


def box(axis: Axes, x: float, y: float, text: str, color: str = DARK, width: float = 1.7) -> None:
    """A box with text, its centre at (x, y)."""
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.3), width, 0.6, boxstyle="round,pad=0.02,rounding_size=0.1", fc="white", ec=color, lw=1.4
    )
    axis.add_patch(shape)
    axis.text(x, y, text, ha="center", va="center", fontsize=11, color=color)


def arrow(
    axis: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", dashed: bool = False
) -> None:
    """An arrow, with a word above its middle."""
    color = ORANGE if dashed else DARK
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.3, "ls": "--" if dashed else "-", "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", end, start, arrowprops=style)
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    axis.text(middle[0], middle[1] + 0.12, text, ha="center", va="bottom", fontsize=8, color=color)


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure without axes, a unit to an inch."""
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    return figure, axis


def network() -> Figure:
    """Encoder, two branches, and what each of them learns from."""
    figure, axis = canvas(8, 4.2)
    box(axis, 1.0, 2.1, "image", width=1.2)
    box(axis, 2.9, 2.1, "encoder")
    box(axis, 5.0, 3.2, "semantic branch", BLUE)
    box(axis, 5.0, 1.0, "latent branch", ORANGE)
    box(axis, 7.1, 3.2, "map S_c", BLUE, 1.5)
    box(axis, 7.1, 1.0, "map S_l", ORANGE, 1.5)
    arrow(axis, (1.6, 2.1), (2.03, 2.1))
    arrow(axis, (3.75, 2.2), (4.13, 3.0))
    arrow(axis, (3.75, 2.0), (4.13, 1.2))
    arrow(axis, (5.87, 3.2), (6.33, 3.2))
    arrow(axis, (5.87, 1.0), (6.33, 1.0))
    arrow(axis, (7.1, 1.32), (7.1, 2.88), dashed=True)
    axis.text(6.95, 2.1, "L_cons, Eq. 10\nunlabelled images", ha="right", va="center", fontsize=10, color=ORANGE)
    axis.text(7.85, 3.75, "L_ce, Eq. 4: learns from the truth", ha="right", fontsize=10, color=BLUE)
    axis.text(7.85, 0.35, "H(C|L), Eq. 1: learns from the truth", ha="right", fontsize=10, color=ORANGE)
    return figure


def entropy() -> Figure:
    """Three ways to use four latent classes for four classes, and the H(C|L) of each."""
    names = ("road", "car", "bus", "sky")
    shares = torch.tensor([0.4, 0.15, 0.05, 0.4])
    own = torch.eye(4)
    grouped = torch.tensor([[1.0, 0, 0, 0], [0, 0.95, 0.05, 0], [0, 0.95, 0.05, 0], [0, 0, 0, 1]])
    titles = {"a latent class each": own, "car and bus share one": grouped, "all mixed": torch.full((4, 4), 0.25)}
    figure = Figure(figsize=(8, 2.7), layout="constrained")
    for axis, (title, given) in zip(figure.subplots(1, 3, sharey=True), titles.items(), strict=True):
        joint = shares[:, None] * given
        axis.imshow(joint, cmap="Blues", vmin=0, vmax=0.4)
        for row, column in np.argwhere(joint.numpy() > 0.005).tolist():
            value = float(joint[row, column])
            axis.text(
                column,
                row,
                f"{value:.2f}".removeprefix("0"),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if value > 0.25 else DARK,
            )
        axis.set_xticks(range(4), [f"l{number}" for number in range(4)], fontsize=8)
        axis.set_yticks(range(4), names, fontsize=8)
        axis.tick_params(length=0)
        axis.set_title(f"{title}\nH(C|L) = {float(conditional_entropy(joint)) + 0:.2f} nats", fontsize=9)
    return figure


def mapping() -> Figure:
    """One unlabelled pixel: what the semantic branch says, what that means in latent classes, what is learned."""
    matrix = torch.tensor([[0.4, 0.0, 0.0], [0.0, 0.15, 0.0], [0.0, 0.05, 0.0], [0.0, 0.0, 0.4]])
    semantic = torch.tensor([0.5, 0.2, 0.2, 0.1])
    mapped = semantic_to_latent(semantic.view(1, 4, 1, 1), latent_given_class(matrix)).flatten()
    latent = torch.tensor([0.06, 0.9, 0.04])
    figure = Figure(figsize=(8, 2.5), layout="constrained")
    panels = (
        ("S_c, semantic branch", semantic, ("road", "car", "bus", "sky"), BLUE),
        ("mapped by P(l|c), Eq. 7", mapped, ("road", "vehicles", "sky"), BLUE),
        ("S_l, latent branch: the target", latent, ("road", "vehicles", "sky"), ORANGE),
    )
    for axis, (title, values, names, color) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        bars = axis.bar(names, values.numpy(), color=color, width=0.6)
        axis.bar_label(bars, fmt="%.2f", fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.set_ylim(0, 1.05)
        axis.tick_params(labelsize=8, length=0)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def pooling() -> Figure:
    """A patchy map of one animal, before and after the image has decided."""
    truth = animal()
    probs = teacher(truth)
    classes = LatentClasses(3)
    classes.shares.copy_(torch.tensor([0.8, 0.1, 0.1]))
    classes.membership.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]]))
    pooled = classes.pool(probs, torch.ones(1, *truth.shape, dtype=torch.bool), power=3.0)
    maps = {
        "truth": truth,
        "teacher, pixel by pixel": probs.argmax(1)[0].numpy(),
        "pooled": pooled.argmax(1)[0].numpy(),
    }
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    for axis, (title, labels) in zip(figure.subplots(1, 3), maps.items(), strict=True):
        axis.imshow(COLORS[labels], interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    handles = [mpl.patches.Patch(color=color / 255, label=name) for name, color in zip(CLASSES, COLORS, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def animal() -> np.ndarray:
    """A horse of a few boxes, shape (30, 48): 1 where it is."""
    truth = np.zeros((30, 48), np.int64)
    for top, bottom, left, right in (
        (10, 19, 12, 36),
        (19, 28, 13, 16),
        (19, 28, 31, 34),
        (4, 14, 33, 39),
        (4, 8, 37, 44),
    ):
        truth[top:bottom, left:right] = 1
    return truth


def teacher(truth: np.ndarray) -> torch.Tensor:
    """What a teacher might say of it, shape (1, 3, h, w): sure of the outline, unsure of the kind, in patches."""
    random = torch.Generator().manual_seed(3)
    coarse = torch.randn(1, 1, 6, 9, generator=random)
    doubt = torch.nn.functional.interpolate(coarse, truth.shape, mode="bicubic")[0, 0]
    shown = torch.from_numpy(truth).bool()
    logits = torch.stack([torch.where(shown, -3.0, 3.0), 0.35 + 1.2 * doubt, -0.35 - 1.2 * doubt])
    return logits.softmax(0)[None]


def teaching() -> Figure:
    """Weak view to teacher, strong view to student."""
    figure, axis = canvas(8, 3.2)
    box(axis, 1.1, 1.6, "unlabelled\nimage", width=1.3)
    box(axis, 3.0, 2.4, "weak view", width=1.4)
    box(axis, 3.0, 0.8, "strong view", width=1.4)
    box(axis, 4.9, 2.4, "teacher", ORANGE, 1.4)
    box(axis, 4.9, 0.8, "student", BLUE, 1.4)
    box(axis, 6.95, 2.4, "map p_t, pooled", ORANGE, 1.6)
    box(axis, 6.95, 0.8, "map p_s", BLUE, 1.6)
    arrow(axis, (1.75, 1.75), (2.28, 2.25))
    arrow(axis, (1.75, 1.45), (2.28, 0.95))
    for y in (2.4, 0.8):
        arrow(axis, (3.7, y), (4.18, y))
        arrow(axis, (5.6, y), (6.13, y))
    arrow(axis, (4.9, 1.12), (4.9, 2.08))
    axis.text(4.8, 1.6, "moving\naverage", ha="right", va="center", fontsize=10)
    arrow(axis, (6.95, 2.08), (6.95, 1.12), dashed=True)
    axis.text(6.85, 1.6, "teaches", ha="right", va="center", fontsize=10, color=ORANGE)
    return figure


def heat_map() -> Figure:
    """P(l|c) of the run of docs/latent_classes.md, from the files of its analysis, without the idle columns."""
    panels = {}
    for title, name in (("val", "latent_given_class.csv"), ("training: M", "latent_given_class_M.csv")):
        head, *rows = csv.reader((FOLDER / name).read_text(encoding="utf-8").splitlines())
        panels[title] = np.array([[float(value) for value in row[1:7]] for row in rows])
    panels["training: M"] = np.vstack([panels["training: M"], np.full(6, np.nan)])  # M counts no ignored pixels
    names = [row.split(",")[0] for row in (FOLDER / "latent_given_class.csv").read_text(encoding="utf-8").splitlines()]
    won = panels["val"][:-1].argmax(1)
    places = {int(column): np.flatnonzero(won == column) for column in np.unique(won)}
    blocks = {column: (int(rows[0]), int(rows[-1])) for column, rows in places.items()}
    return heat_maps(panels, names[1:], head[1:7], blocks)


FIGURES = {
    "heat_map": heat_map,
    "network": network,
    "entropy": entropy,
    "mapping": mapping,
    "teaching": teaching,
    "pooling": pooling,
}


def main() -> None:
    """Write them all beside this file."""
    mpl.rcParams["svg.hashsalt"] = "latentseg"  # the same file each time
    for name, draw in FIGURES.items():
        draw().savefig(FOLDER / f"{name}.svg", facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main()
