"""The page of the demo as its tests know it."""

from dataclasses import dataclass
from pathlib import Path

from latentseg.inference.model import Model


@dataclass(frozen=True)
class Served:
    """The page, and what it is made of."""

    address: str
    models: dict[str, Model]
    folder: Path
    """Of the runs, and of images/."""
