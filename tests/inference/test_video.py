"""Videos from generated frames: there and back, odd sizes, times, rotation, damage, and predictions of them."""

import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from live import files, photo, train_with
from numpy.typing import NDArray
from PIL import Image

from latentseg.errors import UserError
from latentseg.inference.model import Model
from latentseg.inference.predict import predict

av = pytest.importorskip("av")
from latentseg.inference.video import Video, VideoWriter  # noqa: E402

RATE = Fraction(30000, 1001)


def picture(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Grey that brightens with the number, green at the top left."""
    pixels = np.full((height, width, 3), 5 * number, np.uint8)
    pixels[: height // 2, : width // 2] = (0, 200, 0)
    return pixels


def noise(seed: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path: Path, frames: int = 30, codec: str = "libx264", options: dict[str, str] | None = None) -> Path:
    """A video of noise at 25 frames per second, whose size is spread evenly over its frames."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise(number), format="rgb24")))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float = 0.6) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.open(train_with(tmp_path_factory.mktemp("runs") / "latent"))


@pytest.mark.parametrize(("height", "width"), [(48, 64), (37, 53), (1, 17)])
def test_frames_there_and_back(tmp_path: Path, height: int, width: int) -> None:
    with VideoWriter(tmp_path / "a.mp4", RATE) as writer:
        for number in range(30):
            writer.add(picture(number, height, width), number / RATE)
    assert files(tmp_path) == {"a.mp4"}
    video = Video(tmp_path / "a.mp4")
    assert (video.rate, video.count) == (RATE, 30)
    frames = list(video.frames())
    assert video.problem is None
    assert [frame.number for frame in frames] == list(range(30))
    for number, frame in enumerate(frames):
        assert frame.pixels.shape == (height + height % 2, width + width % 2, 3)
        assert abs(float(frame.seconds - number / RATE)) < 1e-4
        seen = frame.pixels[:height, :width].astype(int)
        assert abs(seen - picture(number, height, width)).mean() < 8


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [Fraction(0), Fraction(1, 10), Fraction(1), Fraction(11, 10), Fraction(3)]
    with VideoWriter(tmp_path / "a.mp4", Fraction(10)) as writer:
        for number, seconds in enumerate(times):
            writer.add(picture(number), seconds)
    assert [frame.seconds for frame in Video(tmp_path / "a.mp4").frames()] == times


def test_a_turned_video_is_upright(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", RATE) as writer:
        writer.add(picture(0), Fraction(0))
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = content.index(upright, content.index(b"tkhd"))
    content[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # clockwise
    (tmp_path / "a.mp4").write_bytes(content)
    (frame,) = Video(tmp_path / "a.mp4").frames()
    assert frame.pixels.shape == (64, 48, 3)
    green = frame.pixels[..., 1] > 100
    assert green[:32, 24:].mean() > 0.9
    assert green[:32, :24].mean() < 0.1


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", RATE) as writer:  # noqa: PT012
        writer.add(picture(0), Fraction(0))
        raise KeyboardInterrupt
    assert files(tmp_path) == set()
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"a\.mp4: its results cannot be"),
        VideoWriter(tmp_path / "file/a.mp4", RATE) as w,
    ):
        w.add(picture(0), Fraction(0))


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi", "a.webm"])
def test_truncated_videos(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name in ("a.mp4", "a.mov") else {}
    path = write(tmp_path / name, codec="libvpx" if name == "a.webm" else "libx264", options=options)
    whole = Video(path)
    assert sum(1 for _ in whole.frames()) == 30
    assert whole.problem is None
    video = Video(cut(path))
    count = sum(1 for _ in video.frames())
    assert 10 <= count < 25
    assert video.problem is not None
    assert str(path) in video.problem
    assert f"frame {count}" in video.problem


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"a\.mp4: no readable video content"):
        Video(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="does not exist"):
        Video(tmp_path / "none.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(UserError, match=r"sound\.mp4: no video in it"):
        Video(tmp_path / "sound.mp4")


def test_predict_a_video_and_an_image(model: Model, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "street.mov", Fraction(10)) as writer:
        for number in range(12):
            writer.add(photo(38, 54, seed=number // 4), Fraction(number, 10))
    Image.fromarray(photo()).save(tmp_path / "still.png")
    out = tmp_path / "out"
    assert predict(model, [tmp_path / "street.mov", tmp_path / "still.png"], out) == 13
    numbers = [f"{number:06}.png" for number in range(12)]
    expected = {f"{kind}/street/{name}" for kind in ("index", "latent") for name in numbers}
    assert files(out) == expected | {"overlay/street.mp4"} | {f"{k}/still.png" for k in ("index", "overlay", "latent")}
    frames = list(Video(tmp_path / "street.mov").frames())
    overlays = Video(out / "overlay" / "street.mp4")
    assert overlays.rate == 10
    for frame, drawn in zip(frames, overlays.frames(), strict=True):
        prediction = model.predict(frame.pixels)
        with Image.open(out / "index" / "street" / numbers[frame.number]) as index:
            assert np.array_equal(np.array(index), prediction.labels)
        assert prediction.latent is not None
        with Image.open(out / "latent" / "street" / numbers[frame.number]) as latent:
            assert np.array_equal(np.array(latent), prediction.latent)
        assert drawn.seconds == frame.seconds
        color = model.run.palette[prediction.labels]
        mean = (color.astype(int) + frame.pixels) // 2
        assert abs(drawn.pixels.astype(int) - mean).mean() < 8


def test_a_truncated_video_keeps_what_was_read(model: Model, tmp_path: Path) -> None:
    path = cut(write(tmp_path / "a.mkv"))
    Image.fromarray(photo()).save(tmp_path / "b.png")
    (tmp_path / "c.mp4").write_text("no video")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"2 of 3 files cannot be predicted(.|\n)*is truncated: it ends"):
        predict(model, [path, tmp_path / "b.png", tmp_path / "c.mp4"], out)
    frames = sorted((out / "index" / "a").iterdir())
    assert [frame.name for frame in frames] == [f"{number:06}.png" for number in range(len(frames))]
    assert 10 <= len(frames) < 25
    assert sum(1 for _ in Video(out / "overlay" / "a.mp4").frames()) == len(frames)
    assert (out / "overlay" / "b.png").exists()
    assert not (out / "overlay" / "c.mp4").exists()


@pytest.mark.parametrize("there", ["overlay/a.mp4", "index/a/000000.png", "latent/a/000007.png"])
def test_nothing_is_overwritten(model: Model, tmp_path: Path, there: str) -> None:
    path = tmp_path / "out" / there
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UserError, match=r"out/.*/a(\.mp4)? exists and is not overwritten"):
        predict(model, [write(tmp_path / "a.mkv", 2)], tmp_path / "out")
    assert files(tmp_path / "out") == {there}


def test_results_must_not_mix(model: Model, tmp_path: Path) -> None:
    clip, other = write(tmp_path / "a.mkv", 2), write(tmp_path / "a.avi", 2)
    with pytest.raises(UserError, match=r"a\.avi and .*a\.mkv would both become a\.mp4"):
        predict(model, [clip, other], tmp_path / "out")
    (tmp_path / "in" / "a").mkdir(parents=True)
    Image.fromarray(photo()).save(tmp_path / "in" / "a" / "000000.png")
    with pytest.raises(UserError, match=r"000000\.png and the frames of .*a\.mkv would be mixed"):
        predict(model, [tmp_path / "in", clip], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_pyav(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.MP4").write_text("not even opened")
    Image.fromarray(photo()).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"a\.MP4 is a video, which needs PyAV: pip install 'latentseg\[video\]'"):
        predict(model, [tmp_path / "b.png", tmp_path / "a.MP4"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
