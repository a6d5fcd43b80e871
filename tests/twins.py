"""The weak-to-strong methods in plain loops over pixels, with CutMix box by box: what the tests compare with."""

from collections.abc import Mapping
from dataclasses import replace
from math import log
from types import MappingProxyType

import torch
from torch import Tensor, nn
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
ALPHA = 0.25
Place = tuple[int, int, int]
OTHERS = {"mean_teacher": ["teacher"], "fixmatch": [], "unimatch": [], "cps": ["peer"], "latent_match": ["teacher"]}
Options = Mapping[str, object]
EMPTY: Options = MappingProxyType({})
HEADS: Options = {"grid": "heads"}
CONTROL: Options = {"latent_target": "semantic", "latent_on": "all", "sharpen": 0.5, "weigh_entropy": True}


def build(name: str, options: Options = EMPTY, start: int = 0) -> Method:
    given = {"name": name, "num_latent": L, "threshold": TAU, "teacher_decay": 0.4, **options}
    strong = StrongConfig(cutmix=CUTMIX, feature_dropout=DROPPED)
    return built(given, ALPHA, start, strong)


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


def imitated(student: Tensor, teacher: Tensor, valid: Tensor) -> float:
    sure, unsure = sorted_out(teacher, valid, TAU)
    mine, theirs, total = student.movedim(1, -1).tolist(), teacher.movedim(1, -1).tolist(), 0.0
    for n, y, x in valid.nonzero().tolist():
        total += sum((p - q) ** 2 for p, q in zip(mine[n][y][x], theirs[n][y][x], strict=True))
    return len(sure) / (len(sure) + len(unsure)) * total / int(valid.sum())


def twin_mean_teacher(twin: Twin) -> dict[str, float]:
    cutmix = half(twin.random)
    view = twin.views(1)[0] if isinstance(twin.data.unlabeled, Features) else twin.weak
    learns, says, valid = twin.lesson(cutmix, view, ("segmenter", "teacher"))
    return {"match": imitated(learns, says.semantic, valid)}


def matrix_after(nets: Networks, data: Batch, before: Tensor) -> tuple[float, Tensor]:
    """H(C | L) of the labelled images, and M."""
    maps, joint = nets["segmenter"](data.images).latent.softmax(1), torch.zeros(C, L, dtype=torch.float64)
    known = (data.targets != 255).nonzero().tolist()
    for n, y, x in known:
        joint[data.targets[n, y, x]] += maps[n, :, y, x]
    p = (joint / len(known)).tolist()
    sums = [sum(p[c][k] for c in range(C)) for k in range(L)]
    doubt = -sum(p[c][k] * log(p[c][k] / sums[k]) for c in range(C) for k in range(L))
    return doubt, (1 - ALPHA) * before + ALPHA * joint


def twin_latent_match(twin: Twin, matrix: Tensor, options: Options) -> dict[str, float]:
    [view] = twin.views(1)
    labels = options.get("match_loss") == "labels"
    cutmix = CutMix(N, CUTMIX, twin.random) if labels else half(twin.random)
    learns, says, valid = twin.lesson(cutmix, view, ("segmenter", "teacher"))
    matched = match(learns, says.semantic, valid, TAU) if labels else imitated(learns, says.semantic, valid)
    control, power = options.get("latent_target") == "semantic", 1 / float(str(options.get("sharpen", 1.0)))
    assert says.latent is not None
    teaching = (says.semantic if control else says.latent).movedim(1, -1).tolist()
    mine, total = learns.movedim(1, -1).tolist(), 0.0
    chance = (matrix / matrix.sum(1, keepdim=True)).tolist()
    _, where = sorted_out(says.semantic, valid, TAU)
    if options.get("latent_on") == "all":
        where = [(n, y, x) for n, y, x in valid.nonzero().tolist()]
    for n, y, x in where:
        sharp = [p**power for p in teaching[n][y][x]]
        target = [p / sum(sharp) for p in sharp]
        weight = 1 + sum(p * log(p) for p in target) / log(len(target)) if options.get("weigh_entropy") else 1.0
        said = mine[n][y][x]
        mapped = said if control else [sum(chance[c][k] * said[c] for c in range(C)) for k in range(L)]
        total -= weight * sum(t * log(p) for t, p in zip(target, mapped, strict=True))
    return {"match": matched, "cons": total / int(valid.sum())}


def verdicts(judge: nn.Module, maps: list[tuple[Tensor, Tensor]], truth: Tensor) -> dict[str, float]:
    """Eqs. 5 and 12 for the labelled map and the student's on the strong view, each with its valid pixels."""
    one_hot = torch.zeros_like(maps[0][0])
    for n, y, x in (truth != 255).nonzero().tolist():
        one_hot[n, truth[n, y, x], y, x] = 1

    def chances(probs: Tensor, valid: Tensor) -> list[float]:
        chance = judge(probs).sigmoid()[:, 0].tolist()
        return [chance[n][y][x] for n, y, x in valid.nonzero().tolist()]

    def mean(values: list[float]) -> float:
        return -sum(log(value) for value in values) / len(values)

    labeled_ones, strong = (chances(*each) for each in maps)
    fake = mean([1 - chance for chance in labeled_ones + strong])
    return {
        "adv": mean(labeled_ones),
        "adv_u": mean(strong),
        "real": mean(chances(one_hot, truth != 255)),
        "fake": fake,
    }
