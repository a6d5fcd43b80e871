"""The methods: one file each, all on the contract of `base`."""

from math import ceil

from latentseg.config import Config
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.latent import Latent
from latentseg.methods.supervised import Supervised


def build_method(config: Config, num_classes: int, num_labeled: int, num_images: int) -> Method:
    """Build the method that the configuration names.

    Args:
        config: The run.
        num_classes: C.
        num_labeled: Labelled training images.
        num_images: All training images, labelled and unlabelled.
    """
    if config.method.name == "supervised":
        return Supervised()
    images = {"dataset": num_images, "labeled": num_labeled}
    given = config.method.ema_alpha
    alpha = min(1.0, config.batch_size / images[given]) if isinstance(given, str) else given
    return Latent(config.method, num_classes, alpha, ceil(config.method.consistency_start * config.steps))


def num_latent(config: Config) -> int:
    """Channels of the latent branch that the method needs; 0 if it needs none."""
    return config.method.num_latent if config.method.name == "latent" else 0


def needs_discriminator(config: Config) -> bool:
    """Whether an adversarial term is on."""
    adversarial = config.method.lambda_lbl_adv > 0 or config.method.lambda_ulbl_adv > 0
    return config.method.name == "latent" and adversarial


__all__ = ["Losses", "Method", "Networks", "Term", "build_method", "needs_discriminator", "num_latent"]
