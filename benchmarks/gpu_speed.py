"""Parts of `gpu.py` that time: steps beside the bare network, cached features, prediction."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import timing_predict
import torch
from clocks import in_turns, ratio
from gpu_setting import TINY, Row, Setting, busy_seconds, rate, tried
from made import SIZE, write_folder
from timing import bare, opened
from torch import Tensor
from torch.nn import functional as F

from latentseg import predict
from latentseg.data.batches import Batch
from latentseg.engine import full_speed
from latentseg.inference.model import Model
from latentseg.losses import IGNORE_INDEX
from latentseg.models.discriminator import Discriminator
from latentseg.models.segmenter import Segmenter
from latentseg.presets import load_config, only_read
from latentseg.training.costs import measure_costs
from latentseg.training.trainer import Trainer

STEPS = 5
"""In a block that is timed."""
FULL = ["batch_size=10", "workers=8"]
FLOAT32, BF16 = "precision=32-true", "precision=bf16-mixed"
CONTIGUOUS, COMPILED = "model.channels_last=false", "compile=true"
TEST_VIT = ["model.encoder=test_vit", "model.weights_kind=none", "model.head_stride=16", "model.frozen=false"]
"""A vision transformer that a CPU takes a step of at once."""
VIT = ["model.head=light", "batch_size=8", "workers=8"]
Rows = dict[str, tuple[str, str, list[str]]]
"""Preset, terms as in `timing.TERMS`, and options by name."""
ADVERSARIAL = " with discriminator"


def tf32(on: bool) -> None:
    """Let a GPU round the factors of float32 products to 10 bits (PyTorch: in convolutions, unless told otherwise)."""
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def resnet101(setting: Setting) -> Iterator[Row]:
    """DeepLab ResNet-101 at 321, 10 + 10 images, the latent-class method, by precision and memory format."""
    rows: Rows = {
        "bf16": ("voc", "", [*FULL, BF16]),
        "float32": ("voc", "", [*FULL, FLOAT32]),
        "TF32": ("voc", "", [*FULL, FLOAT32]),
        "bf16, contiguous": ("voc", "", [*FULL, BF16, CONTIGUOUS]),
        "bf16, with discriminator": ("voc", ADVERSARIAL, [*FULL, BF16]),
        "bf16, cudnn.benchmark": ("voc", "", [*FULL, BF16]),
    }
    return _steps(setting, {"scenes": ("scenes", "", TINY)} if setting.small else rows)


def vision_transformers(setting: Setting) -> Iterator[Row]:
    """DINOv2-S and B at 518 with random weights, latent_match."""
    large = ["model.encoder=vit_base_patch14_dinov2.lvd142m"]
    rows: Rows = {
        "DINOv2-S, bf16": ("voc_match_dinov2", "", [*VIT, BF16]),
        "DINOv2-B, bf16": ("voc_match_dinov2", "", [*VIT, BF16, *large]),
        "DINOv2-S, TF32": ("voc_match_dinov2", "", [*VIT, FLOAT32]),
    }
    tiny = [*only_read(TINY, "latent_match"), *TEST_VIT, "method.name=latent_match"]
    return _steps(setting, {"test_vit": ("scenes", "", tiny)} if setting.small else rows)


def compiled(setting: Setting) -> Iterator[Row]:
    """With the encoder compiled; `first_seconds` is what that costs."""
    if setting.small:
        yield "none", {"why": "a compiler takes minutes on a CPU"}
        return
    rows: Rows = {
        "ResNet-101, bf16, compiled": ("voc", "", [*FULL, BF16, COMPILED]),
        "DINOv2-S, bf16, compiled": ("voc_match_dinov2", "", [*VIT, BF16, COMPILED]),
    }
    yield from _steps(setting, rows)


def _steps(setting: Setting, rows: Rows) -> Iterator[Row]:
    return tried({name: partial(_timed, setting, name, *row) for name, row in rows.items()})


def _timed(setting: Setting, name: str, preset: str, terms: str, options: list[str]) -> dict[str, Any]:
    """A step's rate, its time over the bare network's, waiting, idling and memory."""
    tf32("float32" not in name)
    torch.backends.cudnn.benchmark = "cudnn.benchmark" in name
    with opened(preset, setting.timing(*options), terms) as trainer:
        began = time.perf_counter()
        setting.done(trainer.step)()
        first = time.perf_counter() - began
        trainer.step()
        if setting.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        return measured(setting, trainer) | {"first_seconds": round(first, 2), "options": options}


def measured(setting: Setting, trainer: Trainer) -> dict[str, Any]:
    """What steps take, in blocks; the bare network's forward and backward in turns with them."""
    steps, rounds, waits = (1, 1, []) if setting.small else (STEPS, 3, list[float]())

    def block() -> None:
        for _ in range(steps):
            trainer.step()
            waits.append(trainer.waited)

    setting.done(block)()
    gigabytes = torch.cuda.max_memory_allocated() / 1e9 if setting.device == "cuda" else None
    waits.clear()
    functions = {"step": setting.done(block)}
    if isinstance(trainer.read()[1].images, Tensor):
        functions["bare"] = setting.done(partial(bare, trainer, trainer.read()[1], steps))
    seconds = in_turns(functions, rounds, time.perf_counter)
    each = sorted(seconds["step"])[len(seconds["step"]) // 2] / steps
    waited = sum(waits[steps:]) / sum(seconds["step"])
    busy = busy_seconds(setting, block) / steps
    trainer.settle()
    pairs = trainer.config.batch_size * (2 if trainer.method.uses_unlabeled else 1)
    found = {
        "images_per_second": round(pairs / each, 1),
        "step_ms": round(1000 * each, 2),
        "waiting_share": round(waited, 4),
        "idle_share": round(max(0.0, 1 - busy / each), 4) if setting.device == "cuda" else None,
        "peak_gb": None if gigabytes is None else round(gigabytes, 2),
    }
    return found | ({"over_bare": ratio(seconds["step"], seconds["bare"])} if "bare" in seconds else {})


def published(setting: Setting) -> Iterator[Row]:
    """AdvSemiSeg's step as published beside ours, in turns: their time over ours."""
    tf32(True)  # PyTorch's own default for convolutions, which both have
    options = TINY if setting.small else FULL
    preset = "scenes" if setting.small else "voc"
    ours = ["method.name=advsemiseg", "method.trust=0.2", *options]
    rows = {"theirs": [FLOAT32, CONTIGUOUS], "float32": [FLOAT32], "bf16": [BF16]}
    with ExitStack() as stack:
        trainers = {
            name: stack.enter_context(opened(preset, setting.timing(*ours, *more), ADVERSARIAL))
            for name, more in rows.items()
        }
        batch = trainers["theirs"].read()[1]
        functions: dict[str, Callable[[], object]] = {
            name: trainer.step if name != "theirs" else partial(published_step, trainer, batch)
            for name, trainer in trainers.items()
        }
        whole = {name: setting.done(function) for name, function in functions.items()}
        seconds = in_turns(whole, 1 if setting.small else 8, time.perf_counter)
    for name in ("float32", "bf16"):
        yield f"ours, {name}", ratio(seconds[name], seconds["theirs"])
    yield "theirs", {"step_ms": round(1000 * sorted(seconds["theirs"])[len(seconds["theirs"]) // 2], 1)}


def published_step(trainer: Trainer, batch: Batch) -> None:
    """A step as arXiv:1802.07934 and its released code describe it, with our networks and optimisers.

    Unlabelled part, labelled part, then the discriminator: fakes of both and truth each in a pass of its own. Maps are
    resized by `interpolate`; the mask of trusted pixels and the one-hot truth are made by NumPy on the CPU.
    """
    segmenter, discriminator = trainer.state.segmenter, trainer.state.networks["discriminator"]
    assert isinstance(discriminator, Discriminator)
    assert isinstance(batch.images, Tensor)
    assert isinstance(batch.unlabeled, Tensor)
    method = trainer.config.method
    for optimizer in trainer.state.optimizers.values():
        optimizer.zero_grad()
    discriminator.requires_grad_(False)

    logits = _resized(segmenter, batch.unlabeled)
    fake_unlabeled = logits.softmax(1)
    verdict = _verdict(discriminator, fake_unlabeled)
    trusted = verdict.detach().sigmoid().cpu().numpy()[:, 0] > method.trust
    labels = logits.detach().cpu().numpy().argmax(1)
    labels[~trusted] = IGNORE_INDEX
    taught = F.cross_entropy(logits, torch.from_numpy(labels).to(logits.device), ignore_index=IGNORE_INDEX)
    deceived = F.binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))
    torch.autograd.backward(method.lambda_self * taught + method.lambda_ulbl_adv * deceived)

    logits = _resized(segmenter, batch.images)
    fake = logits.softmax(1)
    verdict = _verdict(discriminator, fake)
    deceived = F.binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))
    torch.autograd.backward(
        F.cross_entropy(logits, batch.targets, ignore_index=IGNORE_INDEX) + method.lambda_lbl_adv * deceived
    )

    discriminator.requires_grad_(True)
    ids = batch.targets.cpu().numpy()
    truth = torch.from_numpy((ids[:, None] == range_of(logits.shape[1])).astype("float32")).to(logits.device)
    for maps, real in ((fake.detach(), 0.0), (fake_unlabeled.detach(), 0.0), (truth, 1.0)):
        verdict = _verdict(discriminator, maps)
        torch.autograd.backward(F.binary_cross_entropy_with_logits(verdict, torch.full_like(verdict, real)) / 2)
    for optimizer in trainer.state.optimizers.values():
        optimizer.step()


