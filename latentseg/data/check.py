"""The check before a run: every file that it will read is opened first, and all that seems wrong is said at once."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from rich.table import Table

from latentseg.config import Config
from latentseg.console import console, track
from latentseg.data.checked import Checked, Found
from latentseg.data.classes import LABELED, MaskCounts, binary_notes, class_notes, class_table, mask_notes
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.files import first_three
from latentseg.data.images import IGNORE_INDEX
from latentseg.data.leaks import leak_notes, own_masks, refuse_scored, shared_masks
from latentseg.data.lists import image_key, kept_out_items
from latentseg.data.masks import read_mask
from latentseg.data.pairing import listing_notes
from latentseg.data.pairs import check_headers
from latentseg.data.pixels import NO_FACTS, PixelNotes, facts
from latentseg.data.report import Bad, Report
from latentseg.data.splits import Split, check_name, draw_split
from latentseg.errors import DataError, UserError


def check_data(
    dataset: Dataset, split: Split, scored: dict[str, list[Item]], mode: Literal["full", "quick"] = "full"
) -> Report:
    """Open what a run will read; drawn scenes have no files and are left out.

    Args:
        dataset: Reads the items.
        split: Labelled images are checked with their masks, unlabelled ones alone.
        scored: Images to be scored, by split, checked with their masks.
        mode: full: decode everything. quick: decode the labelled masks, and read the headers of the rest.

    Raises:
        DataError: No labelled image has a labelled pixel, or none can be used; a folder cannot be listed.
    """
    jobs = [(LABELED, item) for item in split.labeled] + [("unlabeled", item) for item in split.unlabeled]
    jobs += [(name, item) for name, items in scored.items() for item in items]
    jobs = [(role, item) for role, item in jobs if item.scene is None]
    kept_out = list(kept_out_items(dataset)) if dataset.root else []
    kept_keys = {image_key(item) for _, item in kept_out}
    known = Checked(dataset.config, dataset.classes)

    def check(job: tuple[str, Item]) -> Found | UserError:
        role, item = job
        try:
            if role == LABELED:
                refuse_scored(item, kept_keys)
            return known.found(f"{mode} {role}", item, lambda: _check(dataset, role, item, full=mode == "full"))
        except UserError as error:
            return error

    bad, blank, pixels = list[Bad](), list[str](), PixelNotes()
    counts: dict[str, MaskCounts] = defaultdict(MaskCounts)
    with _threads() as pool:
        results = zip(jobs, pool.map(check, jobs), strict=True)
        for (role, item), found in track(results, "checking files", len(jobs)):
            error = found if isinstance(found, UserError) else pixels.add(item, found.about)
            if error:
                bad.append(Bad(role, item, error))
            elif isinstance(found, Found) and found.counts:
                counts[role].add(found.counts)
                blank += [item.id] if role == LABELED and found.counts.values == {IGNORE_INDEX} else []
    known.write()
    about_classes = [*_mask_notes(dataset, counts, bad), *class_notes(dataset.classes, counts)]
    blank_ones = _blank_notes(blank, counts[LABELED].masks, about_classes)
    good, good_scored = _without(split, scored, bad)
    notes = [*dataset.notes, *split.notes, *pixels.notes(dataset.config), *about_classes, *blank_ones]
    if dataset.root and split.labeled:
        masked = {each.image: each for role, each in jobs if role != "unlabeled"}  # an image may be scored, too
        notes += [*shared_masks(masked.values()), *own_masks(good.labeled)]
        notes += leak_notes(LABELED, split.labeled, kept_out, pixels.marks)
        notes += leak_notes("unlabeled", split.unlabeled, kept_out, pixels.marks)
        train = [item.image for item in (*split.labeled, *split.unlabeled) if item.image]
        masks = [item.mask for _, item in (*jobs, *(("train", each) for each in dataset.items("train"))) if item.mask]
        notes += listing_notes(dataset.config, dataset.root, train, masks)
    return Report(dataset, good, good_scored, len(jobs), bad, notes, about_classes, dict(counts))


def check_set(config: Config, out: Path | None = None) -> tuple[Table, Report]:
    """Check all that a configuration can read: labelled and unlabelled images, and every split that is scored.

    Args:
        config: The data set and its split.
        out: A JSON file for the report.

    Returns:
        Pixels and images per class, and the report.

    Raises:
        DataError: Something cannot be used; the notes are printed, and the file is written before.
    """
    dataset = open_dataset(config.data)
    split = draw_split(dataset, config.data, config.seed)
    scored = {name: dataset.items(name) for name in ("val", "test", "holdout") if dataset.has(name)}
    able = {name for name, items in scored.items() if any(item.has_labels for item in items)}
    scored = {name: items for name, items in scored.items() if name in {*able, config.validate_split}}
    report = check_data(dataset, split, scored, config.data.check)
    report.notes.extend(no_score_notes(dataset, config.validate_split))
    if out:
        try:
            out.write_text(json.dumps(report.figures(), indent=1), encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json {out} cannot be written: {error}") from error
    print_notes(report.notes)
    print_notes(report.settle(config.data.on_bad))
    return class_table(dataset.classes, report.counts), report


def no_score_notes(dataset: Dataset, split: str) -> list[str]:
    """A note that nothing will be scored while a run trains, if so."""
    if dataset.has(split):
        return []
    able = sum(item.has_labels for item in dataset.items("train"))
    remedy = f"; data.holdout={max(1, able // 5)} validate_split=holdout sets training images aside" if able > 1 else ""
    return [f"the data set has no split {split}: nothing is scored while it trains, no best checkpoint kept{remedy}"]


def print_notes(notes: list[str]) -> None:
    """Print each on a line of its own."""
    for note in notes:
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False)


def readable(dataset: Dataset, items: list[Item]) -> list[Item]:
    """Those of the images to be scored whose files can be used."""
    return check_data(dataset, Split([], []), {"scored": items}).scored["scored"]


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """A thread per core; what has not begun is dropped where it is left early."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _check(dataset: Dataset, role: str, item: Item, full: bool) -> Found:
    """Read one item."""
    check_name(item)
    scored = role not in (LABELED, "unlabeled")
    ids = pixels = None
    if role == LABELED and full:
        pixels, ids = dataset.read_pair(item)
    elif full:
        pixels = dataset.read_image(item)
    elif item.image is not None:
        check_headers(item.image, item.mask)
    if role == LABELED and ids is None:
        ids = dataset.read_targets(item)
    if scored and (full or not item.has_labels):
        ids = dataset.read_targets(item, resized=False)
    about = NO_FACTS if pixels is None else facts(item, dataset.config, ids is not None, pixels)
    return Found(None if ids is None else MaskCounts.of(ids), about)


