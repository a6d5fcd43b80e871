"""Figures by hand, and counts against plain loops."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentseg.analysis import stats
from latentseg.analysis.stats import Counts

Tables = dict[str, NDArray[Any]]

ROWS: stats.Rows = [[0.1, 0.9, 0.0], [0.95, 0.05, 0.0], None, [0.4, 0.3, 0.3], [0.02, 0.98, 0.0]]
NAMES = ["pole", "road", "ghost", "wall", "sign"]


def test_effective_counts_by_hand() -> None:
    assert stats.effective_counts(ROWS) == {"0.1": 3, "0.9": 2}
    assert stats.effective_counts([[0.9, 0.1], [0.9, 0.1]]) == {"0.1": 1, "0.9": 0}  # more than t, not t itself
    assert stats.effective_counts([None]) == {"0.1": 0, "0.9": 0}


def test_given_rows_leave_out_what_was_not_seen() -> None:
    assert stats.given_rows(torch.tensor([[1.0, 3.0], [0.0, 0.0]])) == [[0.25, 0.75], None]


def test_groups_in_words_surest_first_and_largest_first() -> None:
    groups = stats.find_groups(ROWS, NAMES, ["l0", "l1", "l2"])
    assert [group.text for group in groups] == ["l1: sign + pole", "l0: road + wall (0.40)"]
    assert [(group.latent, group.classes) for group in groups] == [(1, ["sign", "pole"]), (0, ["road", "wall"])]
    assert groups[1].shares == [0.95, 0.4]
    assert stats.find_groups([None], ["ghost"], ["l0"]) == []


def test_blocks_stand_along_the_diagonal() -> None:
    groups = stats.find_groups(ROWS, NAMES, ["l0", "l1", "l2"])
    assert stats.block_order(ROWS, groups, 3) == ([4, 0, 1, 3, 2], [1, 0, 2])
    assert stats.block_order([None, None], [], 3) == ([0, 1], [0, 1, 2])


def test_idle_and_only_ignored_by_hand() -> None:
    rows: stats.Rows = [[0.84, 0.05, 0.05, 0.04, 0.02], [0.2, 0.02, 0.02, 0.02, 0.74]]
    won = torch.tensor([[90_000, 0, 3, 500, 0], [9_000, 0, 0, 500, 0], [0, 2, 0, 19_000, 5_000]])
    # 1 and 2 win stray pixels, 4 serves the second class
    assert stats.idle_and_only_ignored(rows, won) == ([1, 2], [3])
    won[0, 3] = 5_000  # no more than nine tenths of what it wins is ignored: it is neither
    assert stats.idle_and_only_ignored(rows, won) == ([1, 2], [])
    rows[0] = [0.84, 0.11, 0.0, 0.03, 0.02]  # wins nowhere, but takes part
    assert stats.idle_and_only_ignored(rows, won)[0] == [2]


def test_entropies_by_hand() -> None:
    before, after = stats.entropies(torch.tensor([[3.0, 1.0], [0.0, 4.0]], dtype=torch.float64))
    assert before == pytest.approx(math.log(2), abs=1e-12)
    # l1 holds 1 and 4, l0 one class
    assert after == pytest.approx(5 / 8 * (math.log(5) - 0.2 * math.log(1) - 0.8 * math.log(4)), abs=1e-12)
    assert stats.entropies(torch.eye(3).double()) == pytest.approx((math.log(3), 0))
    assert stats.entropies(torch.ones(3, 3).double()) == pytest.approx((math.log(3), math.log(3)))
    assert stats.entropies(torch.ones(1, 3).double()) == pytest.approx((0, 0))
    assert all(map(math.isnan, stats.entropies(torch.zeros(2, 3).double())))


def test_structure_by_hand() -> None:
    soft = torch.tensor([[95.0, 5.0], [1.0, 1.5], [0.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    won = torch.tensor([[100, 0], [1, 2], [0, 0], [0, 4]])
    found = stats.structure(soft, won, ["a", "b", "c"], ["x", "y"])
    assert found.latent_given_class == [[0.95, 0.05], [0.4, 0.6], None]
    assert found.ignored == [0.25, 0.75]
    assert found.dominated == 1
    assert (found.row_order, found.column_order) == ([0, 1, 2], [0, 1])
    soft[-1] = 0
    assert stats.structure(soft, won, ["a", "b", "c"], ["x", "y"]).ignored is None
    nothing = stats.structure(soft * 0, won * 0, ["a", "b", "c"], ["x", "y"])
    assert (nothing.dominated, nothing.idle, nothing.groups) == (0, [0, 1], [])


def test_mapped_scores_by_hand() -> None:
    counts = torch.tensor([[6, 2, 0], [1, 1, 0], [5, 0, 7]])
    result = stats.mapped_scores(counts, [0, 0, None])  # truth 0: ten pixels, seven of them right
    assert result.iou[:2] == [0.7, 0.0]
    assert math.isnan(result.iou[2])
    assert (result.miou, result.pixel_accuracy) == (0.35, 0.7)
    assert math.isnan(stats.mapped_scores(counts, [None] * 3).miou)


def test_background_by_hand() -> None:
    counts = torch.tensor([[3, 1, 0], [6, 2, 2], [0, 5, 5]])
    assert stats.confused_with_background(counts, 1, 0) == pytest.approx((3 / 14, 0.4))
    assert stats.confused_with_background(counts, 0, 0) == pytest.approx((6 / 20, 0.25))
    missed, invented = stats.confused_with_background(torch.tensor([[4, 0], [0, 0]]), 0, 0)
    assert (math.isnan(missed), invented) == (True, 0.0)


# counts of pixels

M = torch.tensor([[8.0, 0.0, 2.0], [1.0, 9.0, 0.0], [1.0, 0.0, 9.0], [0.0, 0.0, 0.0]])
"""Four classes, three latent ones: the dominant ones are 0, 1, 2; the last class was never seen."""


def one_hot(values: list[int], channels: int) -> Tensor:
    """Sure probabilities of one line of pixels, shape (1, K, 1, W)."""
    return torch.eye(channels)[values].T[None, :, None]


def test_figures_by_hand() -> None:
    """A class over two latent classes: of its pixels one latent class counts in the groups, both in the classes."""
    matrix = torch.tensor([[5.0, 5.0, 0.0], [0.0, 0.0, 10.0]])
    counts = Counts(matrix)
    targets = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1, 255]]])
    latent = one_hot([0, 0, 1, 1, 2, 2, 2, 1, 0], 3)
    semantic = one_hot([0, 0, 0, 1, 1, 1, 1, 1, 1], 2)
    counts.add(semantic, latent, targets)
    told = counts.figures()
    # groups 0 and 2 stand for the classes: 2 of 4 and 3 of 4 are right, nothing else is called so
    assert (told["latent_miou"], told["latent_pixel_accuracy"]) == ((2 / 4 + 3 / 4 + 0) / 3, 5 / 8)
    # the classes told: l0 and l1 tell class 0, so one pixel alone is wrong
    assert told["latent_class_miou"] == pytest.approx((4 / 5 + 3 / 4) / 2)
    assert told["latent_class_pixel_accuracy"] == 7 / 8
    assert told["class_entropy"] == pytest.approx(math.log(2))
    # l1 has two pixels of class 0 and one of class 1
    doubt = 3 / 8 * -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert told["latent_conditional_entropy"] == pytest.approx(doubt)
    assert told["latent_information"] == pytest.approx(math.log(2) - doubt)
    assert told["latent_argmax_information"] == pytest.approx(math.log(2) - doubt), "the map is sure"
    assert told["latent_information_share"] == pytest.approx(1 - doubt / math.log(2))
    # S_c by Eq. 7: class 0 becomes half l0, half l1 (the first of equals wins), class 1 becomes l2
    assert told["semantic_pixel_accuracy"] == 7 / 8
    for name in ("semantic_miou", "mapped_miou", "mapped_class_miou"):
        assert told[name] == pytest.approx((3 / 4 + 4 / 5) / 2), name
    doubt = 5 / 8 * -(4 / 5 * math.log(4 / 5) + 1 / 5 * math.log(1 / 5))
    assert told["mapped_conditional_entropy"] == pytest.approx(doubt)
    log = counts.log()
    assert {name: log[name] for name in ("dominated", "effective_0.1", "effective_0.9")} == {
        "dominated": 0,  # class 0 has half of its pixels in each of two, class 1 three quarters in one
        "effective_0.1": 3,
        "effective_0.9": 0,
    }
    assert log["latent_class_miou"] == told["latent_class_miou"]


def test_a_perfect_map_tells_everything() -> None:
    counts = Counts(torch.eye(3))
    targets = torch.tensor([[[0, 1, 2, 2]]])
    counts.add(one_hot([0, 1, 2, 2], 3), one_hot([0, 1, 2, 2], 3), targets)
    log = counts.log()
    for branch in ("latent", "mapped"):
        for figure in ("miou", "class_miou", "pixel_accuracy", "class_pixel_accuracy", "information_share"):
            assert log[f"{branch}_{figure}"] == pytest.approx(1), (branch, figure)
        assert log[f"{branch}_conditional_entropy"] == pytest.approx(0)
    assert log["dominated"] == 3


def test_how_sure_a_branch_is_changes_its_information_but_not_that_of_its_argmax() -> None:
    targets = torch.tensor([[[0, 0, 1, 1]]])
    figures = []
    for sharpness in (1.0, 0.6):
        counts = Counts(torch.eye(2))
        latent = sharpness * one_hot([0, 0, 1, 0], 2) + (1 - sharpness) * one_hot([1, 1, 0, 1], 2)
        counts.add(latent, latent, targets)
        figures.append(counts.figures())
    sure, unsure = figures
    assert sure["latent_information"] > unsure["latent_information"] + 0.1
    assert sure["latent_argmax_information"] == pytest.approx(unsure["latent_argmax_information"])


def probabilities(channels: int, seed: int, height: int = 5, width: int = 7) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(1, channels, height, width, generator=noise)).softmax(1)


def largest(values: list[float]) -> int:
    return values.index(max(values))


def loop(counts: Tables, targets: list[list[int]], matrix: Tensor, maps: dict[str, Tensor]) -> None:
    """The counts of one image, pixel by pixel."""
    classes, latents = matrix.shape
    m = matrix.double().tolist()
    given = [[m[c][k] / sum(m[c]) if sum(m[c]) else 1 / latents for k in range(latents)] for c in range(classes)]
    column = [sum(m[c][k] for c in range(classes)) for k in range(latents)]
    back = [[m[c][k] / column[k] if column[k] else 1 / classes for c in range(classes)] for k in range(latents)]
    for y, line in enumerate(targets):
        for x, target in enumerate(line):
            row = classes if target == 255 else target
            latent = maps["latent"][0, :, y, x].double().tolist()
            semantic = maps["semantic"][0, :, y, x].double().tolist()
            mapped = [sum(semantic[c] * given[c][k] for c in range(classes)) for k in range(latents)]
            for name, values in (("latent", latent), ("mapped", mapped)):
                told = [sum(back[k][c] * values[k] for k in range(latents)) for c in range(classes)]
                counts[f"sums of {name}"][row] += values
                counts[name][row, largest(values)] += 1
                counts[f"{name}_class"][row, largest(told)] += 1
            counts["semantic"][row, largest(semantic)] += 1
            counts["baseline"][row, largest(maps["baseline"][0, :, y, x].tolist())] += 1


def empty(classes: int, latents: int) -> Tables:
    names = ("semantic", "baseline", "latent_class", "mapped_class")
    widths = dict.fromkeys(("sums of latent", "sums of mapped", "latent", "mapped"), latents)
    return {name: np.zeros((classes + 1, width)) for name, width in (widths | dict.fromkeys(names, classes)).items()}


def tables(counts: Counts) -> Tables:
    """The counts under the names of `loop`."""
    sums = {f"sums of {name}": table.numpy() for name, table in counts.sums.items()}
    return sums | {name: table.numpy() for name, table in counts.pixels.items()}


def figures_in_loops(counted: Tables, mapping: list[int | None]) -> dict[str, float]:
    """What `Counts.figures` says, from plain sums and sets."""
    found = {}
    classes = len(counted["semantic"]) - 1

    def told(name: str, stands_for: list[int | None]) -> tuple[float, float]:
        table = counted[name]
        known = [c for c in range(classes) if stands_for[c] is not None]
        right = sum(table[c, stands_for[c]] for c in known)
        ious = []
        for k in range(table.shape[1]):
            mine = [c for c in known if stands_for[c] == k]
            union = table[mine].sum() + sum(table[c, k] for c in known if c not in mine)
            ious += [sum(table[c, k] for c in mine) / union] if union else []
        return float(np.mean(ious)), right / sum(table[c].sum() for c in known)

    def entropies(table: Any) -> tuple[float, float]:
        joint = table[:classes] / table[:classes].sum()
        before = -sum(p * math.log(p) for p in joint.sum(1) if p)
        after = -sum(p * math.log(p / joint[:, k].sum()) for row in joint for k, p in enumerate(row) if p)
        return before, after

    for branch in ("latent", "mapped"):
        found[f"{branch}_miou"], found[f"{branch}_pixel_accuracy"] = told(branch, mapping)
        same: list[int | None] = list(range(classes))
        both = told(f"{branch}_class", same)
        found[f"{branch}_class_miou"], found[f"{branch}_class_pixel_accuracy"] = both
        found["semantic_miou"], found["semantic_pixel_accuracy"] = told("semantic", same)
        before, after = entropies(counted[f"sums of {branch}"])
        found["class_entropy"], found[f"{branch}_conditional_entropy"] = before, after
        found[f"{branch}_information"], found[f"{branch}_information_share"] = before - after, 1 - after / before
        found[f"{branch}_argmax_information"] = before - entropies(counted[branch])[1]
    return found


@pytest.mark.parametrize(("classes", "latents"), [(3, 2), (3, 5), (255, 4)])
def test_counts_equal_plain_loops(classes: int, latents: int) -> None:
    matrix = torch.rand(classes, latents, generator=torch.Generator().manual_seed(1))
    matrix[1] = 0  # never seen
    counts, batched, expected = Counts(matrix), Counts(matrix), empty(classes, latents)
    every: dict[str, list[Tensor]] = {"semantic": [], "latent": [], "targets": [], "baseline": []}
    for seed in range(3):
        maps = {"semantic": probabilities(classes, seed), "latent": probabilities(latents, seed + 10)}
        maps["baseline"] = probabilities(classes, seed + 20)
        targets = torch.randint(0, classes, (1, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        targets[0, seed] = 255
        counts.add(maps["semantic"], maps["latent"], targets, maps["baseline"])
        loop(expected, targets[0].tolist(), matrix, maps)
        for name, values in (maps | {"targets": targets}).items():
            every[name].append(values)
    batched.add(*(torch.cat(values) for values in every.values()))
    assert counts.images == batched.images == 3
    for name, value in expected.items():
        for each in (counts, batched):
            np.testing.assert_allclose(tables(each)[name], value, rtol=1e-6, atol=1e-5, err_msg=name)
        assert value[-1].sum() == pytest.approx(21)
    mapping = [None if c == 1 else int(row.argmax()) for c, row in enumerate(matrix)]
    figures = counts.figures()
    in_loops = figures_in_loops(expected, mapping)
    assert figures.keys() == in_loops.keys()
    assert figures == pytest.approx(in_loops, abs=1e-5)


def test_processes_add_up() -> None:
    parts, whole = [Counts(M), Counts(M)], Counts(M)
    for seed, part in enumerate(parts):
        targets = torch.randint(0, 3, (2, 5, 7), generator=torch.Generator().manual_seed(seed))
        maps = [torch.cat([probabilities(k, seed + n) for n in (0, 5)]) for k in (4, 3)]
        for counts in (part, whole):
            counts.add(maps[0], maps[1], targets)
    other = iter([*tables(parts[1]).values(), np.array(parts[1].images)])
    parts[0].all_reduce(lambda own: own + torch.from_numpy(next(other)))
    assert parts[0].images == whole.images == 4
    assert parts[0].log() == pytest.approx(whole.log(), nan_ok=True)


def test_ignored_pixels_change_the_last_row_alone() -> None:
    targets = torch.zeros(1, 5, 7, dtype=torch.uint8)
    targets[:, 2:] = 255
    semantic, latent = probabilities(4, 0), probabilities(3, 1)
    results = []
    for change in (False, True):
        if change:
            semantic[..., 2:, :], latent[..., 2:, :] = probabilities(4, 7)[..., 2:, :], probabilities(3, 8)[..., 2:, :]
        counts = Counts(M)
        counts.add(semantic, latent, targets, semantic)
        results.append(counts)
    before, after = map(tables, results)
    for name in before:
        assert np.array_equal(before[name][:-1], after[name][:-1]), name
        assert not np.array_equal(before[name][-1], after[name][-1]), name
    assert results[0].log() == pytest.approx(results[1].log(), nan_ok=True)
