"""What the page is told of a photograph."""

import base64
import io
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import photo, train_with
from numpy.typing import NDArray
from PIL import Image

from latentseg.data.colors import distinct_palette
from latentseg.demo import answer as answers
from latentseg.demo.answer import answer, latent_names, thumbnail
from latentseg.demo.examples import write_examples
from latentseg.inference.model import Model
from latentseg.inference.pictures import overlay


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A run with four latent classes, of images at half their size."""
    return Model.open(train_with(tmp_path_factory.mktemp("latent") / "run"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(photo(40, 60)).save(path)
    return path


def told(model: Model, path: Path | None) -> dict[str, Any]:
    found = json.loads(answer({"run": model}, {"run": latent_names(model)}, path))
    assert isinstance(found, dict)
    return found


def unpacked(packed: str, shape: tuple[int, int] = (40, 60)) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).reshape(shape)


def image_of(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_layers_are_the_prediction(model: Model, file: Path) -> None:
    found, expected = told(model, file), model.predict(file)
    (run,) = found["runs"]
    np.testing.assert_array_equal(unpacked(run["classes"]["ids"]), expected.labels)
    np.testing.assert_array_equal(unpacked(run["latent"]["ids"]), expected.latent)
    np.testing.assert_allclose(unpacked(run["classes"]["sure"]), 100 * expected.probs.max(0), atol=0.51)
    assert (found["width"], found["height"], found["note"]) == (60, 40, "")
    assert run["classes"]["colors"] == model.run.palette.tolist()
    assert run["latent"]["colors"] == distinct_palette(4).tolist()
    assert run["latent"]["names"] == ["l0", "l1", "l2", "l3"]


def test_the_mask_is_an_index_png_with_the_palette(model: Model, file: Path) -> None:
    mask = image_of(told(model, file)["runs"][0]["mask"])
    assert mask.mode == "P"
    np.testing.assert_array_equal(np.array(mask), model.predict(file).labels)
    assert (mask.getpalette() or [])[:57] == model.run.palette.flatten().tolist()


def test_a_large_photo_is_shown_smaller_and_says_so(model: Model, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "SHOWN_PIXELS", 600)
    found = told(model, file)
    assert (found["width"], found["height"]) == (30, 20)
    assert "60 x 40 pixels, shown and predicted at 30 x 20" in found["note"]
    assert unpacked(found["runs"][0]["classes"]["ids"], (20, 30)).shape == (20, 30)


def test_a_photo_beyond_the_limit_is_refused_before_it_is_decoded(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "read_rgb", lambda *_: pytest.fail("it was decoded"))
    path = tmp_path / "huge.png"
    Image.new("1", (8000, 4001)).save(path)
    assert "has 8000 x 4001 pixels, and this page takes 32 million" in told(model, path)["error"]


@pytest.mark.parametrize("content", [b"not an image", b"", b"\x89PNG\r\n\x1a\n"])
def test_a_wrong_file_gives_a_sentence_that_names_no_path(model: Model, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    error = told(model, path)["error"]
    assert error.startswith("This file cannot be shown: has no readable image content. What helps: replace")
    assert str(tmp_path) not in error


def test_a_photo_for_which_the_memory_is_too_small(model: Model, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(answers, "_probs", full)
    assert "The memory of this machine" in told(model, file)["error"]


def test_a_fault_of_ours_is_not_hidden(model: Model, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(answers, "_probs", wrong)
    with pytest.raises(RuntimeError, match="a bug"):
        told(model, file)


def test_a_turned_photo_is_upright_and_16_bits_are_read(model: Model, tmp_path: Path) -> None:
    turned, deep = tmp_path / "turned.jpg", tmp_path / "deep.tif"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(40, 60)).save(turned, exif=exif)
    Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27).save(deep)
    assert (told(model, turned)["width"], told(model, turned)["height"]) == (40, 60)
    assert (told(model, deep)["width"], told(model, deep)["height"]) == (60, 40)


def test_no_photo_has_no_answer(model: Model) -> None:
    assert told(model, None) == {}


def test_a_picture_of_the_gallery(model: Model, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = overlay(photo(40, 60), model.predict(file).labels, model.run.palette)
    np.testing.assert_array_equal(thumbnail(model, file), expected)
    monkeypatch.setattr(answers, "THUMBNAIL", 30)
    small = thumbnail(model, file)
    assert small is not None
    assert small.shape == (20, 30, 3)
    file.write_bytes(b"no image")
    assert thumbnail(model, file) is None


def test_examples_are_of_the_run_or_drawn(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = write_examples(model.run, tmp_path)
    assert [path.name for path in found] == ["example-1.png", "example-2.png"]  # 2 of the 4 images have labels
    assert Image.open(found[0]).size == (48, 32)  # as they are stored, not as the network sees them
    gone = model.run.config.data.model_copy(update={"kind": "folder", "root": str(tmp_path / "gone")})
    run = replace(model.run, config=model.run.config.model_copy(update={"data": gone}))
    assert [Image.open(path).size for path in write_examples(run, tmp_path)] == [(640, 480), (640, 480)]
