"""What the latent branch of a run has learned, from its analysis (the paper's Figures 6 and 7)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentseg.errors import UserError
from latentseg.report.collect import Record
from latentseg.report.files import Tree, number, read_json
from latentseg.report.pictures import file_uri
from latentseg.report.tables import DASH, Entry, Table

NO_LATENT_BRANCH = ("supervised", "advsemiseg", "mean_teacher", "fixmatch", "unimatch", "cps")


@dataclass(frozen=True)
class Finding:
    """The analysis of one run, ready for the page."""

    title: str
    heat_map: str | None = None
    """Data URI."""
    facts: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    """Super-categories in words."""
    table: Table | None = None
    """IoU per class beside the baseline's."""
    missing: str = ""
    """Why there is none."""


def has_latent_branch(record: Record) -> bool:
    """Whether the method of a run has a latent branch."""
    return record.options.get("method.name", NO_LATENT_BRANCH[0]) not in NO_LATENT_BRANCH


def read_analysis(folder: Path, split: str) -> tuple[Tree, Path] | None:
    """The analysis of a run on a split and its folder; None if there is none."""
    for place in (folder / "analysis", folder / f"analysis-{split}"):
        tree = read_json(place / "analysis.json")
        if tree.get("split") == split and "error" not in tree:
            return tree, place
    return None


def ensure_analysis(record: Record, split: str, baseline: Record | None) -> tuple[Tree, Path]:
    """The analysis of a run, computed now if there is none.

    Raises:
        UserError: It cannot be computed: no checkpoint, the data set is gone, ...
    """
    if found := read_analysis(record.folder, split):
        return found
    from latentseg.analysis import analyse  # noqa: PLC0415 - a report of analysed runs needs no model

    analyse(record.folder, split, baseline=baseline.folder if baseline else None)
    if found := read_analysis(record.folder, split):
        return found
    raise UserError(f"the analysis of {record.folder} left no analysis.json")


def finding(title: str, record: Record, split: str, baseline: Record | None) -> Finding:
    """The analysis of a run for the page; what cannot be had is shown as missing, with the reason."""
    try:
        tree, folder = ensure_analysis(record, split, baseline)
    except (UserError, OSError) as error:
        return Finding(title, missing=str(error))
    heat_map = file_uri(folder / "latent_given_class.png")
    missing = "" if heat_map else f"no heat map: {folder / 'latent_given_class.png'} is not there"
    return Finding(title, heat_map, _facts(tree), _groups(tree), _beside_baseline(tree), missing)


def _groups(tree: Tree) -> list[str]:
    """Latent classes that stand for several classes, in words, and the classes that have one of their own."""
    groups = [group for group in _items(tree, "groups") if isinstance(group, dict)]
    several = [str(group.get("text", "")) for group in groups if len(_items(group, "classes")) != 1]
    alone = [str(_items(group, "classes")[0]) for group in groups if len(_items(group, "classes")) == 1]
    return several + ([f"with a latent class of their own: {', '.join(alone)}"] if alone else [])


def _items(tree: Tree, key: str) -> list[Any]:
    value = tree.get(key)
    return value if isinstance(value, list) else []


def _part(tree: Tree, key: str) -> Tree:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def _percent(tree: Tree, key: str) -> str:
    return f"{100 * tree[key]:.1f}" if number(tree.get(key)) else DASH


def _facts(tree: Tree) -> list[str]:
    facts = [f"{tree.get('split')}, step {tree.get('step', '?')}, {tree.get('images', '?')} images."]
    effective = _part(tree, "effective")
    if effective:
        shown = ", ".join(f"{count} at t = {threshold}" for threshold, count in effective.items())
        facts.append(f"Effective latent classes: {shown}, of {len(_items(tree, 'latent_names')) or '?'}.")
    if number(tree.get("dominant_share")):
        facts.append(f"One latent class has P(l|c) > 0.9 for {_percent(tree, 'dominant_share')} % of the classes.")
    if number(tree.get("told_share")):
        nats = [f"{tree[k]:.2f}" if number(tree.get(k)) else DASH for k in _NATS]
        facts.append(
            f"The latent class tells {_percent(tree, 'told_share')} % of the semantic class: mutual information "
            f"{nats[0]} of H(C) = {nats[1]} nats, H(C|L) = {nats[2]}."
        )
    latent, mapped = tree.get("latent_miou"), tree.get("mapped_miou")
    if number(latent) and number(mapped):
        easier = f" The latent task is {'' if latent > mapped else 'not '}the easier one."
        facts.append(
            f"mIoU against the truth mapped to latent classes: latent branch {_percent(tree, 'latent_miou')} %, "
            f"semantic branch mapped by Eq. 7 {_percent(tree, 'mapped_miou')} %; against the truth itself "
            f"{_percent(tree, 'semantic_miou')} %.{easier}"
        )
        spread = [str(name) for name in _items(tree, "spread")]
        if spread:
            facts.append(f"Over several latent classes, of which one counts there: {', '.join(spread)}.")
    for key, words in (("idle", "Idle latent classes"), ("only_ignored", "Used on ignored pixels only")):
        if key in tree:
            facts.append(f"{words}: {', '.join(_named(tree, key)) or 'none'}.")
    for key, words in _CALLED.items():
        called = _part(_part(tree, "baseline"), key)
        if called:
            parts = [f"{name} {_percent(called, model)} %" for model, name in _MODELS.items()]
            facts.append(f"{words}: {', '.join(parts)}.")
    return facts


def _named(tree: Tree, key: str) -> list[str]:
    """Names of latent classes that the analysis lists by number."""
    names = _items(tree, "latent_names")
    return [str(names[i]) if isinstance(i, int) and 0 <= i < len(names) else str(i) for i in _items(tree, key)]


_NATS = ("mutual_information", "class_entropy", "conditional_entropy")
_MODELS = {"baseline": "baseline", "ours": "semantic branch", "latent": "latent branch"}
_CALLED = {
    "foreground_called_background": "Foreground that is called background",
    "background_called_foreground": "Background that is called foreground",
}


def _beside_baseline(tree: Tree) -> Table | None:
    """IoU per class of the baseline and ours; None without a baseline."""
    baseline = _part(tree, "baseline")
    pairs = zip(_items(tree, "classes"), _items(baseline, "iou"), _items(baseline, "ours"), strict=False)
    rows = [[Entry(str(name)), _iou(theirs), _iou(ours), _gain(theirs, ours)] for name, theirs, ours in pairs]
    caption = f"IoU per class in % beside {Path(str(baseline.get('run'))).name}"
    return Table(caption, ["class", "baseline", "ours", "difference"], rows) if rows else None


def _iou(value: Any) -> Entry:
    return Entry(f"{100 * value:.1f}" if number(value) else "absent")


def _gain(baseline: Any, ours: Any) -> Entry:
    return Entry(f"{100 * (ours - baseline):+.1f}" if number(baseline) and number(ours) else DASH)
