"""A model without a run folder, around a segmenter or a stand-in for one."""

from pathlib import Path
from typing import Any

from latentseg.config import InferenceConfig
from latentseg.data.images import distinct_palette
from latentseg.inference import Model
from latentseg.presets import load_config
from latentseg.runs import Run


def live(segmenter: Any, inference: InferenceConfig | None = None, *overrides: str) -> Model:
    config = load_config("scenes", overrides)
    if inference is not None:
        config = config.model_copy(update={"inference": inference})
    return Model(Run(Path(), config, ("a", "b", "c"), distinct_palette(3)), segmenter)
