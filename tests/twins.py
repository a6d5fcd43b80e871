"""The weak-to-strong methods in plain loops over pixels, with CutMix box by box: what the tests compare with."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log
from types import MappingProxyType

import torch
from torch import Tensor
from toy import SIZE, C, L, batch, built, networks, tensors

from latentseg.config import StrongConfig
from latentseg.data.batches import Batch
from latentseg.data.features import Features
from latentseg.methods.base import Method, Networks
from latentseg.methods.weak_to_strong import CutMix
from latentseg.models.segmenter import Output

N = 3  # unlabelled images: with two, the image before is the one behind
SEED = 13
CUTMIX, DROPPED = 0.6, 0.4  # by this seed some images get a box and some do not
TAU = 0.45  # many of the toy's unlabelled pixels are above, many below
Place = tuple[int, int, int]
OTHERS = {"mean_teacher": ["teacher"], "fixmatch": [], "unimatch": [], "cps": ["peer"], "latent_match": ["teacher"]}
Options = Mapping[str, object]
EMPTY: Options = MappingProxyType({})
HEADS: Options = {"grid": "heads"}
POWERS: Options = {"pool_power": 1.5, "balance": 0.5}


def build(name: str, options: Options = EMPTY, start: int = 0) -> Method:
    given = {"name": name, "num_latent": L, "threshold": TAU, "teacher_decay": 0.4, **options}
    strong = StrongConfig(cutmix=CUTMIX, feature_dropout=DROPPED)
    return built(given, start=start, strong=strong)


def nets_of(name: str, adversarial: bool = False) -> Networks:
    return sharper(networks(adversarial, L, OTHERS[name]))


def sharper(nets: Networks) -> Networks:
    """Every class is somewhere the most probable one, here surely and there not."""
    for name, parameter in nets.named_parameters():
        if name.endswith("semantic.weight"):
            parameter.data = 6 * (parameter.data - parameter.data.mean(1, keepdim=True))
        if name.endswith("semantic.bias"):
            parameter.data *= 0.2
    return nets


def data_of(kind: str = "images") -> Batch:
    data = replace(batch(N), seed=SEED)
    if kind == "images":
        return data
    return replace(data, unlabeled=Features([tensors(data.unlabeled)], (SIZE, SIZE)), strong=())


def expected_teacher(nets: Networks, decay: float) -> None:
    """Move the copy's teacher by hand."""
    for mine, theirs in zip(nets["teacher"].parameters(), nets["segmenter"].parameters(), strict=True):
        mine.data = decay * mine.data + (1 - decay) * theirs.data


# The twins. Networks speak for themselves (1x1 convolutions); mixing, labelling and losses are loops over pixels.


def pasted(maps: Tensor, boxes: Tensor) -> Tensor:
    """CutMix, box by box: of the image before."""
    mixed = maps.clone()
    for n, y, x in boxes.nonzero().tolist():
        mixed[n, ..., y, x] = maps[n - 1, ..., y, x]
    return mixed


def dropped(maps: Tensor, share: float, random: torch.Generator) -> Tensor:
    gone, changed = torch.rand(*maps.shape[:2], 1, 1, generator=random) < share, maps.clone()
    for n in range(len(maps)):
        for channel in range(maps.shape[1]):
            changed[n, channel] = 0.0 if gone[n, channel] else maps[n, channel] / (1 - share)
    return changed


class Twin:
    """What the unlabelled part of a step sees, recomputed."""

    def __init__(self, nets: Networks, data: Batch, grid: str) -> None:
        self.nets, self.data, self.grid = nets, data, grid
        self.random = torch.Generator().manual_seed(data.seed)
        weak = data.unlabeled
        self.weak = weak.maps[0] if isinstance(weak, Features) else tensors(weak)
        assert data.unlabeled_valid is not None
        self.valid = data.unlabeled_valid if grid == "pixels" else data.unlabeled_valid[:, 1::2, 1::2]

    def views(self, number: int) -> list[Tensor]:
        if isinstance(self.data.unlabeled, Features):
            return [dropped(self.weak, DROPPED, self.random) for _ in range(number)]
        return list(self.data.strong[:number])

    def says(self, name: str, images: Tensor) -> Output:
        """Probabilities of both branches."""
        said = self.nets[name](images, upsample=self.grid == "pixels")
        return Output(said.semantic.softmax(1), said.latent.softmax(1))

    def lesson(self, cutmix: CutMix, view: Tensor, names: tuple[str, str]) -> tuple[Tensor, Output, Tensor]:
        """Probabilities of the student, both maps of the teacher and the valid pixels, on the mixed images."""
        student, teacher = names
        cells = cutmix.boxes(*self.valid.shape[1:])
        said = self.says(teacher, self.weak)
        assert said.latent is not None
        mixed = Output(pasted(said.semantic, cells), pasted(said.latent, cells))
        learns = self.says(student, pasted(view, cutmix.boxes(SIZE, SIZE))).semantic
        return learns, mixed, pasted(self.valid, cells)


