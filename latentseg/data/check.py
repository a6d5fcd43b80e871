"""The check before a run: every file that it will read is opened first."""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from latentseg.console import track
from latentseg.data.datasets import Dataset, Item
from latentseg.data.images import IGNORE_INDEX
from latentseg.data.pairs import check_headers
from latentseg.data.splits import Split
from latentseg.errors import UserError

SHOWN = 10


def check_data(
    dataset: Dataset,
    split: Split,
    eval_items: list[Item],
    mode: Literal["full", "quick"] = "full",
) -> list[str]:
    """Open what a run will read; drawn scenes have no files and are left out.

    Args:
        dataset: Reads the items.
        split: Labelled images are checked with their masks, unlabelled ones alone.
        eval_items: Images to be scored, checked with their masks.
        mode: full: decode everything. quick: decode the labelled masks, and read the headers of the rest.

    Returns:
        Notes: labelled images all of whose pixels are ignored.

    Raises:
        UserError: Something cannot be used (all problems in one message, the first ten in full), or no labelled image
            has a labelled pixel.
    """
    jobs = [(item, "labeled") for item in split.labeled]
    jobs += [(item, "unlabeled") for item in split.unlabeled]
    jobs += [(item, "scored") for item in eval_items]
    jobs = [(item, role) for item, role in jobs if item.scene is None]

    def check(job: tuple[Item, str]) -> tuple[str | None, bool]:
        try:
            return None, _check(dataset, *job, full=mode == "full")
        except UserError as error:
            return str(error), False

    problems: list[str] = []
    blank: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        results = zip(jobs, pool.map(check, jobs), strict=True)
        for job, (problem, is_blank) in track(results, "checking files", len(jobs)):
            problems += [problem] if problem else []
            blank += [job[0].id] if is_blank else []
    if problems:
        raise UserError(_list_problems(problems, len(jobs)))
    return _blank_notes(blank, len(split.labeled))


def _check(dataset: Dataset, item: Item, role: str, full: bool) -> bool:
    """Read one item; True if it is labelled, but all its pixels are ignored."""
    if full:
        dataset.read_image(item)
    elif item.image is not None:
        check_headers(item.image, item.mask)
    if role == "labeled":
        return bool((dataset.read_targets(item) == IGNORE_INDEX).all())
    if role == "scored" and (full or not item.has_labels):
        dataset.read_targets(item, resized=False)
    return False


def _list_problems(problems: list[str], total: int) -> str:
    shown = "\n".join(f"  - {problem}" for problem in problems[:SHOWN])
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{len(problems)} of {total} images cannot be used:\n{shown}{more}"


def _blank_notes(blank: list[str], labeled: int) -> list[str]:
    if not blank:
        return []
    names = ", ".join(blank[:3]) + ", ..." * (len(blank) > 3)
    if len(blank) == labeled:
        raise UserError(
            f"all pixels of all {labeled} labelled images are ignored ({names}): nothing can be learned; "
            f"look at data.ignored_values and data.class_map"
        )
    return [f"all pixels of {len(blank)} of {labeled} labelled images are ignored: {names}"]
