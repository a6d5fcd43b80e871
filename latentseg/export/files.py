"""The bytes of an export in each format, with what a user must know of it inside; and how they run."""

import io
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from latentseg.errors import UserError
from latentseg.export.graph import IMAGES, OUTPUTS

Runs = Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]
"""Images, uint8, shape (N, H, W, 3), to what the file puts out."""
NOTES = "latentseg.json"
"""Name of what is said of a pt2 file, in it (`extra_files`)."""


def to_onnx(program: ExportedProgram, notes: dict[str, str]) -> bytes:
    """An ONNX file; the notes are its `metadata_props`.

    Raises:
        UserError: The network has an operation that ONNX has not.
    """
    import onnx  # noqa: PLC0415 - an extra

    outputs = OUTPUTS[: len(program.graph_signature.user_outputs)]
    try:
        with warnings.catch_warnings(action="ignore"):
            made = torch.onnx.export(
                program, dynamo=True, input_names=[IMAGES], output_names=outputs, verbose=False, external_data=False
            )
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"this network cannot become ONNX ({reason}): take --format pt2, or another encoder") from error
    assert made is not None
    model = made.model_proto
    _drop_traces(model)
    onnx.helper.set_model_props(model, notes)
    return bytes(model.SerializeToString())


def _drop_traces(model: Any) -> None:
    """Leave out where in the program each node comes from: it holds names of files of this machine."""
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, model.graph):
        del part.metadata_props[:]
    del model.functions[:]


def to_pt2(program: ExportedProgram, notes: dict[str, str]) -> bytes:
    """A file of `torch.export.save`; the notes are JSON under `NOTES` of its extra files."""
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # of weights in channels last, which come back as they were
        torch.export.save(program, file, extra_files={NOTES: json.dumps(notes)})
    return file.getvalue()


def open_onnx(content: bytes) -> Runs:
    """What runs an ONNX file, on the CPU, with as many threads as PyTorch."""
    import onnxruntime  # noqa: PLC0415 - an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: [np.asarray(found) for found in session.run(None, {IMAGES: images})]


def open_pt2(content: bytes) -> Runs:
    """What runs a pt2 file."""
    module = torch.export.load(io.BytesIO(content)).module()

    @torch.no_grad()
    def run(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [found.numpy() for found in module(torch.from_numpy(images))]

    return run
