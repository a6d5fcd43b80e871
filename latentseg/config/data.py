"""Options of data: where images come from, and how they are shown."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from latentseg.config.fields import (
    BelowOne,
    Mark,
    Natural,
    PathText,
    Scale,
    Scenes,
    Section,
    Seed,
    Share,
    Side,
    Views,
    Weight,
)

MaskValue = Annotated[int, Field(ge=-(2**31), lt=2**32)]  # of signed and of unsigned samples


class ScenesConfig(Section):
    """The embedded street scenes (`data.kind=scenes`): drawn when read, a pure function of seed and index."""

    train: Scenes = 400
    """Training scenes."""
    val: Scenes = 100
    """Validation scenes."""
    test: Scenes = 100
    """Test scenes."""
    height: Side = 144
    """Height of a scene in pixels."""
    width: Side = 256
    """Width of a scene in pixels."""
    seed: Seed = 0
    """Seed of the whole set: another seed draws other scenes."""


class DataConfig(Section):
    """Where images and masks come from, and which of them keep their labels."""

    kind: Literal["voc", "cityscapes", "folder", "coco", "cvat", "labelme", "label_studio", "scenes"] = "folder"
    """Layout: official VOC, official Cityscapes, images/{train,val,test} + masks (or labels), annotations in JSON or
    XML, or drawn scenes. `latentseg init FOLDER` finds out."""
    root: Annotated[PathText | None, Mark.RUNTIME] = None
    """Folder of the data set. For voc the folder that holds JPEGImages, or one above it (VOCdevkit)."""
    labeled: PathText | int | float = "1/8"
    """Which training images keep their labels: a fraction (1/8), a number (12), all (with a mask), or a list file."""
    split_seed: Seed | None = None
    """Seed of the draw of labelled images; the run's seed if null."""
    every_class: bool | None = None
    """Images of missing classes replace the last ones of a draw. Null: in draws of fewer than 200; true: or refuse."""
    balance: Share = 0.0
    """Balanced draw: labelled images with a class that fewer than this share of them show come more often, up to
    sqrt(balance / share) times an epoch (arXiv:1908.03195). 0: each once."""
    unlabeled: list[PathText] = []
    """Further folders of unlabelled images, searched recursively; no mask needed."""
    train_list: PathText | None = None
    """voc: name of the list of training ids (train_aug, train)."""
    masks: Literal["SegmentationClassAug", "SegmentationClass", "SegmentationClassPNG"] = "SegmentationClassAug"
    """voc: folder of the masks."""
    pairs: PathText | tuple[PathText, PathText] | None = None
    """folder: names of images and masks, such as ["images/{split}/{id}", "masks/{split}/{id}_mask"], or a CSV file."""
    uncovered: Literal["background", "ignore"] = "background"
    """coco, cvat, labelme, label_studio: pixels that no annotation covers are background, or have no label (ignore)."""
    holdout: Natural = 0
    """Training images that are set aside for tuning, drawn with a fixed seed; evaluate them as split `holdout`."""
    fold: str | None = None
    """Such as 2/5: the second of five parts of the labelled images is held out, drawn with a fixed seed."""
    classes: Annotated[list[str], Field(min_length=2, max_length=255)] | None = None
    """folder: names of the classes, in the order of their ids; from classes.txt in the root if null."""
    class_map: dict[MaskValue, Annotated[int, Field(ge=0, le=254, strict=True)]] | None = None
    """Mask value -> class id. Values that are not named are ignored. Null: the layout's own."""
    ignored_values: list[Annotated[MaskValue, Field(strict=True)]] = [255]
    """Mask values that mean "no label"."""
    color_map: Annotated[str, Field(min_length=1)] | dict[str, str] | None = None
    """Colour masks: a file of colours and classes, {class: "#rrggbb"}, or palette, the layout's or VOC's colours.
    index: ids, whatever colours the palettes give them."""
    bits: Annotated[Annotated[int, Field(ge=8, le=16, strict=True)], Mark.FEATURES] = 16
    """Bits that hold the values of images with 16 bits per sample: 12 where 4095 is white."""
    resize: Annotated[float, Field(ge=0.05, le=1, strict=True), Mark.FEATURES] = 1.0
    """Factor by which images are scaled down before anything else. Scores stay at the original size."""
    check: Annotated[Literal["full", "quick"], Mark.RUNTIME] = "full"
    """Before training: decode every file (full), or read only the headers and the labelled masks (quick)."""
    on_bad: Literal["stop", "skip"] = "stop"
    """Files that cannot be used: stop before training, or train on the rest and list them in split/skipped.txt."""
    scenes: Annotated[ScenesConfig, Mark.FEATURES] = ScenesConfig()
    """Number and size of the drawn scenes."""

    @field_validator("labeled", mode="before")
    @classmethod
    def _labeled_is_readable(cls, labeled: Any) -> Any:
        parts = labeled.split("/") if isinstance(labeled, str) else []
        if len(parts) == 2 and all(part.strip().isdigit() for part in parts):
            fits = 0 < int(parts[0]) <= int(parts[1])
        elif isinstance(labeled, str):
            fits = bool(labeled.strip())
        else:
            fits = type(labeled) in (int, float) and (labeled > 0 if type(labeled) is int else 0 < labeled < 1)
        if not fits:
            raise ValueError('must be a fraction (1/8, 0.125), a number (12), "all", or a list file')
        return labeled

    @model_validator(mode="after")
    def _fold_is_a_part(self) -> "DataConfig":
        if self.fold is not None:
            part, _, parts = self.fold.partition("/")
            if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts) and int(parts) > 1):
                raise ValueError(
                    f"data.fold={self.fold[:100]} must be the number of a part and that of all parts, such as 2/5"
                )
            if self.holdout:
                raise ValueError("data.fold and data.holdout both hold images out: take one of them")
        return self


