"""Kinds of values that options have, and what all sections share."""

from enum import Enum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# strict: `steps=true` is not 1. Upper bounds are far above what anyone needs, and below what a machine, PyTorch or
# Pillow fails at: such a value is a slip, and is refused before it crashes or hangs.
Positive = Annotated[int, Field(gt=0, le=10**9, strict=True)]
Natural = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]  # as torch.manual_seed takes them
Side = Annotated[int, Field(ge=32, le=4096, strict=True)]  # in pixels; 32 is one cell of the coarsest maps
Window = Annotated[int, Field(ge=8, le=8192, strict=True)]  # its side in pixels
Scenes = Annotated[int, Field(gt=0, le=1_000_000, strict=True)]  # of a split: datasets.SCENES_APART
Views = Annotated[int, Field(gt=0, le=10_000, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
BelowOne = Annotated[float, Field(ge=0, lt=1, strict=True)]
Scale = Annotated[float, Field(ge=0.05, le=8, strict=True)]
Weight = Annotated[float, Field(ge=0, le=1e6, strict=True)]
LearningRate = Annotated[float, Field(gt=0, le=100, strict=True)]


def _names_a_path(text: str) -> str:
    """Refuse a text that would fail in the file system wherever it is looked at first."""
    if len(text.encode()) > 4000 or any(len(part.encode()) > 255 for part in text.split("/")):
        raise ValueError("this is too long for a path: 4000 bytes, and 255 between two slashes, are the most")
    if text.startswith("~"):
        try:
            Path(text).expanduser()
        except RuntimeError as error:
            raise ValueError("nobody of that name has a home folder here") from error
    return text


PathText = Annotated[str, AfterValidator(_names_a_path)]
"""A path as typed; `~` is expanded where it is read."""


class Mark(Enum):
    """What an option is for, said on its field."""

    RUNTIME = "may change when a run is resumed: no result depends on it, or in its last bits only"
    FEATURES = "cached features depend on it"


class Section(BaseModel):
    """A frozen part of the tree that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
