"""Semi-supervised semantic segmentation with latent classes.

The verbs of the command line, in Python:

    config = latentseg.load_config("scenes", ["steps=200"])
    run = latentseg.train(config)
    prediction = latentseg.load(run.folder).predict("street.jpg")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latentseg.config import Config
from latentseg.errors import UserError
from latentseg.presets import load_config

if TYPE_CHECKING:
    from latentseg.evaluation import evaluate
    from latentseg.prediction import Model, Prediction, load, predict
    from latentseg.training import train

__version__ = "0.1.0"
__all__ = ["Config", "Model", "Prediction", "UserError", "evaluate", "load", "load_config", "predict", "train"]

_HOMES = {"evaluate": "evaluation", "train": "training"} | dict.fromkeys(
    ("Model", "Prediction", "load", "predict"), "prediction"
)


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch when it is first asked for: `latentseg --help` answers at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'latentseg' has no attribute {name!r}")
    return getattr(import_module(f"latentseg.{_HOMES[name]}"), name)
