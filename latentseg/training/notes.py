"""The check of the data before a run, and what the user should know before the first step."""

from latentseg.data.check import check_data, no_score_notes, print_notes
from latentseg.data.datasets import Item
from latentseg.data.neighbours import asks_neighbours
from latentseg.data.report import Report
from latentseg.data.splits import Split
from latentseg.distributed import is_first
from latentseg.methods.table import METHODS
from latentseg.training.trainer import Trainer


def check_first(trainer: Trainer) -> tuple[Trainer, list[Item], Report | None]:
    """Check the data of a run and print the notes.

    Returns:
        The trainer, or another one without the images that are left out; the images to be scored while it trains; the
        report, which of several processes the first alone has.

    Raises:
        DataError: Something cannot be used, and `data.on_bad` is stop.
    """
    config, dataset, split = trainer.config, trainer.dataset, trainer.split
    scored = dataset.items(config.validate_split) if dataset.has(config.validate_split) else []
    skips = config.data.on_bad == "skip"
    if not (is_first() or skips):
        return trainer, scored, None
    report = check_data(dataset, split, {config.validate_split: scored}, config.data.check)
    notes = report.notes + no_score_notes(dataset, config.validate_split)
    processes, mixes = config.devices * config.num_nodes, METHODS[config.method.name].cutmix
    notes += batch_notes(report.split, config.batch_size, trainer.method.uses_unlabeled, mixes, processes)
    if trainer.method.uses_unlabeled and not report.split.unlabeled:
        report.score_notes.append(
            f"nothing is unlabelled, and {config.method.name} learns from unlabelled images: it is supervised here; "
            f"add some by data.unlabeled=[FOLDER], or keep fewer labels by data.labeled"
        )
        notes.append(report.score_notes[-1])
    if asks_neighbours(config) and not config.model.frozen:
        notes.append(
            "the encoder learns, so it is not asked which images look alike: method.neighbour_power is not used"
        )
    if is_first():
        print_notes(notes)
    left_out = report.settle(config.data.on_bad)  # after the notes: they may say what is wrong
    if left_out:
        trainer = Trainer.open(config, dataset, report.split)
    if not is_first():
        return trainer, report.scored[config.validate_split], None
    print_notes(left_out)
    return trainer, report.scored[config.validate_split], report


def batch_notes(
    split: Split, batch_size: int, unlabeled: bool = True, cutmix: bool = False, processes: int = 1
) -> list[str]:
    """What the user should know about the streams: images that repeat in a batch, CutMix without a second image.

    Args:
        split: Labelled and unlabelled images.
        batch_size: Images in a batch, over all processes.
        unlabeled: Whether the method uses unlabelled images.
        cutmix: Whether it mixes them.
        processes: Processes that share the batch.
    """
    streams = [("labelled", split.labeled)] + [("unlabelled", split.unlabeled)] * unlabeled
    notes = [
        f"{len(items)} {name} images are fewer than a batch ({batch_size}): they repeat within it, in other views"
        for name, items in streams
        if 0 < len(items) < batch_size
    ]
    if cutmix and unlabeled and split.unlabeled and batch_size == processes:
        notes.append(
            f"CutMix changes nothing with one unlabelled image in each process, as there is no other to cut from: "
            f"take batch_size={2 * processes} or more"
        )
    return notes