def _mask_notes(dataset: Dataset, counts: dict[str, MaskCounts], bad: list[Bad]) -> list[str]:
    """What the values look like; those of masks whose values were refused as they stand in the files."""
    total = MaskCounts()
    for found in counts.values():
        total.add(found)
    refused, values = MaskCounts(), set[int]()
    for mask in [each.item.mask for each in bad if each.role != "unlabeled" and each.item.mask][:20]:
        try:
            raw = read_mask(mask)
            refused.add(MaskCounts.of(raw))
            values |= set(np.unique(raw).tolist())
        except UserError:  # it is among the bad ones for that
            continue
    named = len(dataset.classes)
    notes = mask_notes(dataset.config, named, total) + mask_notes(dataset.config, named, refused, values)
    return [*dict.fromkeys(notes), *binary_notes(dataset.config, named, counts)]


def _blank_notes(blank: list[str], labeled: int, hints: list[str]) -> list[str]:
    if not blank:
        return []
    names = first_three(iter(blank))
    if len(blank) == labeled:
        raise DataError(
            f"all pixels of all {labeled} labelled images are ignored ({names}): nothing can be learned",
            "; ".join(["look at data.ignored_values and data.class_map", *hints]),
        )
    return [f"all pixels of {len(blank)} of {labeled} labelled images are ignored: {names}"]


def _without(split: Split, scored: dict[str, list[Item]], bad: list[Bad]) -> tuple[Split, dict[str, list[Item]]]:
    """The lists without what cannot be used."""
    lost = {(each.role, each.item) for each in bad}
    labeled = [item for item in split.labeled if (LABELED, item) not in lost]
    unlabeled = [item for item in split.unlabeled if ("unlabeled", item) not in lost]
    rest = {name: [item for item in items if (name, item) not in lost] for name, items in scored.items()}
    return Split(labeled, unlabeled, split.notes, split.share), rest
