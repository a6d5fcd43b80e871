"""Export a run: build the graph, write it in its format, prove it, and only then give it its name."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from latentseg import __version__
from latentseg.errors import UserError
from latentseg.export.arguments import check_arguments
from latentseg.export.files import open_onnx, open_pt2, to_onnx, to_pt2
from latentseg.export.graph import IMAGES, LEAST, OUTPUTS, Graph, traced
from latentseg.export.int8 import Loss, to_int8
from latentseg.export.parity import Parity, check_parity
from latentseg.inference.model import Model
from latentseg.runs.checkpoints import write_atomically

FLOAT = ("device=cpu", "precision=32-true")
"""An export computes so, and what it is compared with."""


@dataclass(frozen=True)
class Export:
    """A file that was written."""

    file: Path
    notes: dict[str, str]
    """What stands in it."""
    parity: Parity
    """Of the file, or of that before it became int8."""
    loss: Loss | None
    """By int8."""

    def text(self) -> str:
        """A few lines for the command line."""
        size, scale, parity = self.notes["size"], float(self.notes["resize"]), self.parity
        scaled = f", scaled by {scale:g} before, as in training (data.resize)" if scale != 1 else ""
        lines = [
            f"{self.file}: {self.file.stat().st_size / 1e6:.1f} MB",
            f"takes {IMAGES}, RGB, uint8, (N, height, width, 3), of {size if size != 'any' else 'any size'}{scaled}",
            (f"float32: probabilities within {parity.difference:.1e} of the model's, {100 * parity.equal:.3f} % of the "
            f"pixels of the same class, on images of {', '.join(parity.sizes)}"),
        ]  # fmt: skip
        if not parity.varied:
            lines.append("note: the model is sure of one class everywhere on these images: this proves little")
        return "\n".join([*lines, *([self.loss.text()] if self.loss else [])])


def export_run(
    run: str | Path,
    out: str | Path,
    kind: str = "onnx",
    checkpoint: str = "last",
    int8: bool = False,
    size: tuple[int, int] | None = None,
    latent: bool = False,
    overrides: list[str] | tuple[str, ...] = (),
) -> Export:
    """Write the segmenter of a run as one file: normalisation and padding inside, probabilities at the image's size.

    Args:
        run: The run folder.
        out: The file, which must not be there: NAME.onnx or NAME.pt2.
        kind: onnx or pt2 (a program of torch.export).
        checkpoint: last, or best (by the validation during training).
        int8: Weights and maps as integers of 8 bits, by unlabelled images of the run's data set; onnx alone.
        size: Height and width in pixels, if all images have the same. None: any size, where the encoder takes it,
            else that of the views of the training.
        latent: Whether the probabilities of the latent classes are put out, too.
        overrides: `key=value` for data.root, threads or inference.pad_to.

    Raises:
        UserError: Arguments that cannot be; a network that cannot be exported; a file that says something else than
            the model. Nothing is written then.
    """
    out = Path(out)
    check_arguments(out, kind, int8, size)
    model = Model.open(run, checkpoint, [*overrides, *FLOAT])
    if latent and model.segmenter.latent_head is None:
        raise UserError(f"{run} has no latent branch: leave out --latent")
    encoder = model.segmenter.encoder
    if int8 and not encoder.any_size:
        raise UserError(f"--int8 is there for convolutional encoders, not for {model.run.config.model.encoder}")
    size = size if size or encoder.any_size else model.run.config.augment.crop
    program = traced(Graph(model.segmenter, latent, model.run.config.inference.pad_to), size)
    notes = _notes(model, checkpoint, size)
    content = (to_onnx if kind == "onnx" else to_pt2)(program, notes)
    parity = check_parity(model, (open_onnx if kind == "onnx" else open_pt2)(content), size)
    loss = None
    if int8:
        content, loss = to_int8(model, content)
    write_atomically(out, content)
    return Export(out, notes, parity, loss)


def _notes(model: Model, checkpoint: str, size: tuple[int, int] | None) -> dict[str, str]:
    config = model.run.config
    return {
        "latentseg": __version__,
        "classes": json.dumps(model.classes),
        "palette": json.dumps(np.asarray(model.run.palette).tolist()),
        "input": f"{IMAGES}: RGB, uint8, (N, height, width, 3); sides of {LEAST} pixels or more, or `size`",
        "output": f"{', '.join(OUTPUTS)} (if it is there): float32, (N, classes, height, width)",
        "size": "any" if size is None else f"{size[0]}x{size[1]}",
        "resize": f"{config.data.resize:.12g}",
        "encoder": config.model.encoder,
        "method": config.method.name,
        "checkpoint": f"{checkpoint}, step {model.step}",
        "torch": torch.__version__,
    }