def sorted_out(probs: Tensor, valid: Tensor, tau: float) -> tuple[dict[Place, int], list[Place]]:
    """Class of each accepted pixel; the rejected pixels."""
    labels: dict[Place, int] = {}
    rows, rejected = probs.movedim(1, -1).tolist(), []
    for n, y, x in valid.nonzero().tolist():
        best = max(rows[n][y][x])
        if best >= tau:
            labels[n, y, x] = rows[n][y][x].index(best)
        else:
            rejected.append((n, y, x))
    return labels, rejected


def match(student: Tensor, teacher: Tensor, valid: Tensor, tau: float) -> float:
    rows = student.movedim(1, -1).tolist()
    labels, _ = sorted_out(teacher, valid, tau)
    return -sum(log(rows[n][y][x][label]) for (n, y, x), label in labels.items()) / int(valid.sum())


def labeled(nets: Networks, name: str, data: Batch) -> float:
    rows = nets[name](data.images).semantic.softmax(1).movedim(1, -1).tolist()
    known = (data.targets != 255).nonzero().tolist()
    return -sum(log(rows[n][y][x][int(data.targets[n, y, x])]) for n, y, x in known) / len(known)


def twin_fixmatch(twin: Twin) -> dict[str, float]:
    [view] = twin.views(1)
    learns, says, valid = twin.lesson(CutMix(N, CUTMIX, twin.random), view, ("segmenter", "segmenter"))
    return {"match": match(learns, says.semantic, valid, TAU)}


def twin_unimatch(twin: Twin) -> dict[str, float]:
    says = twin.says("segmenter", twin.weak).semantic
    learns = twin.says("segmenter", dropped(twin.weak, 0.5, twin.random)).semantic
    values = {"match_f": match(learns, says, twin.valid, TAU)}
    for number, view in enumerate(twin.views(2), start=1):
        learns, mixed, valid = twin.lesson(CutMix(N, CUTMIX, twin.random), view, ("segmenter", "segmenter"))
        values[f"match_{number}"] = match(learns, mixed.semantic, valid, TAU)
    return values


def twin_cps(twin: Twin) -> dict[str, float]:
    cutmix = CutMix(N, 1.0, twin.random, (0.25, 0.5))
    view = twin.views(1)[0] if isinstance(twin.data.unlabeled, Features) else twin.weak
    values = {"ce_2": labeled(twin.nets, "peer", twin.data)}
    for name, names in (("match", ("segmenter", "peer")), ("match_2", ("peer", "segmenter"))):
        learns, says, valid = twin.lesson(cutmix, view, names)
        values[name] = match(learns, says.semantic, valid, 0.0)
    return values


def half(random: torch.Generator) -> CutMix:
    return CutMix(N, 1.0, random, (0.5, 0.5), (0.5, 2.0))


def imitated(student: Tensor, teacher: Tensor, valid: Tensor, weights: list[float] | None = None) -> float:
    sure, unsure = sorted_out(teacher, valid, TAU)
    mine, theirs, total = student.movedim(1, -1).tolist(), teacher.movedim(1, -1).tolist(), 0.0
    for n, y, x in valid.nonzero().tolist():
        pairs = list(zip(mine[n][y][x], theirs[n][y][x], strict=True))
        weight = sum(w * q for w, (_, q) in zip(weights or [1.0] * C, pairs, strict=True))
        total += weight * sum((p - q) ** 2 for p, q in pairs)
    return len(sure) / (len(sure) + len(unsure)) * total / int(valid.sum())


def twin_mean_teacher(twin: Twin) -> dict[str, float]:
    cutmix = half(twin.random)
    view = twin.views(1)[0] if isinstance(twin.data.unlabeled, Features) else twin.weak
    learns, says, valid = twin.lesson(cutmix, view, ("segmenter", "teacher"))
    return {"match": imitated(learns, says.semantic, valid)}


