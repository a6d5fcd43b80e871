"""The equations of the latent-class method, one pure function each.

Zatsarynna, Sawatzky, Gall: Discovering Latent Classes for Semi-Supervised Semantic Segmentation
(arXiv:1912.12936). Sizes: N images, C semantic classes, L latent classes, H x W pixels. A loss is a mean over the
pixels that count, and a differentiable 0 where none does. Half precision becomes float32; float64 stays.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = 255
"""Target value of a pixel without a label."""
SMALLEST_PROBABILITY = 1e-12
"""What the consistency takes the logarithm of where the mapped probability is lower."""


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes: S_c or S_l from the logits of a branch, shape (N, K, H, W)."""
    return _at_least_float32(logits).softmax(1)


def pixel_weights(targets: Tensor, weights: Tensor | None) -> Tensor:
    """How much each pixel counts in `cross_entropy`, shape (N, H, W); their sum is what a mean is divided by.

    Args:
        targets: Class ids, shape (N, H, W), int64; 255 is ignored and counts 0.
        weights: Of the classes, shape (C,); 1 each if None, and the result is bool.
    """
    known = targets != IGNORE_INDEX
    return known if weights is None else weights[targets.where(known, 0)] * known


def cross_entropy(
    logits: Tensor, targets: Tensor, count: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy in nats over the labelled pixels.

    arXiv:1912.12936, Eq. 4, as a mean instead of a sum.

    Args:
        logits: Semantic logits, shape (N, C, H, W).
        targets: Class ids in 0..C-1, shape (N, H, W), int64; 255 is ignored.
        count: What the sum is divided by; the number of labelled pixels if None.
        weights: Of the classes, shape (C,): each pixel counts as its class does; 1 each if None.
    """
    maps = _at_least_float32(logits)
    weights = None if weights is None else weights.to(maps.dtype)
    # Summed here: PyTorch's own sum has another order on a GPU each time, and is refused where all is deterministic.
    total = F.cross_entropy(maps, targets, weights, ignore_index=IGNORE_INDEX, reduction="none").sum()
    return _over(total, (targets != IGNORE_INDEX).sum() if count is None else count)


def latent_joint(latent_probs: Tensor, targets: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sums of latent probabilities per true class, and the number of labelled pixels.

    arXiv:1912.12936, Eq. 2 before its division: `counts / pixels` is the joint distribution P_b(c, l). Counts of
    several processes add up. The same counts update M in Eq. 8.

    Args:
        latent_probs: S_l, shape (N, L, H, W), summing to 1 over L.
        targets: Class ids in 0..C-1, shape (N, H, W), int64; 255 is ignored.
        num_classes: C.

    Returns:
        Counts, shape (C, L), differentiable; and the number of labelled pixels, a scalar of the same type.

    Raises:
        ValueError: A target is neither a class nor 255.
    """
    probs = _at_least_float32(latent_probs)
    truth = one_hot(targets, num_classes, probs.dtype)
    # This order of the factors gives the gradient of probs its layout in memory.
    counts = (probs.flatten(2) @ truth.flatten(2).mT).sum(0).T
    return counts, (targets != IGNORE_INDEX).sum().to(probs.dtype)


def one_hot(targets: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Truth as a map of class probabilities, shape (N, C, H, W); all zeros at ignored pixels.

    Args:
        targets: Class ids in 0..C-1, shape (N, H, W), int64; 255 is ignored.
        num_classes: C.
        dtype: Number format of the map.

    Raises:
        ValueError: A target is neither a class nor 255 (on a GPU PyTorch says so).
    """
    valid = targets != IGNORE_INDEX
    if targets.device.type == "cpu":  # elsewhere the answer would have to be waited for
        least, most = targets.where(valid, 0).aminmax()
        if least < 0 or most >= num_classes:
            raise ValueError(f"targets hold values outside 0..{num_classes - 1} that are not {IGNORE_INDEX}")
    channels = targets.where(valid, num_classes).unsqueeze(1)  # ignored pixels have one of their own
    maps = torch.zeros(len(targets), num_classes + 1, *targets.shape[1:], dtype=dtype, device=targets.device)
    return maps.scatter_(1, channels, 1)[:, :num_classes]


def conditional_entropy(joint: Tensor) -> Tensor:
    """Entropy H(C | L) in nats: the doubt about the semantic class once the latent class is known.

    arXiv:1912.12936, Eqs. 1 and 3, with 0 log 0 = 0. It is 0 if each latent class holds one semantic class, and
    H(C), at most log C, if the two are independent.

    Args:
        joint: Joint distribution P(c, l), shape (C, L), summing to 1. (All zeros, no labelled pixel, give 0.)
    """
    joint = _at_least_float32(joint)
    latent = joint.sum(0, keepdim=True).expand_as(joint)
    seen = joint > 0  # the gradient of x log x is infinite at 0, and infinity times 0 is no number
    log_class_given_latent = joint.where(seen, 1).log() - latent.where(seen, 1).log()
    return -(joint * log_class_given_latent).sum()


def latent_given_class(cooccurrence: Tensor) -> Tensor:
    """P(l | c) from the co-occurrence matrix M.

    arXiv:1912.12936, Eq. 9. The row of a class that was never seen is uniform.

    Args:
        cooccurrence: M, shape (C, L), not negative.

    Returns:
        Shape (C, L), each row summing to 1.
    """
    matrix = _at_least_float32(cooccurrence)
    total = matrix.sum(1, keepdim=True)
    return torch.where(total > 0, matrix / total.where(total > 0, 1), 1 / matrix.shape[1])


def semantic_to_latent(probs: Tensor, latent_given_class: Tensor) -> Tensor:
    """Latent probabilities that the semantic branch implies.

    arXiv:1912.12936, Eq. 7: S_lhat(l) = sum over c of P(l|c) S_c(c), per pixel.

    Args:
        probs: S_c, shape (N, C, H, W).
        latent_given_class: P(l|c), shape (C, L).

    Returns:
        Shape (N, L, H, W).
    """
    flat = _at_least_float32(probs).flatten(2)
    mapped = latent_given_class.to(flat.dtype).T @ flat
    return mapped.view(len(probs), -1, *probs.shape[2:])


def consistency(
    latent_probs: Tensor,
    mapped_probs: Tensor,
    valid: Tensor | None = None,
    count: Tensor | None = None,
    gradient: Literal["semantic", "latent", "both"] = "semantic",
) -> Tensor:
    """Cross-entropy in nats from the latent branch (the target) to the mapped semantic branch (the prediction).

    arXiv:1912.12936, Eq. 10, as a mean. By default no gradient reaches the target: the latent map teaches the
    semantic branch (docs/paper.md says why we read the sentence after Eq. 10 so).

    Args:
        latent_probs: S_l, shape (N, L, H, W).
        mapped_probs: S_lhat of `semantic_to_latent`, shape (N, L, H, W). Below 1e-12 its gradient is 0.
        valid: Pixels that show image and not padding, shape (N, H, W), bool; all if None.
        count: What the sum is divided by; the number of valid pixels if None.
        gradient: The branch that learns; the other is held still.
    """
    target, prediction = _at_least_float32(latent_probs), _at_least_float32(mapped_probs)
    target = target.detach() if gradient == "semantic" else target
    prediction = prediction.detach() if gradient == "latent" else prediction
    values: Tensor = _MapCrossEntropy.apply(target, prediction)
    return _mean(values, valid, count)


class _MapCrossEntropy(torch.autograd.Function):
    """Cross-entropy per pixel (N, H, W) from a target map to a predicted one, both (N, L, H, W).

    Its gradients are in closed form, -target / prediction and -log prediction: half the passes over memory.
    """

    @staticmethod
    def forward(ctx: Any, target: Tensor, prediction: Tensor) -> Tensor:
        logs = prediction.clamp(min=SMALLEST_PROBABILITY).log_()
        learns = ctx.needs_input_grad[0]
        ctx.save_for_backward(target, prediction, logs if learns else None)
        return (target * logs if learns else logs.mul_(target)).sum(1).neg_()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        target, prediction, logs = ctx.saved_tensors
        slope = -gradients[0].unsqueeze(1)
        of_target = logs * slope if logs is not None else None
        if not ctx.needs_input_grad[1]:
            return of_target, None
        divisor = F.threshold(prediction, SMALLEST_PROBABILITY, float("inf"))  # no gradient where the logarithm ends
        return of_target, torch.div(target, divisor, out=divisor).mul_(slope)


def symmetric_divergence(
    logits: Tensor, other_logits: Tensor, valid: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """KL(S1|S2) + KL(S2|S1) in nats, as a mean over pixels; 0 where two branches agree. Both learn.

    arXiv:1912.12936, the row "KL" of Table 5, which names no equation.

    Args:
        logits: Of the first semantic branch, shape (N, C, H, W).
        other_logits: Of the second, of the same shape.
        valid: Pixels that show image and not padding, shape (N, H, W), bool; all if None.
        count: What the sum is divided by; the number of valid pixels if None.
    """
    one, other = (_at_least_float32(maps).log_softmax(1) for maps in (logits, other_logits))
    return _mean(((one.exp() - other.exp()) * (one - other)).sum(1), valid, count)


def squared_difference(
    probs: Tensor,
    target_probs: Tensor,
    valid: Tensor | None = None,
    count: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Squared difference of class probabilities, summed over the classes, as a mean over pixels.

    French et al., arXiv:1906.01916, section 3.1. No gradient reaches the target.

    Args:
        probs: Of the student, shape (N, C, H, W).
        target_probs: Of the teacher, of the same shape.
        valid: Pixels that count, shape (N, H, W), bool; all if None.
        count: What the sum is divided by; the number of valid pixels if None.
        weights: Of the classes, shape (C,): a pixel counts as its target's classes do, on average; 1 each if None.
    """
    target = _at_least_float32(target_probs).detach()
    values = (_at_least_float32(probs) - target).square().sum(1)
    if weights is not None:
        values = values * (target * weights.to(target)[:, None, None]).sum(1)
    return _mean(values, valid, count)


def real_or_fake(logits: Tensor, real: bool, valid: Tensor | None = None, count: Tensor | None = None) -> Tensor:
    """Binary cross-entropy in nats of the discriminator's verdict.

    arXiv:1912.12936, Eq. 5 (the segmenter wants its maps called real) and the two halves of Eq. 12.

    Args:
        logits: Verdict per pixel, shape (N, 1, H, W); above 0 means real.
        real: What the verdict should be.
        valid: Pixels that count, shape (N, H, W), bool; all if None.
        count: What the sum is divided by; the number of valid pixels if None.
    """
    verdict = _at_least_float32(logits).squeeze(1)
    return _mean(F.softplus(-verdict if real else verdict), valid, count)


def _mean(values: Tensor, valid: Tensor | None, count: Tensor | None) -> Tensor:
    """Mean of values (N, H, W) over the valid ones; values at other pixels, NaN too, change nothing."""
    if valid is None:
        return values.mean() if count is None else _over(values.sum(), count)
    return _over(values.where(valid, 0).sum(), valid.sum() if count is None else count)


def _over(total: Tensor, count: Tensor) -> Tensor:
    """A sum over a number of pixels; where there is none the sum is 0 and stays it."""
    return total / count.where(count > 0, 1).to(total.dtype)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def on_grid(valid: Tensor | None, maps: Tensor) -> Tensor:
    """Where images show, on the grid of maps (N, K, h, w): a cell counts if the pixel at its centre does.

    Args:
        valid: Bool, shape (N, H, W); all if None.
        maps: Logits of the images.
    """
    if valid is None:
        return torch.ones(len(maps), *maps.shape[2:], dtype=torch.bool, device=maps.device)
    if valid.shape[1:] == maps.shape[2:]:
        return valid
    return F.interpolate(valid[:, None].float(), maps.shape[2:], mode="nearest-exact")[:, 0] > 0