def range_of(classes: int) -> Any:
    """Ids of the classes, shape (C, 1, 1)."""
    return torch.arange(classes)[:, None, None].numpy()


def _resized(segmenter: Segmenter, images: Tensor) -> Tensor:
    semantic = segmenter(images, upsample=False).semantic
    return F.interpolate(semantic, images.shape[-2:], mode="bilinear", align_corners=True)


def _verdict(discriminator: Discriminator, maps: Tensor) -> Tensor:
    return F.interpolate(discriminator.layers(maps), maps.shape[-2:], mode="bilinear", align_corners=True)


def features(setting: Setting) -> Iterator[Row]:
    """Cached features of Lite0: how fast they are made, and a step on them, by `latentseg.training.costs`."""
    name = "camvid_match" if setting.camvid else "scenes_match"
    more = ["augment.views=2", "augment.labeled_views=2"] if setting.small else []
    for workers in (0,) if setting.small else (0, 4):
        chosen = [*setting.data, *setting.options, *more, f"workers={workers}"]
        config = load_config(name, only_read(chosen, "latent_match"))
        with tempfile.TemporaryDirectory() as folder:
            costs = measure_costs(config, folder=Path(folder))
        yield (
            f"{name}, workers={workers}",
            {
                "views_per_second": round(1 / costs.features, 1),
                "step_ms": round(1000 * costs.late, 2),
                "waiting_share": round(costs.loading, 4),
                "peak_gb": round(costs.peak_bytes / 1e9, 2),
            },
        )


