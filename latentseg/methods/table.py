"""What each method is: one row per method, and no PyTorch.

Whatever asks which kind of method a run has reads its row: the checks of the configuration, networks and optimisers,
batches, the cache of features, analysis and report. A new method is its file, its row here and its options in
`latentseg.config`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from latentseg.config import MethodConfig

Second = Literal["nothing", "latent classes", "groups", "classes"]

DISCRIMINATOR = ("discriminator", "optim.discriminator_lr", "optim.betas")
ADVERSARIAL = ("method.lambda_lbl_adv", "method.lambda_ulbl_adv", *DISCRIMINATOR)
CONSISTENCY = ("method.lambda_cons", "method.consistency_start")
COOCCURRENCE = ("method.ema_alpha", "method.lambda_latent")
MATCH = ("method.lambda_match", "method.grid")
DROPPED = ("strong.feature_dropout", "strong.feature_noise")
"""Strong views of cached features, in methods that do not change an image's colours."""
RECOLOURED = tuple(
    f"strong.{name}" for name in ("jitter", "brightness", "contrast", "saturation", "hue", "grey", "blur")
)
"""Strong views of images."""
ADVERSARIAL_WEIGHTS = ("lambda_lbl_adv", "lambda_ulbl_adv")


@dataclass(frozen=True)
class Row:
    """What one method is."""

    where: str
    """Module and class, as module:Class."""
    options: tuple[str, ...] = ()
    """Options that the method reads and others do not, dotted; a section's name stands for all of its options."""
    second: Second = "nothing"
    """What the second branch of the segmenter predicts."""
    trains: tuple[str, ...] = ("segmenter",)
    """Networks with an optimiser: the segmenter; a peer of its kind; the discriminator, if a weight asks for it."""
    follows: tuple[str, ...] = ()
    """Networks that are a moving average of the segmenter: a teacher."""
    unlabeled: tuple[str, ...] = ()
    """Weights of the terms on unlabelled images; none is read if all are 0."""
    adversarial: tuple[str, ...] = ()
    """Weights of the terms that need the discriminator; there is none if all are 0."""
    strong_views: int = 0
    """Recoloured views of each unlabelled image that a step needs."""
    cutmix: bool = False
    """Whether images of a batch are mixed."""

    @property
    def joins_late(self) -> bool:
        """Whether a term joins after `method.consistency_start`."""
        return self.reads("method.consistency_start")

    def reads(self, option: str) -> bool:
        """Whether the method reads an option that belongs to some methods only."""
        return any(option == name or option.startswith(f"{name}.") for name in self.options)

    def uses_unlabeled(self, method: "MethodConfig") -> bool:
        """Whether a run with these weights reads unlabelled images."""
        return any(getattr(method, weight) > 0 for weight in self.unlabeled)

    def has_discriminator(self, method: "MethodConfig") -> bool:
        """Whether a run with these weights has a discriminator."""
        return any(getattr(method, weight) > 0 for weight in self.adversarial)

    def second_channels(self, method: "MethodConfig", num_classes: int) -> int:
        """Channels of the second branch for C semantic classes; 0 if there is none."""
        groups = len(method.groups) if isinstance(method.groups, dict) else num_classes
        return {"nothing": 0, "latent classes": method.num_latent, "groups": groups, "classes": num_classes}[
            self.second
        ]


METHODS = {
    "supervised": Row("supervised:Supervised"),
    "latent": Row(
        "latent:Latent",
        ("method.num_latent", "method.consistency_gradient", "method.grid", *COOCCURRENCE, *CONSISTENCY, *ADVERSARIAL),
        second="latent classes",
        trains=("segmenter", "discriminator"),
        unlabeled=("lambda_cons", "lambda_ulbl_adv"),
        adversarial=ADVERSARIAL_WEIGHTS,
    ),
    "advsemiseg": Row(
        "advsemiseg:AdvSemiSeg",
        ("method.lambda_self", "method.trust", "method.consistency_start", *ADVERSARIAL),
        trains=("segmenter", "discriminator"),
        unlabeled=("lambda_self", "lambda_ulbl_adv"),
        adversarial=("lambda_self", *ADVERSARIAL_WEIGHTS),
    ),
    "given_classes": Row(
        "given_classes:GivenClasses",
        ("method.groups", "method.consistency_gradient", "method.grid", *COOCCURRENCE, *CONSISTENCY, *ADVERSARIAL),
        second="groups",
        trains=("segmenter", "discriminator"),
        unlabeled=("lambda_cons", "lambda_ulbl_adv"),
        adversarial=ADVERSARIAL_WEIGHTS,
    ),
    "symmetric": Row(
        "symmetric:Symmetric",
        ("method.grid", *CONSISTENCY, *ADVERSARIAL),
        second="classes",
        trains=("segmenter", "discriminator"),
        unlabeled=("lambda_cons", "lambda_ulbl_adv"),
        adversarial=ADVERSARIAL_WEIGHTS,
    ),
    "mean_teacher": Row(
        "mean_teacher:MeanTeacher",
        ("method.threshold", "method.teacher_decay", *MATCH, *DROPPED),
        follows=("teacher",),
        unlabeled=("lambda_match",),
        cutmix=True,
    ),
    "fixmatch": Row(
        "fixmatch:FixMatch",
        ("method.threshold", *MATCH, "strong"),
        unlabeled=("lambda_match",),
        strong_views=1,
        cutmix=True,
    ),
    "unimatch": Row(
        "unimatch:UniMatch",
        ("method.threshold", *MATCH, "strong"),
        unlabeled=("lambda_match",),
        strong_views=2,
        cutmix=True,
    ),
    "cps": Row(
        "cps:CrossPseudoSupervision",
        (*MATCH, *DROPPED),
        trains=("segmenter", "peer"),
        unlabeled=("lambda_match",),
        cutmix=True,
    ),
    "latent_match": Row(
        "latent_match:LatentMatch",
        (
            *("method.threshold", "method.teacher_decay", "method.balance"),
            *("method.pool_power", "method.neighbour_power"),
            *("method.consistency_start", *MATCH, *RECOLOURED, *DROPPED),
        ),
        follows=("teacher",),
        unlabeled=("lambda_match",),
        strong_views=1,
        cutmix=True,
    ),
}


def readers(option: str) -> list[str]:
    """Methods that read an option; none are named where it is every method's."""
    return [name for name, row in METHODS.items() if row.reads(option)]
