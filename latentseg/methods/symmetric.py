"""Two semantic branches that learn from each other (arXiv:1912.12936, Table 5, "KL")."""

from collections.abc import Iterator

from latentseg.data.batches import Batch
from latentseg.distributed import mean_divisor
from latentseg.losses import IGNORE_INDEX, cross_entropy, on_grid, pixel_weights, probabilities, symmetric_divergence
from latentseg.methods.adversarial import Adversary
from latentseg.methods.base import Losses, Method, Networks, Term


class Symmetric(Method):
    """Both branches learn the classes; on unlabelled images symmetric KL pulls them together.

    The second branch takes the place of the latent one. One discriminator sees both maps. The first branch is scored.
    """

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled part, the unlabelled part and the discriminator's part of a step."""
        config, segmenter, adversary = self.config, nets["segmenter"], Adversary(nets)

        first, second = segmenter(batch.images)
        known = batch.targets != IGNORE_INDEX
        count = mean_divisor(pixel_weights(batch.targets, self.weights))
        terms = {"ce": Term(1.0, cross_entropy(first, batch.targets, count, self.weights))}
        terms["ce_2"] = Term(1.0, cross_entropy(second, batch.targets, count, self.weights))
        terms |= adversary.terms("adv", config.lambda_lbl_adv, probabilities(first), known)
        terms |= adversary.terms("adv_2", config.lambda_lbl_adv, probabilities(second), known)
        yield Losses("segmenter", terms)
        del first, second, terms  # the graph of a part is gone before the next one is built

        consistent = config.lambda_cons > 0 and step >= self.start
        if batch.unlabeled is not None and (consistent or config.lambda_ulbl_adv > 0):
            first, second = segmenter(batch.unlabeled, upsample=config.grid == "pixels" or adversary.on)
            shown = batch.unlabeled_valid
            terms = adversary.terms("adv_u", config.lambda_ulbl_adv, probabilities(first), shown)
            terms |= adversary.terms("adv_u_2", config.lambda_ulbl_adv, probabilities(second), shown)
            if consistent:
                valid = on_grid(shown, first)
                terms["kl"] = Term(config.lambda_cons, symmetric_divergence(first, second, valid, mean_divisor(valid)))
            yield Losses("segmenter", terms)
            del first, second, terms

        if adversary.on:
            yield adversary.learn(batch)
