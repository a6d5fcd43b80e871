"""The methods: their terms against a plain reading of the paper, and every guard."""

import pytest
import torch
from torch import Tensor, nn
from toy import SIZE, C, L, Pixelwise, batch, built, networks, run, segmenter_of, tensors

from latentseg.data.batches import Batch
from latentseg.methods.base import Networks
from latentseg.methods.latent import Latent, effective


def latent(alpha: float = 0.25, start: int = 0, **weights: float) -> Latent:
    method = built(weights, alpha, start)
    assert isinstance(method, Latent)
    return method


def twin(nets: Networks, alpha: float, before: Tensor) -> tuple[dict[str, float], Tensor]:
    """Section 3 of the paper in plain loops: every term of one step, and M after it."""
    data, segmenter, judge = batch(), nets["segmenter"], nets["discriminator"]
    assert data.unlabeled is not None
    assert data.unlabeled_valid is not None
    labeled, unlabeled = segmenter(data.images), segmenter(data.unlabeled)
    s_c, s_l = labeled.semantic.softmax(1), labeled.latent.softmax(1)
    u_c, u_l = unlabeled.semantic.softmax(1), unlabeled.latent.softmax(1)
    truth = torch.zeros_like(s_c)
    joint, ce, pixels = torch.zeros(C, L, dtype=torch.float64), 0.0, 0
    marks = [(n, y, x) for n in range(2) for y in range(SIZE) for x in range(SIZE)]
    labels = {mark: int(data.targets[mark]) for mark in marks}
    for (n, y, x), label in labels.items():
        if label != 255:
            truth[n, label, y, x] = 1
            joint[label] += s_l[n, :, y, x]
            ce -= float(s_c[n, label, y, x].log())
            pixels += 1
    matrix = (1 - alpha) * before + alpha * joint
    p_cl = joint / pixels
    h = -sum(float(p_cl[c, k] * (p_cl[c, k] / p_cl[:, k].sum()).log()) for c in range(C) for k in range(L))
    given = matrix / matrix.sum(1, keepdim=True)
    verdicts = {name: judge(maps).sigmoid()[:, 0] for name, maps in (("s", s_c), ("u", u_c), ("truth", truth))}
    sums = dict.fromkeys(("cons", "adv", "adv_u", "real", "fake"), 0.0)
    shown = 0
    for n, y, x in marks:
        if labels[n, y, x] != 255:
            sums["adv"] -= float(verdicts["s"][n, y, x].log())
            sums["real"] -= float(verdicts["truth"][n, y, x].log())
            sums["fake"] -= float((1 - verdicts["s"][n, y, x]).log())
        if data.unlabeled_valid[n, y, x]:
            shown += 1
            mapped = [sum(float(given[c, k] * u_c[n, c, y, x]) for c in range(C)) for k in range(L)]
            logs = torch.tensor(mapped, dtype=torch.float64).log()
            sums["cons"] -= float((u_l[n, :, y, x] * logs).sum())
            sums["adv_u"] -= float(verdicts["u"][n, y, x].log())
            sums["fake"] -= float((1 - verdicts["u"][n, y, x]).log())
    counts = {"cons": shown, "adv": pixels, "adv_u": shown, "real": pixels, "fake": pixels + shown}
    return {"ce": ce / pixels, "latent": h} | {key: sums[key] / counts[key] for key in sums}, matrix


def test_every_term_and_m_equal_the_plain_twin_over_two_steps() -> None:
    nets, method = networks(), latent(alpha=0.25)
    with torch.no_grad():
        first, matrix = twin(nets, 0.25, torch.zeros(C, L, dtype=torch.float64))
        assert run(method, nets, backward=False) == pytest.approx(first, abs=1e-12)
        torch.testing.assert_close(method.cooccurrence, matrix, rtol=0, atol=1e-10)
        second, matrix = twin(nets, 0.25, matrix)
        assert run(method, nets, step=1, backward=False) == pytest.approx(second, abs=1e-12)
        torch.testing.assert_close(method.cooccurrence, matrix, rtol=0, atol=1e-10)


def test_weights_stand_beside_their_terms() -> None:
    weights = {
        part.network + "." + name: term.weight
        for part in latent(lambda_latent=2.0, lambda_cons=0.3, lambda_lbl_adv=0.02, lambda_ulbl_adv=0.005)(
            networks(), batch(), 0
        )
        for name, term in part.terms.items()
    }
    assert weights == {
        "segmenter.ce": 1.0,
        "segmenter.latent": 2.0,
        "segmenter.adv": 0.02,
        "segmenter.adv_u": 0.005,
        "segmenter.cons": 0.3,
        "discriminator.real": 0.5,
        "discriminator.fake": 0.5,
    }


def test_the_segmenters_turn_leaves_the_discriminator_alone_and_the_reverse() -> None:
    nets, method = networks(), latent()
    segmenter, judge = nets["segmenter"], nets["discriminator"]
    parts = method(nets, batch(), 0)
    for _ in range(2):
        torch.autograd.backward(torch.stack([term.weight * term.value for term in next(parts).terms.values()]).sum())
    assert all(parameter.grad is None for parameter in judge.parameters())
    before = [parameter.grad.clone() for parameter in segmenter.parameters() if parameter.grad is not None]
    assert len(before) == 4  # the two heads of both parts
    torch.autograd.backward(torch.stack([term.weight * term.value for term in next(parts).terms.values()]).sum())
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in judge.parameters())
    after = [parameter.grad for parameter in segmenter.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True) if b is not None)


