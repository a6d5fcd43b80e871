"""Every option of a run: its type, range, default and one line of help.

A configuration is one tree. `latentseg.presets` reads it from a preset or a YAML file, with `key=value` overrides; it
is checked once, and from then on frozen: no option is rewritten elsewhere. The resolved tree lies in the run folder
and reproduces the run.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from latentseg.config.data import AugmentConfig, DataConfig, ScenesConfig, StrongConfig
from latentseg.config.fields import Mark, Natural, PathText, Positive, Scale, Section, Seed, Side, Window
from latentseg.config.learning import DiscriminatorConfig, Groups, MethodConfig, ModelConfig, OptimConfig, WeightsKind
from latentseg.methods.table import METHODS

SMALLEST_MAP = 32
"""Side of the smallest map, in pixels, that the discriminator's five convolutions of stride 2 take."""


LoggerName = Literal["mlflow", "wandb"]


class InferenceConfig(Section):
    """How a whole image is predicted, by every verb."""

    mode: Literal["auto", "whole", "slide"] = "auto"
    """The image at once (auto: one of more than 2^23 pixels in tiles, with their surroundings), or windows that overlap
    (of so large an image within its tiles); whole: at once whatever its size."""
    window: tuple[Window, Window] = (321, 321)
    """slide: height and width of the window, in pixels of the (resized) image."""
    overlap: Annotated[float, Field(ge=0, le=0.9, strict=True)] = 1 / 3
    """slide: share by which neighbouring windows overlap."""
    scales: Annotated[list[Scale], Field(min_length=1, max_length=32)] = [1.0]
    """Scales whose probabilities are averaged."""
    mirror: bool = False
    """Average with the mirrored image."""
    pad_to: tuple[Window, Window] | None = None
    """whole: pad to this height and width where it is larger (AdvSemiSeg on VOC: 505); only as needed if null."""
    batch_size: Annotated[int, Field(gt=0, le=4096, strict=True)] | None = None
    """Images of equal size predicted at once; null: small ones several, up to 2^18 pixels on a CPU, 2^22 on a GPU."""
    unpainted: Annotated[list[str] | None, Mark.RUNTIME] = None
    """Classes that an overlay leaves as the photograph; null: background, _background_, unlabelled, unlabeled."""
    miou_over: Literal["occurring", "hit", "all"] = "occurring"
    """Classes in the mean: in truth or prediction; with a true positive (AdvSemiSeg); all, absent as 0 (UniMatch)."""


