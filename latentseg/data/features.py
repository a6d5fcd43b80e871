"""Features of a few views of each image, kept on disk: memory-mapped, float16, filled image by image.

A store is one folder: `index.json` (what it holds), `map_I.npy` (shape (images * views, h, w, channels), so that a
row is channels-last), `sizes.npy` (height and width of each image) and `done.npy` (which images are in it). An image
counts once all its rows are written, so a killed process loses at most the image it was at.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentseg.errors import UserError
from latentseg.reading import read_whole


class Features(NamedTuple):
    """Feature maps of N images, in place of the images themselves."""

    maps: list[Tensor]
    """Finest first, each of shape (N, channels, h, w)."""
    size: tuple[int, int]
    """Height and width of the images, in pixels."""


Row = tuple[str, int]
"""Id of an image, and number of its view."""


class FeatureStore:
    """Features by image and view.

    Args:
        folder: Of a store that `create_store` made.

    Raises:
        UserError: The store is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            content = json.loads(read_whole(folder / "index.json"))
            self.views, self.crop = int(content["views"]), (int(content["crop"][0]), int(content["crop"][1]))
            self._number = {str(name): number for number, name in enumerate(content["images"])}
            self._maps = int(content["maps"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{folder} is no store of features ({error}): delete it, it is made anew") from error
        self._open: dict[str, NDArray[Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # each process maps the files for itself

    def holds(self, image: str) -> bool:
        """Whether the features of an image are there."""
        return bool(self._file("done")[self._number[image]])

    def size(self, image: str) -> tuple[int, int]:
        """Height and width of an image that is in the store, in pixels."""
        height, width = self._file("sizes")[self._number[image]].tolist()
        return height, width

    def read(self, rows: Sequence[Row]) -> Features:
        """Features of a batch, float16, each map of shape (N, channels, h, w)."""
        places = [self._number[image] * self.views + view for image, view in rows]
        maps = [torch.from_numpy(self._file(f"map_{i}")[places]).movedim(-1, 1) for i in range(self._maps)]
        return Features(maps, self.crop)

    def write(self, image: str, size: tuple[int, int], maps: Sequence[Tensor]) -> None:
        """Put in the features of all views of an image, each map of shape (views, channels, h, w)."""
        first = self._number[image] * self.views
        for i, features in enumerate(maps):
            largest = torch.finfo(torch.float16).max
            rows = features.movedim(1, -1).clamp(-largest, largest).half().cpu().numpy()
            self._file(f"map_{i}")[first : first + self.views] = rows
        self._file("sizes")[self._number[image]] = size
        self._file("done")[self._number[image]] = 1

    def flush(self) -> None:
        """Write to disk what is in memory: the maps first, then which images are done."""
        for name in sorted(self._open, key=lambda name: name == "done"):
            array = self._open[name]
            if isinstance(array, np.memmap):
                array.flush()

    def _file(self, name: str) -> NDArray[Any]:
        if name not in self._open:
            try:
                self._open[name] = np.load(self.folder / f"{name}.npy", mmap_mode="r+", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{self.folder}/{name}.npy is damaged ({error}): delete the folder, it is made anew"
                ) from error
        return self._open[name]


def create_store(
    folder: Path, images: Sequence[str], views: int, crop: tuple[int, int], shapes: Sequence[tuple[int, int, int]]
) -> None:
    """Make an empty store.

    Args:
        folder: Where; made if missing.
        images: Ids of the images.
        views: Views of each.
        crop: Height and width of a view in pixels.
        shapes: Channels, height and width of each feature map of one view.

    Raises:
        UserError: The folder cannot be written.
    """
    rows = len(images) * views
    arrays: dict[str, tuple[tuple[int, ...], type]] = {
        f"map_{i}": ((rows, height, width, channels), np.float16) for i, (channels, height, width) in enumerate(shapes)
    }
    arrays |= {"sizes": ((len(images), 2), np.int32), "done": ((len(images),), np.uint8)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (shape, kind) in arrays.items():  # sparse files: the disk fills as images come
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape)
        content = {"images": list(images), "views": views, "crop": list(crop), "maps": len(shapes)}
        (folder / "index.json").write_text(json.dumps(content), encoding="utf-8")  # last: with it the store is complete
    except OSError as error:
        raise UserError(f"cannot write features to {folder}: {error}; set cache_folder=FOLDER") from error
