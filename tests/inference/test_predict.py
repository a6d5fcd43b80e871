"""Predict from Python and from folders: ids, pictures, paths, and what is refused."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from live import files, photo, train_with
from numpy.typing import NDArray
from PIL import Image

from latentseg.config import InferenceConfig
from latentseg.data.datasets import distinct_palette
from latentseg.errors import DataError, UserError
from latentseg.inference.jobs import grouped
from latentseg.inference.legend import legend
from latentseg.inference.model import Model
from latentseg.inference.predict import predict
from latentseg.inference.stream import Pixels, Size
from latentseg.models.segmenter import Output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_with(tmp_path_factory.mktemp("runs") / "latent")


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return Model.open(run)


def write(path: Path, pixels: NDArray[np.uint8] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo() if pixels is None else pixels).save(path)
    return path


def test_predict_one_image(model: Model, tmp_path: Path) -> None:
    assert model.classes[0] == "road"
    assert model.step == 2
    prediction = model.predict(photo())
    assert prediction.labels.shape == (37, 53)
    assert prediction.labels.dtype == np.uint8
    assert prediction.probs.shape == (19, 37, 53)
    assert prediction.probs.sum(0) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(prediction.probs.argmax(0), prediction.labels)
    assert len(np.unique(prediction.labels)) > 1
    assert prediction.latent is not None
    assert prediction.latent.shape == (37, 53)
    assert set(np.unique(prediction.latent).tolist()) <= {0, 1, 2, 3}
    path = write(tmp_path / "a.png")
    for image in (path, str(path), Image.open(path), Image.fromarray(photo()), photo()[:, ::-1][:, ::-1]):
        assert np.array_equal(model.predict(image).labels, prediction.labels)


def test_predict_takes_other_inference(model: Model) -> None:
    plain, mirrored = model.predict(photo()), model.predict(photo(), InferenceConfig(mirror=True))
    flipped = model.predict(np.ascontiguousarray(photo()[:, ::-1]))
    np.testing.assert_allclose(mirrored.probs, (plain.probs + flipped.probs[..., ::-1]) / 2, atol=1e-4)


def test_a_turned_photo_is_predicted_upright(model: Model, tmp_path: Path) -> None:
    stored = photo(40, 64)
    upright = np.rot90(stored, -1)  # orientation 6: turn clockwise to see it upright
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "phone.png"
    Image.fromarray(stored).save(path, exif=exif)
    expected = model.predict(upright)
    assert expected.labels.shape == (64, 40)
    assert np.array_equal(model.predict(path).labels, expected.labels)
    assert np.array_equal(model.predict(Image.open(path)).labels, expected.labels)
    predict(model, [path], tmp_path / "out")
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "index" / "phone.png")), expected.labels)


def test_pictures(model: Model, tmp_path: Path) -> None:
    assert predict(model, [write(tmp_path / "street.jpg")], tmp_path / "out") == 1
    assert files(tmp_path / "out") == {"index/street.png", "overlay/street.png", "latent/street.png"}
    for name, names, colors in (
        ("legend.png", model.classes, model.run.palette),
        ("latent_legend.png", [f"latent {number}" for number in range(4)], distinct_palette(4)),
    ):
        with Image.open(tmp_path / "out" / name) as picture:
            assert np.array_equal(np.array(picture), legend(names, colors))
    prediction = model.predict(tmp_path / "street.jpg")
    palette = model.run.palette
    with Image.open(tmp_path / "out" / "index" / "street.png") as index:
        assert index.mode == "P"
        assert np.array_equal(np.array(index), prediction.labels)
        assert index.getpalette()[: palette.size] == palette.flatten().tolist()  # type: ignore[index]
        colored = np.array(index.convert("RGB"))
    assert np.array_equal(colored, palette[prediction.labels])
    with Image.open(tmp_path / "out" / "latent" / "street.png") as latent:
        assert prediction.latent is not None
        assert np.array_equal(np.array(latent), prediction.latent)
        colors = distinct_palette(4)
        assert len({tuple(color) for color in colors.tolist()}) == 4
        assert latent.getpalette()[:12] == colors.flatten().tolist()  # type: ignore[index]
    pixels = np.array(Image.open(tmp_path / "street.jpg")).astype(int)
    overlay = np.array(Image.open(tmp_path / "out" / "overlay" / "street.png")).astype(int)
    assert np.array_equal(overlay, (pixels + palette[prediction.labels]) // 2)


def test_a_background_stays_unpainted_and_other_classes_as_asked(model: Model, run: Path, tmp_path: Path) -> None:
    """By its name, or by the option; the index keeps its ids and colours."""
    path = write(tmp_path / "a.png")
    labels, pixels, palette = model.predict(path).labels, photo().astype(int), model.run.palette
    names = list(model.classes)
    shown = int(np.bincount(labels.ravel()).argmax())
    names[shown] = "Background"
    named = replace(model, run=replace(model.run, classes=tuple(names)))
    asked = Model.open(run, overrides=[f"inference.unpainted=[{model.classes[shown]}]"])
    none = replace(
        named, run=replace(named.run, config=Model.open(run, overrides=["inference.unpainted=[]"]).run.config)
    )
    painted = (pixels + palette[labels]) // 2
    bare = np.where((labels == shown)[..., None], pixels, painted)
    for number, (one, expected) in enumerate(((named, bare), (asked, bare), (none, painted))):
        predict(one, [path], tmp_path / f"out{number}")
        assert np.array_equal(np.array(Image.open(tmp_path / f"out{number}" / "overlay" / "a.png")), expected)
        assert np.array_equal(np.array(Image.open(tmp_path / f"out{number}" / "index" / "a.png")), labels)
    other = Model.open(run, overrides=["inference.unpainted=[unicorn]"])
    with pytest.raises(UserError, match=r"inference\.unpainted names unicorn; the classes are road, "):
        predict(other, [path], tmp_path / "never")


def test_a_legend_of_other_classes_is_not_mixed_in(model: Model, tmp_path: Path) -> None:
    predict(model, [write(tmp_path / "a.png")], tmp_path / "out")
    assert predict(model, [write(tmp_path / "b.png")], tmp_path / "out") == 1
    other = replace(model, run=replace(model.run, classes=tuple(reversed(model.classes))))
    with pytest.raises(UserError, match="is the legend of other classes"):
        predict(other, [write(tmp_path / "c.png")], tmp_path / "out")


def test_a_folder_keeps_its_relative_paths(model: Model, tmp_path: Path) -> None:
    for name in ("a.png", "one/a.png", "one/two/b.JPG", "one/c.d.webp"):
        write(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "one" / "._a.png").write_bytes(b"what some systems leave beside a.png")
    single = write(tmp_path / "single.png")
    assert predict(model, [tmp_path / "in", single], tmp_path / "out") == 5
    names = {"a.png", "one/a.png", "one/two/b.png", "one/c.d.png", "single.png"}
    assert files(tmp_path / "out") == {f"{kind}/{name}" for kind in ("index", "overlay", "latent") for name in names}


@pytest.mark.parametrize(("first", "second"), [("in/a.png", "in/a.jpg"), ("in/a.png", "other/a.png")])
def test_two_images_of_one_name_are_refused(model: Model, tmp_path: Path, first: str, second: str) -> None:
    paths = [write(tmp_path / first), write(tmp_path / second)]
    given = [tmp_path / "in"] if second.startswith("in/") else paths
    with pytest.raises(UserError, match=r"a\.(png|jpg) and .*a\.(png|jpg) would both become a\.png"):
        predict(model, given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["index", "overlay", "latent"])
def test_nothing_is_overwritten(model: Model, tmp_path: Path, kind: str) -> None:
    paths = [write(tmp_path / "a.png"), write(tmp_path / "b.png")]
    there = tmp_path / "out" / kind / "b.png"
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    with pytest.raises(UserError, match=rf"out/{kind}/b\.png exists and is not overwritten"):
        predict(model, paths, tmp_path / "out")
    assert files(tmp_path / "out") == {f"{kind}/b.png"}
    assert there.read_text() == "mine"


def test_bad_paths(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"none\.png does not exist"):
        predict(model, [tmp_path / "none.png"], out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no image \(\.bmp, \.jpeg"):
        predict(model, [tmp_path / "empty"], out)
    (tmp_path / "text.png").write_text("no image")
    assert refused(model, tmp_path / "text.png", out=out, names=["no readable image content", "text.png"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file: .*file is no folder"):
        predict(model, [write(tmp_path / "a.png")], tmp_path / "file")
    (tmp_path / "broken").symlink_to("nowhere/x")
    with pytest.raises(UserError, match=r"cannot write .*broken/in: .*broken is no folder"):
        predict(model, [write(tmp_path / "a.png")], tmp_path / "broken" / "in")
    with pytest.raises(UserError, match="does not exist"):
        predict(model, [tmp_path / ("x" * 5000)], out)


def refused(model: Model, *paths: Path, out: Path, names: list[str]) -> str:
    """Predict, and give the message on the items that failed; their status is that of bad data."""
    with pytest.raises(DataError) as error:
        predict(model, list(paths), out)
    assert error.value.status == 3
    assert all(name in str(error.value) for name in names), error.value
    return str(error.value)


def test_a_broken_image_in_a_folder_is_named(model: Model, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png")
    broken = write(tmp_path / "in" / "deep" / "b.jpg")
    broken.write_bytes(broken.read_bytes()[:200])
    text = refused(model, tmp_path / "in", out=tmp_path / "out", names=["deep/b.jpg", "no readable image content"])
    assert text.startswith(f"1 of 2 images cannot be predicted; the results of the others are in {tmp_path / 'out'}:")
    assert files(tmp_path / "out") == {f"{kind}/a.png" for kind in ("index", "overlay", "latent")}


def test_one_result_that_cannot_be_written_costs_that_one(model: Model, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / "in" / name / "1.png")
    (tmp_path / "out" / "index").mkdir(parents=True)
    (tmp_path / "out" / "index" / "b").write_text("a file where a folder should be")
    text = refused(model, tmp_path / "in", out=tmp_path / "out", names=["its results cannot be written"])
    assert text.count("\n") == 1
    assert {f"{kind}/{name}/1.png" for kind in ("index", "overlay", "latent") for name in "ac"} < files(
        tmp_path / "out"
    )
    assert not (tmp_path / "out" / "overlay" / "b").exists()


def test_a_full_disk_ends_it(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device; what is written is whole") as error:
        predict(model, [write(tmp_path / "a.png")], tmp_path / "out")
    assert not isinstance(error.value, DataError)


def test_one_image_that_memory_does_not_hold_costs_that_one(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "a.png")
    write(tmp_path / "in" / "wide.png", photo(30, 300))
    labels = Model.labels

    def small(self: Model, images: Pixels, size: Size | None = None, latent: bool = True) -> Output:
        if images.shape[-2] > 100:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return labels(self, images, size, latent)

    monkeypatch.setattr(Model, "labels", small)
    names = ["not enough memory", "wide.png (300x30)", "inference.mode=slide"]
    assert "1 of 2 images" in refused(model, tmp_path / "in", out=tmp_path / "out", names=names)
    assert (tmp_path / "out" / "index" / "a.png").exists()
    with pytest.raises(DataError, match=r"300x30"):  # where every image counts, as in a score
        list(model.stream([0], lambda _: model.ready(photo(30, 300), None)))


def test_causes_are_grouped(model: Model, tmp_path: Path) -> None:
    for number in range(5):
        (write(tmp_path / "in" / f"{number}.png")).write_bytes(b"")
    files_of = {Path(f"{number}.png"): DataError("gone", "bring it back", f"{number}.png") for number in range(5)}
    assert grouped(files_of) == "  - 5: gone: 0.png, 1.png, 2.png and 2 more; bring it back"
    assert "5 of 5 images cannot be predicted; nothing is written" in refused(
        model, tmp_path / "in", out=tmp_path / "out", names=[]
    )


def test_long_names_stay_what_they_are_and_longer_ones_are_cut(model: Model, tmp_path: Path) -> None:
    long, longer = "é" * 125 + "x", "ü" * 127 + "x"
    with_ending = write(tmp_path / f"{long}.png")  # 255 bytes
    without = write(tmp_path / "a.png").rename(tmp_path / longer)
    assert predict(model, [with_ending, without], tmp_path / "out") == 2
    names = {path.name for path in (tmp_path / "out" / "index").iterdir()}
    assert f"{long}.png" in names
    (other,) = names - {f"{long}.png"}
    assert other.startswith("ü" * 117 + "-")
    assert files(tmp_path / "out") == {f"{kind}/{name}" for kind in ("index", "overlay", "latent") for name in names}


def test_what_a_folder_holds_beside_images_is_named(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in" / "a.png")
    for number in range(5):
        (tmp_path / "in" / f"{number}.heic").write_bytes(b"")
    assert predict(model, [tmp_path / "in"], tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "5 .heic (0.heic, 1.heic, 2.heic, ...)" in told


def test_broken_images_among_others(model: Model, tmp_path: Path) -> None:
    """Of many images of several sizes; the others are predicted as they are alone."""
    sizes = [(37, 53), (53, 37), (40, 40)]
    paths = [write(tmp_path / "in" / f"{i:02}.png", photo(*sizes[i % 3], seed=i)) for i in range(24)]
    for i in (5, 11):
        paths[i].write_bytes(paths[i].read_bytes()[:60])
    refused(model, tmp_path / "in", out=tmp_path / "out", names=["2 of 24 images cannot be", "05.png", "11.png"])
    for i, path in enumerate(paths):
        index, drawn = (tmp_path / "out" / kind / path.name for kind in ("index", "overlay"))
        assert index.exists() == drawn.exists() == (i not in (5, 11))
        if index.exists():
            labels = model.predict(path).labels
            assert np.mean(np.array(Image.open(index)) == labels) > 0.995  # batches: ties within float error
            expected = (model.run.palette[np.array(Image.open(index))].astype(int) + photo(*sizes[i % 3], seed=i)) // 2
            assert np.array_equal(np.array(Image.open(drawn)), expected)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_predictions_do_not_depend_on_the_batch(run: Path, tmp_path: Path, batch_size: int) -> None:
    model = Model.open(run, overrides=[f"inference.batch_size={batch_size}"])
    for i in range(6):
        write(tmp_path / "in" / f"{i}.png", photo(37 if i % 2 else 41, 53, seed=i))
    assert predict(model, [tmp_path / "in"], tmp_path / "out") == 6
    for path in sorted((tmp_path / "in").iterdir()):
        for kind in ("labels", "latent"):
            folder = {"labels": "index", "latent": "latent"}[kind]
            written = np.array(Image.open(tmp_path / "out" / folder / path.name))
            assert np.mean(written == getattr(model.predict(path), kind)) > 0.995


@pytest.mark.slow
def test_control_c_leaves_whole_pictures(run: Path, tmp_path: Path) -> None:
    for i in range(400):
        write(tmp_path / "in" / f"{i:03}.png", photo(64, 96, seed=i % 5))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "latentseg", "predict", str(run), str(tmp_path / "in"), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 90
        while len(list(out.rglob("*.png"))) < 20 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        began = time.monotonic()
        _, error = process.communicate(timeout=60)
        assert time.monotonic() - began < 15
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in error
    written = files(out)
    assert 20 <= len(written) < 1200
    for name in written:
        assert name.endswith(".png")
        assert "/." not in name
        with Image.open(out / name) as picture:
            picture.load()


def test_a_file_an_image_and_an_array_are_predicted_alike(model: Model, tmp_path: Path) -> None:
    grey = photo()[..., 0]
    deep = grey.astype(np.uint16) * 257
    expected = model.predict(np.repeat(grey[..., None], 3, 2)).labels
    Image.fromarray(deep).save(tmp_path / "deep.png")
    for image in (tmp_path / "deep.png", Image.open(tmp_path / "deep.png"), deep, grey):
        assert np.array_equal(model.predict(image).labels, expected)
    with pytest.raises(UserError, match=r"expected \(H, W, 3\) RGB, uint8"):
        model.predict(np.zeros((4, 4, 3), np.float32))


def test_a_model_without_latent_branch(tmp_path: Path) -> None:
    baseline = Model.open(train_with(tmp_path / "run", "method.name=supervised"))
    assert baseline.predict(photo()).latent is None
    predict(baseline, [write(tmp_path / "a.png")], tmp_path / "out")
    assert files(tmp_path / "out") == {"index/a.png", "overlay/a.png"}


def test_last_and_best_are_different_checkpoints(run: Path, model: Model) -> None:
    best = Model.open(run, "best")
    assert (model.step, best.step) == (2, 1)
    assert not np.array_equal(best.predict(photo()).labels, model.predict(photo()).labels)
    with pytest.raises(UserError, match="'first': choose last or best"):
        Model.open(run, "first")


def test_options_at_load_time(run: Path) -> None:
    model = Model.open(run, overrides=["inference.mode=slide", "inference.window=[16,16]", "device=cpu"])
    assert model.run.config.inference.mode == "slide"
    assert model.predict(photo()).labels.shape == (37, 53)
    for override in ("seed=3", "data.resize=1", "method.num_latent=3"):
        with pytest.raises(UserError, match="cannot be changed after training"):
            Model.open(run, overrides=[override])


def test_damaged_runs(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    checkpoint = copy / "checkpoints" / "step_00000002.safetensors"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"step_00000002\.safetensors is truncated or altered"):
        Model.open(copy)
    checkpoint.write_bytes(content)

    classes = json.loads((copy / "classes.json").read_text())
    (copy / "classes.json").write_text(json.dumps(classes[:5]))
    with pytest.raises(UserError, match=r"does not fit the segmenter of this configuration: .*size mismatch"):
        Model.open(copy)
    for text in ("[", '[{"name": "road"}]', '[{"name": "road", "color": [1, 2]}]', "3"):
        (copy / "classes.json").write_text(text)
        with pytest.raises(UserError, match=r"classes\.json cannot be read .*: the run folder is incomplete"):
            Model.open(copy)
    (copy / "classes.json").write_text(json.dumps(classes))
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UserError, match="has no last checkpoint yet: train it with --resume"):
        Model.open(copy)
    (copy / "config.yaml").unlink()
    with pytest.raises(UserError, match="is not a run folder"):
        Model.open(copy)
