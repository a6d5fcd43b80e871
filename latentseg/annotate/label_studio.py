"""Label Studio: tasks with predictions of brushes, and the labeling configuration that fits them."""

import json
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from latentseg.annotate.proposals import Proposed
from latentseg.annotate.target import Labels, Sizes
from latentseg.data.drawn.runs import packed

FILE, CONFIGURATION = "label_studio_tasks.json", "label_studio_config.xml"
TOOL, IMAGE = "label", "image"
"""Names of the tags in the configuration."""


def encode(labels: Labels, proposed: Proposed) -> bytes:
    """The task of an image.

    It is found by Label Studio's local storage, whose document root is the folder above that of the images.
    """
    height, width = proposed.ids.shape
    regions = list(proposed.regions())
    result = [
        {
            "id": f"{proposed.number}-{region.label}",
            "type": "brushlabels",
            "from_name": TOOL,
            "to_name": IMAGE,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": region.confidence,
            "value": {
                "format": "rle",
                "rle": packed(region.pixels),
                "brushlabels": [labels.classes[region.label]],
            },
        }
        for region in regions
    ]
    score = sum(region.confidence for region in regions) / max(1, len(regions))
    prediction = {"model_version": labels.run, "score": round(score, 4), "result": result}
    place = quote(f"{labels.folder}/{proposed.image.as_posix()}")
    task = {"data": {IMAGE: f"/data/local-files/?d={place}"}, "predictions": [prediction] if regions else []}
    return json.dumps(task).encode()


def head(_labels: Labels) -> bytes:
    """What stands before the tasks."""
    return b"[\n"


def tail(_labels: Labels, _sizes: Sizes) -> bytes:
    """What stands behind them."""
    return b"\n]\n"


def beside(labels: Labels) -> dict[str, bytes]:
    """The labeling configuration."""
    rows = "\n".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(color)}/>"
        for name, color in zip(labels.classes, labels.colors, strict=True)
    )
    text = (
        f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}" zoom="true"/>\n'
        f'  <BrushLabels name="{TOOL}" toName="{IMAGE}">\n{rows}\n  </BrushLabels>\n</View>\n'
    )
    return {CONFIGURATION: text.encode()}