class AugmentConfig(Section):
    """Random views of the training images. The paper: scale, crop, mirror; the photometric ones are off there."""

    scale: Annotated[tuple[Scale, Scale], Mark.FEATURES] = (0.5, 1.5)
    """Range of the random scale, drawn uniformly."""
    crop: Annotated[tuple[Side, Side], Mark.FEATURES] = (321, 321)
    """Height and width of the random crop; smaller images are padded (mean colour, target 255)."""
    mirror: Annotated[Share, Mark.FEATURES] = 0.5
    """Probability of a horizontal mirror."""
    brightness: Annotated[Share, Mark.FEATURES] = 0.0
    """Brightness is multiplied by 1 +- this."""
    contrast: Annotated[Share, Mark.FEATURES] = 0.0
    """Contrast is multiplied by 1 +- this."""
    saturation: Annotated[Share, Mark.FEATURES] = 0.0
    """Saturation is multiplied by 1 +- this."""
    hue: Annotated[float, Field(ge=0, le=0.5, strict=True), Mark.FEATURES] = 0.0
    """Hue is turned by +- this, in turns."""
    rotate: Annotated[float, Field(ge=0, le=180, strict=True), Mark.FEATURES] = 0.0
    """Turned by +- this, in degrees; what comes into sight is padding. 180 where no direction is up (aerial images)."""
    flip: Annotated[Share, Mark.FEATURES] = 0.0
    """Probability of a vertical flip: top and bottom change places."""
    scale_step: Annotated[Annotated[float, Field(ge=0.01, le=8, strict=True)] | None, Mark.FEATURES] = None
    """Step between scales, from the lowest to the highest (AdvSemiSeg's code: 0.1); any in the range if null."""
    views: Views | None = None
    """Different views of each image, the same for every seed and epoch; a new one each epoch if null."""
    labeled_views: Views | Literal["auto"] | None = None
    """Views of each labelled image where they should be more than `views`; auto: 64 up to 48 images, fewer of more."""

    def views_of_labeled(self, images: int) -> int | None:
        """How many different views each of so many labelled images has; None: a new one each epoch."""
        if self.views is None or self.labeled_views is None:
            return self.views
        if self.labeled_views == "auto":
            return max(self.views, min(64, 3072 // max(1, images)))
        return self.labeled_views

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> "AugmentConfig":
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale {self.scale} must be (lowest, highest)")
        if self.scale_step:
            steps = (self.scale[1] - self.scale[0]) / self.scale_step
            if abs(steps - round(steps)) > 1e-6:
                raise ValueError(f"scale_step={self.scale_step} does not divide the range of scale {self.scale}")
        if self.labeled_views is not None and self.views is None:
            raise ValueError(
                "augment.labeled_views goes with augment.views, which counts those of the unlabelled images"
            )
        return self


class StrongConfig(Section):
    """Strong views of unlabelled images, for fixmatch, unimatch and latent_match.

    They show what the weak view shows. The defaults are those of UniMatch (arXiv:2208.09910). mean_teacher and cps mix
    images without changing their colours; of cached features they see dropped channels, too.
    """

    jitter: Share = 0.8
    """Probability that colours are changed, by the four amounts below."""
    brightness: Share = 0.5
    """Brightness is multiplied by 1 +- this."""
    contrast: Share = 0.5
    """Contrast is multiplied by 1 +- this."""
    saturation: Share = 0.5
    """Saturation is multiplied by 1 +- this."""
    hue: Annotated[float, Field(ge=0, le=0.5, strict=True)] = 0.25
    """Hue is turned by +- this, in turns."""
    grey: Share = 0.2
    """Probability that colours are lost."""
    blur: Share = 0.5
    """Probability of a Gaussian blur with a deviation of 0.1 to 2 pixels."""
    cutmix: Share = 0.5
    """Probability of CutMix, a box of another image (fixmatch, unimatch; the others always mix)."""
    feature_dropout: BelowOne = 0.5
    """cache=features: share of the channels that are dropped in a strong view, whose image cannot be changed there."""
    feature_noise: Weight = 0.0
    """cache=features: Gaussian noise on a strong view's features, in deviations of each channel."""