def test_consistency_gives_the_latent_branch_no_gradient_and_m_has_no_graph() -> None:
    nets = networks(adversarial=False)
    method = latent(lambda_latent=0, lambda_lbl_adv=0, lambda_ulbl_adv=0)
    assert isinstance(nets["segmenter"], Pixelwise)
    run(method, nets)
    assert nets["segmenter"].latent.weight.grad is None
    assert nets["segmenter"].semantic.weight.grad is not None
    assert not method.cooccurrence.requires_grad


def test_consistency_joins_at_its_start_and_off_terms_cost_no_forward() -> None:
    nets = networks(adversarial=False)
    segmenter = nets["segmenter"]
    assert isinstance(segmenter, Pixelwise)
    method = latent(start=3, lambda_lbl_adv=0, lambda_ulbl_adv=0)
    assert "cons" not in run(method, nets, step=2)
    assert segmenter.forwards == 1
    assert "cons" in run(method, nets, step=3)
    assert segmenter.forwards == 3
    labeled_only = latent(lambda_cons=0, lambda_lbl_adv=0, lambda_ulbl_adv=0)
    assert not labeled_only.uses_unlabeled
    assert set(run(labeled_only, nets, step=9)) == {"ce", "latent"}
    assert segmenter.forwards == 4


def test_full_labels_leave_eq_6_alone() -> None:
    nets, data = networks(), batch()
    without = Batch(data.images, data.targets, None, None)
    names = [set(losses.terms) for losses in latent()(nets, without, 0)]
    assert names == [{"ce", "latent", "adv"}, {"real", "fake"}]


def test_ignored_and_padded_pixels_change_no_term() -> None:
    """The discriminator looks around, so its neighbourhood is cut off: here it judges pixel by pixel."""

    class Judge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(C, 1, 1)

        def shrink(self, probs: Tensor) -> Tensor:
            return probs

        def forward(self, probs: Tensor, _size: torch.Size) -> Tensor:
            verdict: Tensor = self.conv(probs)
            return verdict

    torch.manual_seed(0)
    nets = Networks({"segmenter": Pixelwise(), "discriminator": Judge()}).double()
    data = batch()
    assert data.unlabeled is not None
    assert data.unlabeled_valid is not None
    other = Batch(
        tensors(data.images).where((data.targets != 255).unsqueeze(1), 7.0),
        data.targets,
        tensors(data.unlabeled).where(data.unlabeled_valid.unsqueeze(1), -3.0),
        data.unlabeled_valid,
    )
    results = []
    for given in (data, other):
        method = latent()
        values = {n: float(t.value.detach()) for part in method(nets, given, 0) for n, t in part.terms.items()}
        results.append((values, method.cooccurrence))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-12)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=1e-10)


def test_effective_latent_classes() -> None:
    method = latent()
    assert effective(method.cooccurrence, 0.1) == 0  # nothing was seen: uniform rows do not count
    method.cooccurrence.copy_(torch.tensor([[0.95, 0.05, 0.0], [0.5, 0.5, 0.0], [0.92, 0.08, 0.0], [0.0, 0.0, 0.0]]))
    assert method.summary() == {"effective_0.1": 2, "effective_0.9": 1}


def test_supervised_is_the_cross_entropy_alone() -> None:
    nets = networks(adversarial=False)
    labeled_only = latent(lambda_latent=0, lambda_cons=0, lambda_lbl_adv=0, lambda_ulbl_adv=0)
    supervised, ours = run(built({"name": "supervised"}), nets), run(labeled_only, nets)
    assert list(supervised) == list(ours) == ["ce"]
    assert supervised == ours


@pytest.mark.parametrize(
    ("grid", "adversarial", "expected"), [("pixels", 0, True), ("heads", 0, False), ("heads", 1, True)]
)
def test_losses_on_unlabelled_images_are_taken_where_the_option_says(
    grid: str, adversarial: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets = networks(adversarial=bool(adversarial))
    weights = {"lambda_lbl_adv": 0.01 * adversarial, "lambda_ulbl_adv": 0.001 * adversarial}
    seen, segmenter = [], nets["segmenter"]
    really = segmenter.forward

    def noted(images: Tensor, upsample: bool = True) -> object:
        seen.append(upsample)
        return really(images, upsample=upsample)

    monkeypatch.setattr(segmenter, "forward", noted)
    run(built({"grid": grid, **weights}), nets, backward=False)
    assert seen == [True, expected, *[True] * (len(seen) - 2)]


@pytest.mark.parametrize(("gradient", "learns"), [("semantic", False), ("latent", True), ("both", True)])
def test_the_branch_that_is_named_learns_from_consistency(gradient: str, learns: bool) -> None:
    nets = networks(adversarial=False)
    options = {"consistency_gradient": gradient, "lambda_latent": 0, "lambda_lbl_adv": 0, "lambda_ulbl_adv": 0}
    parts = built(options)(nets, batch(), 0)
    next(parts)
    torch.autograd.backward(next(parts).terms["cons"].value)
    segmenter = segmenter_of(nets)
    assert (segmenter.latent.weight.grad is not None) == learns
    assert (segmenter.semantic.weight.grad is not None) == (gradient != "latent")


def test_a_small_adversarial_weight_alone_is_reason_enough_for_unlabelled_images() -> None:
    method = latent(start=5, lambda_cons=0.1, lambda_lbl_adv=0, lambda_ulbl_adv=0.001)
    assert "adv_u" in run(method, networks(), backward=False)


def test_a_latent_class_at_the_threshold_is_not_effective() -> None:
    half = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert effective(half, 0.5) == 0
    assert effective(half, 0.49) == 2