@dataclass
class LatentState:
    """What latent_match remembers."""

    groups: list[int]
    """Latent class of each class."""
    together: list[list[float]] = field(default_factory=lambda: [[0.0] * C for _ in range(C)])
    confusion: list[list[float]] = field(default_factory=lambda: [[0.0] * C for _ in range(C)])
    labeled_shares: list[float] = field(default_factory=lambda: [0.0] * C)
    shares: list[float] = field(default_factory=lambda: [0.0] * C)

    def group(self, values: list[float], c: int) -> float:
        """Sum of values over the latent class of c."""
        return sum(value for value, group in zip(values, self.groups, strict=True) if group == self.groups[c])

    def weights(self, power: float) -> list[float]:
        weights = [max(1e-3, self.group(self.shares, c)) ** -power for c in range(C)]
        mean = sum(w * s for w, s in zip(weights, self.shares, strict=True))
        return [w / mean for w in weights]


def moved(old: float, new: float, rate: float) -> float:
    return (1 - rate) * old + rate * new


def told_apart(a: float, b: float) -> float:
    """Entropy of the pair, in nats, times a + b."""
    return -sum(value * log(value / (a + b)) for value in (a, b) if value > 0)


def see_labeled(state: LatentState, targets: Tensor, step: int) -> None:
    images, rate = [], max(0.002, 1 / (step + 1))
    for target in targets.flatten(1).tolist():
        known = [c for c in target if c != 255]
        if known:
            images.append([known.count(c) / len(known) for c in range(C)])
    for a in range(C):
        mean = sum(shares[a] for shares in images) / len(images)
        state.labeled_shares[a] = moved(state.labeled_shares[a], mean, rate)
        for b in range(C):
            nats = sum(told_apart(shares[a], shares[b]) for shares in images) / len(images)
            state.together[a][b] = moved(state.together[a][b], nats, rate)


def pooled_map(state: LatentState, probs: Tensor, valid: Tensor, power: float, near: Tensor | None = None) -> Tensor:
    """Five rounds of expectation maximisation for each image."""
    usual = [max(1e-4, share) for share in state.shares]
    usual = [share / sum(usual) for share in usual]
    rows = probs.movedim(1, -1).tolist()
    result = probs.movedim(1, -1).clone()
    for n in range(len(rows)):
        places, shown = [(y, x) for y in range(len(rows[n])) for x in range(len(rows[n][0]))], valid[n].tolist()
        maps = {(y, x): rows[n][y][x] for y, x in places}
        for _ in range(5):
            voters = [maps[y, x] for y, x in places if shown[y][x]]
            here = [sum(p[c] for p in voters) / len(voters) + 0.03 * usual[c] for c in range(C)]
            ratio = [(here[c] / state.group(here, c) / (usual[c] / state.group(usual, c))) ** power for c in range(C)]
            if near is not None:
                ratio = [r * factor for r, factor in zip(ratio, near[n].tolist(), strict=True)]
            for y, x in places:
                raised = [p * r for p, r in zip(rows[n][y][x], ratio, strict=True)]
                maps[y, x] = [raised[c] / state.group(raised, c) * state.group(rows[n][y][x], c) for c in range(C)]
        for y, x in places:
            result[n, y, x] = torch.tensor(maps[y, x], dtype=probs.dtype)
    return result.movedim(-1, 1)


def twin_latent_match(twin: Twin, state: LatentState, options: Options, step: int, start: int = 0) -> dict[str, float]:
    power, balance = float(str(options.get("pool_power", 3.0))), float(str(options.get("balance", 1.0)))
    [view] = twin.views(1)
    cutmix, weak = half(twin.random), twin.says("teacher", twin.weak).semantic
    learns, says, valid = twin.lesson(cutmix, view, ("segmenter", "teacher"))
    see_labeled(state, twin.data.targets, step)
    rows, places = weak.movedim(1, -1).tolist(), twin.valid.nonzero().tolist()
    for c in range(C):
        mean = sum(rows[n][y][x][c] for n, y, x in places) / len(places)
        state.shares[c] = moved(state.shares[c], mean, max(0.005, 1 / (step + 1)))
    map_ = pooled_map(state, weak, twin.valid, power, twin.data.neighbours) if step >= start else weak
    theirs, mine = (maps.movedim(1, -1).tolist() for maps in (says.semantic, learns))
    places = valid.nonzero().tolist()
    for a in range(C):
        for b in range(C):
            mean = sum(theirs[n][y][x][a] * mine[n][y][x][b] for n, y, x in places) / len(places)
            state.confusion[a][b] = moved(state.confusion[a][b], mean, 0.01)
    pooled = pasted(map_, cutmix.boxes(*twin.valid.shape[1:]))
    return {"match": imitated(learns, pooled, valid, state.weights(balance))}
