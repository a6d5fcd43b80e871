"""The model card: what a trained model is, written from its run folder, for those who find it elsewhere."""

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentseg import __version__
from latentseg.console import few_scored
from latentseg.reading import read_whole
from latentseg.runs.folder import Run
from latentseg.runs.metrics import read_metrics

_HEAD = """---
library_name: latentseg
pipeline_tag: image-segmentation
tags: [semantic-segmentation, semi-supervised-learning, latent-classes]
# license: left to whoever publishes the model
---
"""
_USE = """## How to use

```python
import latentseg

model = latentseg.Model.from_pretrained("FOLDER_OR_REPOSITORY")
prediction = model.predict("image.jpg")  # .labels: class ids (H, W); .probs: probabilities (C, H, W)
print(model.classes)
```

Or: `latentseg predict FOLDER images --out predictions`
"""
_END = """## Licence

To be filled in by whoever publishes the model: here, and as `license` in the head of this file. The images and the
pretrained weights that it was made from have terms of their own.

## Citation

```bibtex
@article{zatsarynna2019latent,
  title   = {Discovering Latent Classes for Semi-Supervised Semantic Segmentation},
  author  = {Zatsarynna, Olga and Sawatzky, Johann and Gall, Juergen},
  journal = {arXiv:1912.12936},
  year    = {2019}
}
```
"""


@dataclass(frozen=True)
class Score:
    """What was measured of a model on one split."""

    split: str
    images: int | None
    """None where it is not known: of a validation while it was trained."""
    iou: tuple[float | None, ...]
    """Per class; None for a class that neither truth nor prediction shows."""
    miou: float
    pixel_accuracy: float
    chosen: bool
    """Whether the step was chosen by this very score."""
    notes: tuple[str, ...] = ()


def scores_of(run: Run, step: int) -> list[Score]:
    """What a run folder tells of the weights after a step: its evaluations, else the validation of that step.

    Evaluations of other steps or with other options are of other models, and are left out.
    """
    read = (_evaluation(path, run, step) for path in sorted(run.folder.glob("evaluation-*.json")))
    found = {score.split: score for score in read if score is not None}
    return list(found.values()) or list(_validations(run, step))


