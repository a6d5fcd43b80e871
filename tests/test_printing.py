"""What the package's functions give prints in one line that says what it is."""

from pathlib import Path

import numpy as np
from tiny import tiny

import latentseg


def test_what_the_functions_give_prints_in_a_line(tmp_path: Path) -> None:
    run = latentseg.train(tiny("steps=1", "data.scenes.val=1"), tmp_path / "run")
    model = latentseg.load(run.folder)
    evaluation = latentseg.evaluate(run.folder)
    assert str(run) == f"Run('{run.folder}', latent, 19 classes)"
    assert str(model) == f"Model({run}, step 1, 5 latent classes, on cpu)"
    prediction = model.predict(np.zeros((40, 50, 3), np.uint8))
    assert str(prediction) == "Prediction(40x50 pixels, 19 classes, latent classes)"
    known = 19 - evaluation.scores.absent
    score = f"mIoU {100 * evaluation.scores.miou:.2f} % ({known} of 19 classes scored)"
    assert str(evaluation) == f"Evaluation('{run.folder}', last checkpoint, step 1, val, 1 images: {score})"
    analysis = latentseg.analyse(run.folder)
    assert str(analysis) == f"Analysis('{run.folder}', last checkpoint, step 1, val: see text())"
    assert str(latentseg.read_sweep("table4_camvid", [])).startswith("Sweep('table4_camvid', ")
