"""The methods: one file each, all on the contract of `base`."""

from collections.abc import Callable, Sequence
from math import ceil

from latentseg.config import Config, MethodName
from latentseg.methods.advsemiseg import AdvSemiSeg
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.cps import CrossPseudoSupervision
from latentseg.methods.fixmatch import FixMatch
from latentseg.methods.given_classes import GivenClasses, group_ids
from latentseg.methods.latent import Latent
from latentseg.methods.latent_match import LatentMatch
from latentseg.methods.mean_teacher import MeanTeacher
from latentseg.methods.pseudo import describe
from latentseg.methods.supervised import Supervised
from latentseg.methods.symmetric import Symmetric
from latentseg.methods.unimatch import UniMatch


def build_method(config: Config, classes: Sequence[str], num_labeled: int, num_images: int) -> Method:
    """Build the method that the configuration names.

    Args:
        config: The run.
        classes: Names of the semantic classes.
        num_labeled: Labelled training images.
        num_images: All training images, labelled and unlabelled.

    Raises:
        UserError: `method.groups` does not fit the classes.
    """
    method = config.method
    images = {"dataset": num_images, "labeled": num_labeled}
    given = method.ema_alpha
    alpha = min(1.0, config.batch_size / images[given]) if isinstance(given, str) else given
    start = ceil(method.consistency_start * config.steps)
    strong, num_classes = config.strong, len(classes)
    builders: dict[MethodName, Callable[[], Method]] = {
        "supervised": Supervised,
        "latent": lambda: Latent(method, num_classes, alpha, start),
        "given_classes": lambda: GivenClasses(method, group_ids(method.groups or "identity", classes), alpha, start),
        "advsemiseg": lambda: AdvSemiSeg(method, start),
        "symmetric": lambda: Symmetric(method, start),
        "mean_teacher": lambda: MeanTeacher(method, strong),
        "fixmatch": lambda: FixMatch(method, strong),
        "unimatch": lambda: UniMatch(method, strong),
        "cps": lambda: CrossPseudoSupervision(method, strong),
        "latent_match": lambda: LatentMatch(method, strong, num_classes, alpha, start),
    }
    return builders[method.name]()


def second_branch(config: Config, num_classes: int) -> int:
    """Channels of the segmenter's second branch, for C semantic classes; 0 if the method needs none."""
    method = config.method
    if method.name in ("latent", "latent_match"):
        return method.num_latent
    if method.name == "given_classes" and isinstance(method.groups, dict):
        return len(method.groups)
    return num_classes if method.name in ("given_classes", "symmetric") else 0


__all__ = ["Losses", "Method", "Networks", "Term", "build_method", "describe", "group_ids", "second_branch"]
