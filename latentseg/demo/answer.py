"""What the page shows of one photograph: its maps and probabilities, packed for the browser, or why there are none."""

import base64
import io
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from latentseg.data.colors import distinct_palette
from latentseg.data.images import read_rgb, resized
from latentseg.data.opening import opened
from latentseg.engine import full_speed
from latentseg.errors import DataError, UserError, is_out_of_memory
from latentseg.inference.model import Model
from latentseg.inference.pictures import index_png, left_unpainted, overlay
from latentseg.methods.table import METHODS
from latentseg.models.segmenter import Output

MOST_PIXELS = 32_000_000
"""Of a photograph: some 0.4 GB while it is read."""
SHOWN_PIXELS = 2**21
"""Of the network's image and of the maps, so that no photograph takes much memory or time; one of 1920x1080 fits."""
THUMBNAIL = 320
"""Longest side of a picture in the gallery, in pixels."""


def latent_names(model: Model) -> list[str]:
    """Names of what the second branch predicts, by id; none without one."""
    second = METHODS[model.run.config.method.name].second
    return list(model.classes) if second == "classes" else [f"l{id_}" for id_ in range(model.segmenter.num_latent)]


def answer(models: Mapping[str, Model], meanings: Mapping[str, Sequence[str]], path: Path | None) -> str:
    """What the page shows of a photograph, as JSON: the photograph, and of each run its layers and its mask.

    Args:
        models: One or two, by the name of the run; they have the same classes.
        meanings: By the name of the run: what each of its latent classes is called.
        path: The photograph; None: there is none.

    Returns:
        An object of width, height, photo (JPEG as data URI), note and runs; or of `error`, a sentence for the user.
    """
    if path is None:
        return json.dumps({})
    try:
        pixels = read_photo(path, next(iter(models.values())).run.config.data.bits)
        shown = resized(pixels, min(1.0, math.sqrt(SHOWN_PIXELS / (pixels.shape[0] * pixels.shape[1]))))
        found = [_run(name, model, meanings[name], pixels, shown) for name, model in models.items()]
        return json.dumps(_about(pixels, shown) | {"runs": found})
    except DataError as error:
        return json.dumps({"error": f"This file cannot be shown: {error.cause}. What helps: {error.remedy}."})
    except UserError as error:
        return json.dumps({"error": str(error)})
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        return json.dumps({"error": "The memory of this machine does not hold this photograph. Take a smaller one."})


def thumbnail(model: Model, path: Path) -> NDArray[np.uint8] | None:
    """A small picture of a photograph with its classes, RGB, (h, w, 3), for the gallery; None if it cannot be read."""
    try:
        pixels = read_photo(path, model.run.config.data.bits)
    except UserError:
        return None
    small = resized(pixels, min(1.0, THUMBNAIL / max(pixels.shape[:2])))
    ids = _probs(model, pixels, (small.shape[0], small.shape[1]), latent=False).semantic[0].argmax(0).byte()
    unpainted = left_unpainted(model.classes, model.run.config.inference.unpainted)
    return overlay(small, ids.cpu().numpy(), model.run.palette, unpainted)


def read_photo(path: Path, bits: int) -> NDArray[np.uint8]:
    """A photograph as RGB, uint8, shape (H, W, 3), if it is not too large for this page: its size is looked at first.

    Raises:
        DataError: It is too large, or cannot be read.
    """
    with opened(path) as image:
        width, height = image.size
    if width * height > MOST_PIXELS:
        cause = f"has {width} x {height} pixels, and this page takes {MOST_PIXELS // 10**6} million"
        raise DataError(cause, "scale it down, or predict it with `latentseg predict`", path)
    return read_rgb(path, bits)


def _probs(model: Model, pixels: NDArray[np.uint8], size: tuple[int, int], latent: bool = True) -> Output:
    """Probabilities of a photograph (H, W, 3), of maps of height and width `size`.

    The network sees it at the scale of its training, unless that has too many pixels for a page that many share.
    """
    factor = min(model.run.config.data.resize, math.sqrt(SHOWN_PIXELS / (pixels.shape[0] * pixels.shape[1])))
    with full_speed():
        return model.probs(resized(pixels, factor), size, latent)


def _about(pixels: NDArray[np.uint8], shown: NDArray[np.uint8]) -> dict[str, Any]:
    height, width = shown.shape[:2]
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, "JPEG", quality=90)
    smaller = f"{pixels.shape[1]} x {pixels.shape[0]} pixels, shown and predicted at {width} x {height}; "
    note = f"{smaller}`latentseg predict` takes it whole." if shown.shape != pixels.shape else ""
    return {"width": width, "height": height, "photo": data_uri("jpeg", buffer.getvalue()), "note": note}


def _run(
    name: str, model: Model, meanings: Sequence[str], pixels: NDArray[np.uint8], shown: NDArray[np.uint8]
) -> dict[str, Any]:
    """What one run says: the layers `classes` and `latent` (None without the branch), and its mask, a PNG of ids."""
    probs = _probs(model, pixels, (shown.shape[0], shown.shape[1]))
    ids, sure = _best(probs.semantic)
    latent = None
    if probs.latent is not None:
        latent = _layer(meanings, distinct_palette(len(meanings)), *_best(probs.latent))
    classes = _layer(model.classes, model.run.palette, ids, sure)
    return {
        "name": name,
        "classes": classes,
        "latent": latent,
        "mask": data_uri("png", index_png(ids, model.run.palette)),
    }


def _best(maps: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The most probable id at each pixel, and its probability in per cent, both (H, W), of maps (1, K, H, W)."""
    probability, ids = maps[0].max(0)
    return ids.byte().cpu().numpy(), probability.mul(100).round().byte().cpu().numpy()


def _layer(
    names: Sequence[str], palette: NDArray[np.uint8], ids: NDArray[np.uint8], sure: NDArray[np.uint8]
) -> dict[str, Any]:
    return {"names": list(names), "colors": palette.tolist(), "ids": _packed(ids), "sure": _packed(sure)}


def _packed(values: NDArray[np.uint8]) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 1)).decode()


def data_uri(kind: str, content: bytes) -> str:
    """The content of an image file (jpeg, png) as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
