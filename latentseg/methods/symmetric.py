"""Two semantic branches that learn from each other (arXiv:1912.12936, Table 5, "KL")."""

from collections.abc import Iterator

from torch import Tensor

from latentseg.config import MethodConfig
from latentseg.data.batches import Batch
from latentseg.losses import IGNORE_INDEX, cross_entropy, probabilities, symmetric_divergence
from latentseg.methods.adversarial import Adversary, alternate
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.views import on_grid
from latentseg.parallel import share


class Symmetric(Method):
    """Both branches learn the classes; on unlabelled images symmetric KL pulls them together.

    The second branch takes the place of the latent one. One discriminator sees both maps. The first branch is scored.
    """

    def __init__(self, config: MethodConfig, start: int) -> None:
        """Set the weights.

        Args:
            config: Weights of the terms; `lambda_cons` is that of the KL term.
            start: First step (0-based) with the KL term.
        """
        super().__init__()
        self.config, self.start = config, start
        self.uses_unlabeled = config.lambda_cons > 0 or config.lambda_ulbl_adv > 0

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled part, the unlabelled part and the discriminator's part of a step."""
        config, targets, shown = self.config, batch.targets, batch.unlabeled_valid
        consistent = config.lambda_cons > 0 and step >= self.start

        def labeled(adversary: Adversary, first: Tensor, second: Tensor) -> Losses:
            known = targets != IGNORE_INDEX
            count = share(known)
            pairs = (("ce", first), ("ce_2", second))
            terms = {name: Term(1.0, cross_entropy(logits, targets, count)) for name, logits in pairs}
            for name, logits in (("adv", first), ("adv_2", second)) if adversary.on else ():
                terms |= adversary.judge(name, config.lambda_lbl_adv, probabilities(logits), known)
            return Losses("segmenter", terms)

        def unlabeled(adversary: Adversary, first: Tensor, second: Tensor) -> Losses:
            terms: dict[str, Term] = {}
            for name, logits in (("adv_u", first), ("adv_u_2", second)) if adversary.on else ():
                terms |= adversary.judge(name, config.lambda_ulbl_adv, probabilities(logits), shown)
            if consistent:
                valid = on_grid(shown, first)
                terms["kl"] = Term(config.lambda_cons, symmetric_divergence(first, second, valid, share(valid)))
            return Losses("segmenter", terms)

        needed = consistent or config.lambda_ulbl_adv > 0
        yield from alternate(nets, batch, labeled, unlabeled if needed else None, config.grid == "pixels")
