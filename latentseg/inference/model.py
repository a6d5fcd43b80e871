"""A trained segmenter as every verb uses it: whole images in; probabilities, classes, or a stream of both out.

From top to bottom: `Model`, what it answers of images and of a stream of them, by scale, mirror and window; and how the
images of a data set come to it.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from latentseg.config import Config, DataConfig, InferenceConfig
from latentseg.data.ahead import in_threads
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.images import read_rgb, resized
from latentseg.engine import Precision, choose_device, choose_precision, use_threads
from latentseg.errors import RunError, UserError, is_out_of_memory
from latentseg.inference.sharing import Shared
from latentseg.inference.stream import BATCH_PIXELS, Pixels, Ready, Size, in_batches
from latentseg.inference.tiles import in_tiles, no_memory, starts, tell_tiles
from latentseg.methods.table import METHODS
from latentseg.models.segmenter import Output, Segmenter, build_segmenter
from latentseg.runs.checkpoints import load_module
from latentseg.runs.folder import Run, open_run

Thing = TypeVar("Thing")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image."""

    labels: NDArray[np.uint8]
    """Class id per pixel, shape (H, W)."""
    probs: NDArray[np.float32]
    """Class probabilities, shape (C, H, W)."""
    latent: NDArray[np.uint8] | None
    """Latent class per pixel, shape (H, W), or None for a model without latent branch."""

    def __repr__(self) -> str:
        latent = "" if self.latent is None else ", latent classes"
        return f"Prediction({self.labels.shape[0]}x{self.labels.shape[1]} pixels, {len(self.probs)} classes{latent})"