class Config(Section):
    """One run."""

    steps: Positive = 20000
    """Optimiser steps; each uses one labelled and one unlabelled batch."""
    seed: Seed = 0
    """Seed of everything random: the draw of labels, weights, order, views."""
    batch_size: Annotated[int, Field(gt=0, le=4096, strict=True)] = 10
    """Images in a labelled batch, over all processes; the unlabelled batch has as many."""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Mark.RUNTIME] = "auto"
    """Where to compute."""
    devices: Annotated[int, Field(gt=0, le=256, strict=True), Mark.RUNTIME] = 1
    """Processes on this machine, one per GPU or several on a CPU; they share the batch. Under torchrun what it says."""
    num_nodes: Annotated[int, Field(gt=0, le=4096, strict=True), Mark.RUNTIME] = 1
    """Machines, each with that many processes, started by torchrun or SLURM."""
    precision: Literal["auto", "32-true", "bf16-mixed", "64-true"] = "auto"
    """float32, bfloat16 where it suffices, or float64; auto: what is fast here (`engine.choose_precision` says)."""
    compile: Annotated[bool, Mark.RUNTIME] = False
    """torch.compile for the encoder: a minute before the first step. Slower on the CPUs tried; for GPUs (not tried)."""
    workers: Annotated[int, Field(ge=0, le=128, strict=True), Mark.RUNTIME] = 0
    """Processes that load data; 0: a thread, one batch ahead. The batches are the same for any number."""
    threads: Annotated[Annotated[int, Field(gt=0, le=1024, strict=True)] | None, Mark.RUNTIME] = None
    """Threads of PyTorch, at most one per core; its own choice if null. Others can change the last bits of a result."""
    log_every: Annotated[Positive, Mark.RUNTIME] = 20
    """Steps between two lines of metrics.jsonl."""
    loggers: Annotated[list[LoggerName], Mark.RUNTIME] = []
    """mlflow, wandb: take what metrics.jsonl holds, too; each is an extra (docs/scaling.md)."""
    validate_every: Natural = 0
    """Steps between two validations, which choose the best checkpoint; 0: only at the end."""
    validate_split: Literal["val", "holdout"] = "val"
    """What validation scores: the data set's val split, or the held-out training images (data.holdout)."""
    checkpoint_every: Annotated[Positive, Mark.RUNTIME] = 500
    """Steps between two checkpoints; the last two are kept."""
    cache: Literal["none", "images", "features"] = "none"
    """Keep decoded images in memory (small sets), or the frozen encoder's features of a few views on disk."""
    cache_folder: Annotated[PathText | None, Mark.RUNTIME] = None
    """cache=features: where; the user's cache folder if null. Runs with the same encoder, data and views share them."""
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    strong: StrongConfig = StrongConfig()
    method: MethodConfig = MethodConfig()
    optim: OptimConfig = OptimConfig()
    inference: InferenceConfig = InferenceConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        if self.validate_split == "holdout" and self.data.holdout == 0 and self.data.fold is None:
            raise ValueError("validate_split=holdout needs data.holdout > 0, the number of images to set aside")
        if self.model.head == "aspp" and not self.model.encoder.startswith("deeplab_"):
            raise ValueError(
                f"model.head=aspp works on a map of stride 8: take a deeplab_resnet encoder, "
                f"or model.head=light for {self.model.encoder}"
            )
        if self.model.encoder.startswith("smp:") and self.batch_size < 2 * self.devices * self.num_nodes:
            raise ValueError(
                f"the decoder of {self.model.encoder} has BatchNorm, which needs two images or more in each process: "
                f"take batch_size={2 * self.devices * self.num_nodes} or more"
            )
        if self.cache == "features" and not (self.model.frozen and self.augment.views):
            raise ValueError(
                "cache=features needs model.frozen=true (features that never change) and augment.views, the number of "
                "views per image to keep, such as augment.views=4; cache=none trains without them"
            )
        row = METHODS[self.method.name]
        adversarial = row.has_discriminator(self.method)
        smallest = -(-min(self.augment.crop) // self.discriminator.downscale)
        if adversarial and smallest < SMALLEST_MAP:
            raise ValueError(
                f"the discriminator would see maps of {smallest} pixels (augment.crop={list(self.augment.crop)} over "
                f"discriminator.downscale={self.discriminator.downscale}) and needs {SMALLEST_MAP}: a larger "
                f"augment.crop, or discriminator.downscale=1"
            )
        return self


RENAMED = {"model.pieces": "model.micro_batches"}
"""Options of earlier versions and their names now: refused in new configurations, read in old run folders."""
REMOVED = ("match_loss", "latent_on", "latent_target", "sharpen", "weigh_entropy")
"""Options of `method` that belonged to the latent_match up to commit 0dad059; dropped from run folders of others."""


def marked(mark: Mark, section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Dotted names of the options with a mark, a marked section as one."""
    names: list[str] = []
    for name, field in section.model_fields.items():
        if mark in field.metadata:
            names.append(prefix + name)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += marked(mark, field.annotation, f"{prefix}{name}.")
    return names


__all__ = [
    "REMOVED",
    "RENAMED",
    "SMALLEST_MAP",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "DiscriminatorConfig",
    "Groups",
    "InferenceConfig",
    "LoggerName",
    "Mark",
    "MethodConfig",
    "ModelConfig",
    "OptimConfig",
    "ScenesConfig",
    "Section",
    "Side",
    "StrongConfig",
    "WeightsKind",
    "marked",
]
