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
    from latentseg.analysis import analyse
    from latentseg.export.run import export_run
    from latentseg.inference.evaluate import evaluate
    from latentseg.inference.model import Model, Prediction, load
    from latentseg.inference.predict import predict
    from latentseg.report.page import write_report
    from latentseg.sweeps.files import read_sweep
    from latentseg.sweeps.run import run_sweep
    from latentseg.training.loop import train

__version__ = "0.2.0"
_HOMES = {
    "Model": "inference.model",
    "Prediction": "inference.model",
    "analyse": "analysis",
    "evaluate": "inference.evaluate",
    "export_run": "export.run",
    "load": "inference.model",
    "predict": "inference.predict",
    "read_sweep": "sweeps.files",
    "run_sweep": "sweeps.run",
    "train": "training.loop",
    "write_report": "report.page",
}
__all__ = [
    "Config",
    "Model",
    "Prediction",
    "UserError",
    "analyse",
    "evaluate",
    "export_run",
    "load",
    "load_config",
    "predict",
    "read_sweep",
    "run_sweep",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch when it is first asked for: `latentseg --help` answers at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'latentseg' has no attribute {name!r}")
    return getattr(import_module(f"latentseg.{_HOMES[name]}"), name)
