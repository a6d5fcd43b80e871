"""The truth of the unlabelled images of a step, where the data set has it: for the log, never for a loss."""

import torch
from torch import Tensor

from latentseg.config import Config
from latentseg.data.batches import UNLABELED, WHOLE, Part, Place, Stores, places, view_at
from latentseg.data.datasets import Dataset
from latentseg.data.images import IGNORE_INDEX
from latentseg.data.splits import Split
from latentseg.data.transforms import view_targets
from latentseg.errors import UserError


class HiddenTruth:
    """Class ids of the unlabelled views, to log how many pseudo-labels are right.

    Nothing of it ever reaches a loss: no batch holds it, and training is the same without it. A split drops the masks
    of its unlabelled images; here they are looked up again by id. Images of `data.unlabeled` have none.

    Args:
        dataset: Holds the training images with their masks, and reads them.
        split: Its unlabelled images are meant.
        config: Seed, batch size and views of the run.
        stores: Features that the run reads instead of images, if it does.
        part: What this process takes of each batch.
    """

    def __init__(
        self, dataset: Dataset, split: Split, config: Config, stores: Stores | None = None, part: Part = WHOLE
    ) -> None:
        self.dataset, self.config, self.stores, self.part = dataset, config, stores, part
        self._unlabeled = split.unlabeled
        self._known = {item.id: item for item in dataset.items("train") if item.has_labels}

    def targets(self, step: int) -> Tensor | None:
        """Class ids of the unlabelled views of a step, int64, shape (N, H, W), 255 where there is none.

        An image without a mask, or with one that cannot be read, is 255 throughout. None if all of them are such.
        """
        if not self._unlabeled:
            return None
        found = [self._view(place) for place in places(self.config, UNLABELED, self._unlabeled, step, self.part)]
        if all(ids is None for ids in found):
            return None
        unknown = torch.full(self.config.augment.crop, IGNORE_INDEX)
        return torch.stack([unknown if ids is None else ids for ids in found])

    def _view(self, place: Place) -> Tensor | None:
        item = self._known.get(place.item.id)
        if item is None:
            return None
        try:
            ids = self.dataset.read_targets(item)
        except UserError:
            return None
        size = ids.shape[:2] if self.stores is None else self.stores.unlabeled.size(item.id)
        return view_targets(ids, view_at(self.config, UNLABELED, place, *size), self.config.augment)