def prediction(setting: Setting) -> Iterator[Row]:
    """The verb predict on photographs of VOC's size (index and overlay), and evaluation, beside the bare network."""
    images = 4 if setting.small else 2000
    with tempfile.TemporaryDirectory() as name, full_speed():
        folder = Path(name)
        root = write_folder(folder / "set", images, size=(64, 96) if setting.small else SIZE)
        options = [*setting.options, "inference.batch_size=16", "data.check=quick"]
        model = timing_predict.trained("lite0", "supervised", root, folder / "run", *options)
        verbs: dict[str, Callable[[], object]] = {
            "predict": partial(predict, model, [root / "images" / "val"], root / "out"),
            "evaluate": partial(timing_predict.score, model, root),
        }
        size = (64, 96) if setting.small else SIZE
        network = rate(setting, partial(_forward, model, size, 16), 1 if setting.small else 5) / 16
        yield "bare", {"images_per_second": round(1 / network, 1)}
        for verb, function in verbs.items():
            began = time.perf_counter()
            setting.done(function)()
            each = (time.perf_counter() - began) / images
            yield verb, {"images_per_second": round(1 / each, 1), "of_bare": round(network / each, 3)}


@torch.inference_mode()
def _forward(model: Model, size: tuple[int, int], images: int) -> None:
    shape = model.segmenter.valid_size(*size)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.precision == "bf16-mixed"):
        model.segmenter(torch.rand(images, 3, *shape, device=model.device))