@dataclass(frozen=True)
class Model(Shared):
    """A segmenter with what it takes to use it, from a run folder (`open`) or from memory (`live`)."""

    run: Run
    """Its configuration, classes and colours, and where it comes from."""
    segmenter: Segmenter
    step: int = 0
    """Steps that it was trained for."""

    def __repr__(self) -> str:
        return f"Model({self.run!r}, step {self.step}, {self.segmenter.num_latent} latent classes, on {self.device})"

    @classmethod
    def open(cls, run: str | Path | Run, checkpoint: str = "last", overrides: list[str] | tuple[str, ...] = ()) -> Self:
        """Load the trained segmenter of a run, in eval mode on the configured device.

        Args:
            run: The run folder; or an open run, which the overrides do not change.
            checkpoint: last, or best (by the validation during training).
            overrides: `key=value` for data.root, device, threads, precision or inference.*.

        Raises:
            RunError: The run or its checkpoint is missing or damaged, or they do not fit each other.
            UserError: An override is none.
        """
        opened = run if isinstance(run, Run) else open_run(run, overrides)
        if checkpoint not in ("last", "best"):
            raise UserError(f"checkpoint {checkpoint!r}: choose last or best")
        use_threads(opened.config.threads)
        entry = opened.checkpoints.best() if checkpoint == "best" else opened.checkpoints.last()
        if entry is None:
            best = checkpoint == "best" and opened.checkpoints.last() is not None
            remedy = "nothing was scored while it trained; take the last one" if best else "train it with --resume"
            raise RunError(f"{opened.folder} has no {checkpoint} checkpoint yet: {remedy}")
        num_classes = len(opened.classes)
        branch = METHODS[opened.config.method.name].second_channels(opened.config.method, num_classes)
        segmenter = build_segmenter(opened.config.model, num_classes, branch, pretrained=False)
        load_module("segmenter", segmenter, opened.checkpoints.read(entry))
        segmenter.to(choose_device(opened.config.device)).eval().fold()
        return cls(opened, segmenter, entry.step)

    @classmethod
    def live(cls, segmenter: Segmenter, config: Config, dataset: Dataset) -> Self:
        """A segmenter without a run folder, such as one that is being trained; `dataset` has its classes."""
        return cls(Run(Path(), config, dataset.classes, dataset.palette), segmenter)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by id."""
        return self.run.classes

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.segmenter.parameters()).device

    @property
    def precision(self) -> Precision:
        """Precision of its forward passes."""
        return choose_precision(self.run.config, self.device)

    def predict(
        self, image: str | Path | Image.Image | NDArray[Any], inference: InferenceConfig | None = None
    ) -> Prediction:
        """Predict one image, at its own size.

        Args:
            image: A path, a Pillow image, or an array, such as RGB of shape (H, W, 3), uint8: what `read_rgb` takes.
            inference: Whole or sliding window, scales, mirror; the run's choice if None.

        Raises:
            UserError: The image cannot be read, or the array is no image.
        """
        model = self
        if inference is not None:
            config = self.run.config.model_copy(update={"inference": inference})
            model = replace(self, run=replace(self.run, config=config))
        pixels, size, _ = self.ready(read_rgb(image, self.run.config.data.bits), None)
        probs = model.probs(pixels, size)
        labels, latent = _map(argmax, probs)
        groups = None if latent is None else latent[0].cpu().numpy()
        return Prediction(labels[0].cpu().numpy(), probs.semantic[0].cpu().numpy(), groups)

    @torch.inference_mode()
    def probs(self, images: Pixels, size: Size | None = None, latent: bool = True) -> Output:
        """Probabilities at each pixel: whole or by sliding window, averaged over scales and mirror.

        Args:
            images: RGB as the network sees it, scaled by `data.resize`, uint8, shape (N, h, w, 3) or (h, w, 3).
            size: Height H and width W of the maps; those of the images if None.
            latent: Whether the latent classes are wanted.

        Returns:
            S_c, shape (N, C, H, W), and S_l, shape (N, L, H, W), or None without it; float32, on the device.
        """
        return in_tiles(self._probs, images, size, latent, self.run.config.inference)

    @torch.inference_mode()
    def labels(self, images: Pixels, size: Size | None = None, latent: bool = True) -> Output:
        """The most probable class of each pixel; arguments as for `probs`.

        Where nothing is averaged or resized, the largest logit decides: it has the largest probability.

        Returns:
            Class ids, shape (N, H, W), and latent classes, likewise, or None; uint8, on the device.
        """
        return in_tiles(self._labels, images, size, latent, self.run.config.inference)

    @torch.inference_mode()
    def confident(self, images: Pixels, size: Size | None = None, _latent: bool = False) -> Output:
        """The most probable class of each pixel and, in the place of a latent class, its probability.

        Arguments as for `probs`; no latent class is asked for.

        Returns:
            Class ids, uint8, and probabilities, float32, both of shape (N, H, W), on the device.
        """

        def predict(images: Pixels, size: Size, latent: bool) -> Output:
            best = self._probs(images, size, latent).semantic.max(1)
            return Output(best.indices.byte(), best.values)

        return in_tiles(predict, images, size, False, self.run.config.inference)

    def stream(
        self,
        things: Iterable[Thing],
        read: Callable[[Thing], Ready[Result] | None],
        latent: bool = False,
        failed: Callable[[Result], None] | None = None,
        predict: Callable[[Pixels, Size, bool], Output] | None = None,
    ) -> Generator[tuple[Result, Output], None, None]:
        """The most probable classes of many images, in batches of equal size, while threads read the next ones.

        Those of equal size keep their order, others may pass them. Few are in memory at a time.

        Args:
            things: Any number of them.
            read: Called by threads: the image of a thing, from a `Dataset` or by `ready`; None leaves it out.
            latent: Whether the latent classes are wanted.
            failed: Called with what belongs to an image for which the memory is too small; None, that is an error.
            predict: What is asked of the network of a batch; `labels` if None, `confident` has probabilities, too.

        Yields:
            What belongs to an image, and its class ids, shape (H, W), and latent classes, likewise, or None; uint8,
            on the CPU; or the maps of `predict`, each without its first dimension.

        Raises:
            DataError: The memory is too small for an image.
        """
        told = False
        with closing(in_threads(read, things)) as found:
            images = (one for one in found if one is not None)
            for batch in in_batches(images, self.run.config.inference.batch_size, BATCH_PIXELS[self.device.type]):
                pixels, sizes, owners = zip(*batch, strict=True)
                told = told or tell_tiles(pixels[0].shape[:2], sizes[0], self.run.config.inference)
                try:
                    maps = _map(Tensor.cpu, (predict or self.labels)(np.stack(pixels), sizes[0], latent))
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    if failed is None:
                        raise no_memory(None, f"{sizes[0][1]}x{sizes[0][0]}") from error
                    for owner in owners:
                        failed(owner)
                    continue
                for number, owner in enumerate(owners):
                    yield owner, _map(itemgetter(number), maps)

    def ready(self, pixels: Pixels, thing: Thing) -> Ready[Thing]:
        """An image of any size, RGB, uint8, shape (H, W, 3), scaled as the network saw those of its training."""
        return resized(pixels, self.run.config.data.resize), (pixels.shape[0], pixels.shape[1]), thing

    def _labels(self, images: Pixels, size: Size, latent: bool) -> Output:
        """As `labels`, in one piece."""
        config, shape = self.run.config.inference, (images.shape[-3], images.shape[-2])
        if config.scales == [1.0] and not config.mirror and size == shape and _is_whole(shape, config):
            return _map(argmax, self._forward(self._tensor(images), latent, config.pad_to))
        return _map(argmax, self._probs(images, size, latent))

    def _probs(self, images: Pixels, size: Size, latent: bool) -> Output:
        """As `probs`, in one piece."""
        config, tensor = self.run.config.inference, self._tensor(images)
        height, width = tensor.shape[-2:]
        views: list[Output] = []
        for scale in config.scales:
            scaled_size = (max(1, round(height * scale)), max(1, round(width * scale)))
            scaled = tensor if scale == 1 else F.interpolate(tensor, scaled_size, mode="bilinear", antialias=True)
            for mirrored in (False, True) if config.mirror else (False,):
                view = self._view(scaled.flip(-1) if mirrored else scaled, latent)
                upright = _map(lambda probs: probs.flip(-1), view) if mirrored else view
                views.append(_map(lambda probs: _resize(probs, size), upright))
        return views[0] if len(views) == 1 else _map(lambda *probs: torch.stack(probs).mean(0), *views)

    def _tensor(self, images: Pixels) -> Tensor:
        """Shape (N, h, w, 3) or (h, w, 3), uint8, to (N, 3, h, w), float32 in 0..1, on the device."""
        tensor = torch.from_numpy(images if images.ndim == 4 else images[None])
        return tensor.to(self.device).permute(0, 3, 1, 2).float().div_(255)

    def _view(self, images: Tensor, latent: bool) -> Output:
        """Probabilities of images (N, 3, h, w) at their size, averaged over the windows that see a pixel."""
        config = self.run.config.inference
        height, width = images.shape[-2:]
        if _is_whole((height, width), config):
            return _map(_softmax, self._forward(images, latent, config.pad_to))
        window_height, window_width = min(config.window[0], height), min(config.window[1], width)
        total: Output | None = None
        visits = images.new_zeros(1, 1, height, width)
        for top in starts(height, window_height, config.overlap):
            for left in starts(width, window_width, config.overlap):
                area = (..., slice(top, top + window_height), slice(left, left + window_width))
                window = _map(_softmax, self._forward(images[area], latent))
                if total is None:
                    total = _map(lambda probs: probs.new_zeros(*probs.shape[:2], height, width), window)
                for whole, part in zip(total, window, strict=True):
                    if whole is not None and part is not None:
                        whole[area] += part
                visits[area] += 1
        assert total is not None
        return _map(lambda probs: probs / visits, total)

    def _forward(self, images: Tensor, latent: bool, pad_to: Size | None = None) -> Output:
        """Logits of images (N, 3, h, w), which are padded for the encoder: right and bottom, with the mean colour."""
        height, width = images.shape[-2:]
        least = pad_to or (0, 0)
        full_size = self.segmenter.valid_size(max(height, least[0]), max(width, least[1]))
        mean = images.new_tensor(self.segmenter.mean).view(1, 3, 1, 1)
        padded = mean.expand(len(images), 3, *full_size).clone()
        padded[..., :height, :width] = images
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            logits = self.segmenter(padded, latent=latent)
        return _map(lambda maps: maps[..., :height, :width], logits)


load = Model.open


def open_data(run: Run, data: DataConfig | None = None) -> Dataset:
    """Open the data set of a run, or another one, at the scale that the run was trained for.

    Args:
        run: An open run.
        data: The other data set.

    Raises:
        UserError: It cannot be found, or has other classes than the run.
    """
    chosen = data or run.config.data
    dataset = open_dataset(chosen.model_copy(update={"resize": run.config.data.resize}))
    if dataset.classes != run.classes:
        raise UserError(
            f"{run.folder} knows the classes {', '.join(run.classes)}, "
            f"but the data set {dataset.root or chosen.kind} has {', '.join(dataset.classes)}"
        )
    return dataset


def read_scored(dataset: Dataset, item: Item) -> Ready[NDArray[np.uint8]]:
    """An image of a data set for the network, and its targets at the original size, uint8, shape (H, W)."""
    targets = dataset.read_targets(item, resized=False)
    return dataset.read_image(item), (targets.shape[0], targets.shape[1]), targets


def argmax(maps: Tensor) -> Tensor:
    """Channel of the largest value at each pixel, (N, C, H, W) to (N, H, W), uint8; the first of equal ones.

    On a CPU `max` is several times faster than `torch.argmax` over a dimension that is not the last.
    """
    return maps.max(1).indices.byte()


def _is_whole(size: Size, config: InferenceConfig) -> bool:
    return config.mode != "slide" or (size[0] <= config.window[0] and size[1] <= config.window[1])


def _softmax(logits: Tensor) -> Tensor:
    """Logits to probabilities, both (N, C, H, W), in float32."""
    return logits.float().softmax(1)


def _resize(probs: Tensor, size: Size) -> Tensor:
    """Maps (N, C, h, w) at another size, (N, C, H, W)."""
    return probs if probs.shape[-2:] == size else F.interpolate(probs, size, mode="bilinear")


def _map(function: Callable[..., Tensor], *outputs: Output) -> Output:
    """A function of the classes' maps, and of the latent classes' maps, if there are any."""
    semantic, latent = zip(*outputs, strict=True)
    return Output(function(*semantic), None if latent[0] is None else function(*latent))
