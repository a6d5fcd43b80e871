"""Why an image was chosen, in words."""

from collections.abc import Sequence

from latentseg.suggest.ranking import SHOWN, WAYS, Known, Pick, Pool
from latentseg.suggest.signals import Doubt

HIGH = 0.75
"""A signal is named where the image is above this share of all images."""
RARE = 0.5
"""A class is called rare where fewer labelled images than this share of the even one show its pixels."""


def reasons(pick: Pick, pool: Pool, known: Known, doubt: Doubt, classes: Sequence[str], by: str) -> list[str]:
    """The reasons for one image, the strongest first; at least one.

    Args:
        pick: The choice.
        pool: All images.
        known: The labelled ones.
        doubt: The greatest of the image.
        classes: Their names.
        by: The name of the way.
    """
    way = WAYS[by]
    share = f"{classes[pick.rare]} ({percent(float(pool.expected[pick.index, pick.rare]))} of its pixels expected)"
    if way.drawn:
        return [f"drawn at random for {share}" if way.classes else "drawn at random"]
    names = [*(name for name in way.weights if name in pick.places), *(["distance"] if way.spread else [])]
    names.sort(key=lambda name: -pick.places[name])
    high = [name for name in names if pick.places[name] >= HIGH] or names[:1]
    return [_in_words(name, pick, pool, known, doubt, classes, share) for name in high]


def percent(share: float) -> str:
    """A share of 0..1: `38 %`, and `0.4 %` where it is small."""
    return f"{100 * share:.0f} %" if share >= SHOWN else f"{100 * share:.1f} %"


def _in_words(name: str, pick: Pick, pool: Pool, known: Known, doubt: Doubt, classes: Sequence[str], share: str) -> str:
    if name == "distance":
        return "unlike all labelled images" if len(known.features) else "unlike the images before it"
    if name == "rare":
        few = known.pixels[pick.rare] < RARE * known.pixels.mean()
        return f"{'rare class:' if few else 'more of'} {share}"
    if name == "entropy":
        if doubt.share == 0:
            return f"unsure in general (entropy {pool.signals['entropy'][pick.index]:.2f} of 1)"
        return f"unsure between {classes[doubt.first]} and {classes[doubt.second]} ({percent(doubt.share)} of pixels)"
    told = {"branches": "semantic and latent branch disagree", "teacher": "teacher and student disagree"}[name]
    return f"{told} ({percent(float(pool.signals[name][pick.index]))})"