def _evaluation(path: Path, run: Run, step: int) -> Score | None:
    try:
        told = json.loads(read_whole(path))
        if told["step"] != step or told["overrides"] or tuple(told["classes"]) != run.classes:
            return None
        scores, chosen = told["scores"], told["checkpoint"] == "best" and told["split"] == run.config.validate_split
        iou = tuple(None if value is None else float(value) for value in scores["iou"])
        miou, accuracy = float(scores["miou"]), float(scores["pixel_accuracy"])
        return Score(str(told["split"]), int(told["images"]), iou, miou, accuracy, chosen, tuple(told["notes"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # a damaged file, or one of another kind


def _validations(run: Run, step: int) -> Iterator[Score]:
    split = run.config.validate_split
    for row in reversed(read_metrics(run.folder)):
        miou, iou = row.get(f"{split}_miou"), row.get(f"{split}_iou")
        if row["step"] == step and isinstance(miou, float) and isinstance(iou, list):
            accuracy = row.get(f"{split}_pixel_accuracy")
            yield Score(split, None, tuple(iou), miou, accuracy if accuracy is not None else math.nan, False)
            return


def card(run: Run, step: int, num_latent: int, name: str, others: Sequence[tuple[Run, int]] = ()) -> str:
    """The text of README.md.

    Args:
        run: The run folder.
        step: Steps that the weights were trained for.
        num_latent: Latent classes; 0 without a latent branch.
        name: The title.
        others: Further runs that differ in the seed alone, and their last steps: with them the spread is told.
    """
    scores = scores_of(run, step)
    parts = [f"{_HEAD}\n# {name}\n", _about(run, num_latent), _USE, _data(run), _training(run, step)]
    return "\n".join([*parts, *_scores(run, scores, others), _limits(run, scores, others), _END])


def _about(run: Run, num_latent: int) -> str:
    latent = f", and {num_latent} latent classes" if num_latent else ""
    return (
        f"A semantic segmenter of {len(run.classes)} classes{latent}, trained by latentseg {__version__} "
        f"(`pip install latentseg`).\n"
    )


def _data(run: Run) -> str:
    data = run.config.data
    named = data.kind if data.root is None else f"{Path(data.root).expanduser().name} (layout {data.kind})"
    rows = [("data set", named), ("classes", ", ".join(run.classes))]
    for kind in ("labeled", "unlabeled"):
        path = run.folder / "split" / f"{kind}.txt"
        count = len(path.read_bytes().splitlines()) if path.is_file() else "not recorded"
        rows.append((f"{kind.replace('eled', 'elled')} training images", str(count)))
    rows.append(("scale of the images", f"{data.resize:g} of their size"))
    return "## Data\n\n" + _table(("what", "value"), rows)


def _training(run: Run, step: int) -> str:
    config = run.config
    model, optim = config.model, config.optim
    begun = " The run began with the weights of another run." if (run.folder / "from.json").is_file() else ""
    frozen = "frozen" if model.frozen else "trained along"
    rows = [
        ("method", config.method.name),
        ("steps", f"{step} of {config.steps}, batch {config.batch_size}, crop {config.augment.crop}"),
        ("encoder", f"{model.encoder} ({frozen}), weights {model.weights_kind}"),
        ("optimiser", f"{optim.name}, learning rate {optim.lr:g}"),
        ("seed", str(config.seed)),
    ]
    return f"## Training\n\n{_table(('what', 'value'), rows)}\n`config.yaml` has every option.{begun}\n"


def _scores(run: Run, scores: list[Score], others: Sequence[tuple[Run, int]]) -> Iterator[str]:
    if not scores:
        yield "## Scores\n\nThis model was not scored.\n"
        return
    yield "## Scores\n\nIoU in %, at the original size of the images, over all pixels of the split that have a label.\n"
    rows = [_score_row(score, run.config.inference.miou_over) for score in scores]
    yield _table(("split", "images", "mIoU", "pixel accuracy"), rows)
    yield from (_spread(score, others) for score in scores)
    head = ("class", *(score.split for score in scores))
    yield _table(head, [(name, *(_percent(score.iou[i]) for score in scores)) for i, name in enumerate(run.classes)])


def _score_row(score: Score, over: str) -> tuple[str, ...]:
    images = "not recorded" if score.images is None else str(score.images)
    few = few_scored(list(score.iou), over)
    return score.split, images, f"{_percent(score.miou)}{few}", _percent(score.pixel_accuracy)


def _spread(score: Score, others: Sequence[tuple[Run, int]]) -> str:
    found = [other for run, step in others for other in scores_of(run, step) if other.split == score.split]
    if not found:
        return (
            f"{score.split}: one run with one seed. How much the score varies with the seed and with the draw of "
            f"labelled images is not known.\n"
        )
    values = [100 * one.miou for one in (score, *found)]
    spread = f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"
    every = ", ".join(f"{value:.2f}" for value in values)
    return f"{score.split}: {len(values)} runs, mIoU {spread} (sample standard deviation; {every}, this model first).\n"


def _limits(run: Run, scores: list[Score], others: Sequence[tuple[Run, int]]) -> str:
    limits = ["It knows the classes above and gives one of them to every pixel, whatever an image shows."]
    limits.append(
        "It was measured on images like those of its training, if at all; elsewhere scores may be much lower."
    )
    limits += [
        f"The step was chosen by the score on {one.split}: that score is optimistic." for one in scores if one.chosen
    ]
    for one in scores:
        missing = [name for name, iou in zip(run.classes, one.iou, strict=True) if iou is None]
        if missing:
            limits.append(f"{one.split} tells nothing of {', '.join(missing)}: no pixel shows them.")
        limits += [f"{note[:1].upper()}{note[1:]}." for note in one.notes]
    if scores and not others:
        limits.append("Differences of a few points to another single run may be chance.")
    return "## Limits\n\n" + "".join(f"- {limit}\n" for limit in dict.fromkeys(limits))


def _percent(value: float | None) -> str:
    return "absent" if value is None or math.isnan(value) else f"{100 * value:.2f}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
