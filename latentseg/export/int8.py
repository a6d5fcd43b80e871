"""An ONNX file in integers of 8 bits, and what that costs."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentseg.data.datasets import Dataset, Item
from latentseg.export.files import Runs, open_onnx
from latentseg.export.graph import IMAGES
from latentseg.export.parity import whole
from latentseg.inference.evaluate import score_items
from latentseg.inference.model import Model, open_data
from latentseg.models.segmenter import Output

SEEN = 24
"""Images by which the ranges of the maps are found."""
JUDGED = 100
"""Images at most by which the loss is measured."""


@dataclass(frozen=True)
class Loss:
    """What int8 costs on images of val, or of the training where none of val has labels."""

    images: int
    different: float
    """Share of pixels with another class."""
    before: float
    """mIoU of the run in float32; NaN where no image of val has labels."""
    after: float

    def text(self) -> str:
        """A line for the command line."""
        scored = f", mIoU {100 * self.before:.2f} -> {100 * self.after:.2f} %" if self.before == self.before else ""
        return f"int8: {100 * self.different:.2f} % of the pixels of {self.images} images have another class{scored}"


class OfFile(nn.Module):
    """A file in the place of a segmenter: so `Model` scales and scores with it as with any.

    Args:
        run: The file; it pads for itself.
    """

    mean, num_latent = (0.0, 0.0, 0.0), 0

    def __init__(self, run: Runs) -> None:
        super().__init__()
        self.run = run
        self.on_cpu = nn.Parameter(torch.zeros(()))

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Any is."""
        return height, width

    def forward(self, images: Tensor, latent: bool = False) -> Output:  # noqa: ARG002 - classes alone are scored
        """Probabilities, whose largest is where the largest logit is, of images (N, 3, H, W), RGB in 0..1."""
        pixels = (255 * images).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        return Output(torch.from_numpy(self.run(pixels)[0]), None)


def to_int8(model: Model, content: bytes) -> tuple[bytes, Loss]:
    """Weights and maps of the convolutions as integers, by the ranges that training images show; and the loss.

    Args:
        model: Whose data set is there.
        content: Its ONNX file, for images of any size.

    Raises:
        UserError: The data set is not there.
    """
    model = whole(model)
    dataset = open_data(model.run)
    images = [dataset.read_image(item)[None] for item in spread(dataset.items("train"), SEEN)]
    small = quantized(content, images)
    return small, _loss(model, dataset, open_onnx(content), open_onnx(small))


def spread(items: list[Item], number: int) -> list[Item]:
    """So many of them, at equal distances; all if there are fewer."""
    number = min(number, len(items))
    return [items[place * len(items) // number] for place in range(number)]


def _loss(model: Model, dataset: Dataset, before: Runs, after: Runs) -> Loss:
    labelled = [item for item in dataset.items("val") if item.has_labels] if dataset.has("val") else []
    items = spread(labelled or dataset.items("train"), JUDGED)
    files = [replace(model, segmenter=OfFile(run)) for run in (before, after)]  # type: ignore[arg-type]
    different = pixels = 0
    for item in items:
        image = dataset.read_image(item)
        one, other = (file.labels(image).semantic for file in files)
        different, pixels = different + int((one != other).sum()), pixels + one.numel()
    scored = [score_items(file, dataset, items).miou for file in files] if labelled else [float("nan")] * 2
    return Loss(len(items), different / pixels, *scored)


def quantized(content: bytes, images: list[NDArray[np.uint8]]) -> bytes:
    """An ONNX file whose convolutions compute in int8, by the ranges of their maps on images, each (1, H, W, 3)."""
    import onnx  # noqa: PLC0415 - an extra
    from onnxruntime import quantization  # noqa: PLC0415

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        left = iter(images)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(self.left, None)
            return None if image is None else {IMAGES: image}

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"), _silent():
        file = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            onnx.load_model_from_string(content),
            file,
            Reader(),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return file.read_bytes()


@contextmanager
def _silent() -> Iterator[None]:
    """Its advice is for those who call it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
