"""Videos, by PyAV: frames one by one from a file, and frames into an MP4. The only module that imports PyAV."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from latentseg.errors import DataError
from latentseg.inference.pictures import unfinished, unwritten

CODECS = ("libx264", "libopenh264", "mpeg4")
"""The first that this build of PyAV has encodes: H.264, or else MPEG-4."""
OPTIONS = {"libx264": {"preset": "veryfast", "crf": "20"}, "libopenh264": {}, "mpeg4": {"qscale": "3"}}
CLOCK = Fraction(1, 60000)
"""Unit of time of what is written: all usual rates are whole numbers of it, and MPEG-4 takes no finer one."""
USUAL_RATE = Fraction(25)


class Frame(NamedTuple):
    """One picture of a video, upright."""

    number: int
    pixels: NDArray[np.uint8]
    """RGB, shape (H, W, 3)."""
    seconds: Fraction
    """When it is shown, from the start."""


class Video:
    """A video file, open for reading.

    Attributes:
        rate: Frames per second, on average.
        count: Number of frames; None if the file does not say.
        problem: Why `frames` ended before the video did; None as long as nothing is wrong.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            DataError: It is missing, no video, or so damaged that no frame can be found.
        """
        self.path = path
        try:
            self._container = av.open(str(path))
        except FileNotFoundError as error:
            raise DataError("does not exist", "name images, folders of images, or videos", path) from error
        except (av.FFmpegError, OSError, ValueError) as error:
            raise DataError("no readable video content", "replace or remove it", path, _reason(error)) from error
        if not self._container.streams.video:
            self._container.close()
            raise DataError("no video in it, only other streams", "replace or remove it", path)
        self._stream = self._container.streams.video[0]
        self.rate = self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE
        self.count = self._stream.frames or None
        self.problem: str | None = None

    def frames(self) -> Iterator[Frame]:
        """Decode the frames in their order; ends where none can be read any more, and `problem` says so."""
        number, seconds = -1, -1 / self.rate
        with self._container:
            try:
                for number, frame in enumerate(self._container.decode(self._stream)):
                    told = None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
                    seconds = told if told is not None and told > seconds else seconds + 1 / self.rate
                    pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    yield Frame(number, np.ascontiguousarray(pixels), seconds)
            except (av.FFmpegError, OSError, ValueError) as error:
                self.problem = f"{self.path} cannot be read beyond frame {number + 1} ({_reason(error)})"
            else:
                if seconds + 3 / self.rate < self._promised():
                    self.problem = f"{self.path} is truncated: it ends after frame {number + 1}"
                elif number < 0:
                    self.problem = f"{self.path} holds no frame"

    def _promised(self) -> Fraction:
        """Where formats end without an error when they are truncated: the seconds that the header tells of; or 0."""
        hours, _, rest = self._stream.metadata.get("DURATION", "").partition(":")  # Matroska, WebM: 00:00:01.200000000
        minutes, _, seconds = rest.partition(":")
        if seconds:
            return 3600 * Fraction(hours) + 60 * Fraction(minutes) + Fraction(seconds)
        return (self.count or 0) / self.rate if self._container.format.name == "avi" else Fraction(0)


class VideoWriter:
    """Writes frames as MP4. The file gets its name when it is whole; an error or Ctrl-C leaves none.

    4:2:0 video has even sides: an odd one is lengthened by repeating the last row or column.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        """Prepare; the file is made with the first frame.

        Args:
            path: Its name, .mp4.
            rate: Frames per second, as a hint to the encoder. When a frame is shown it says itself.
        """
        self.path, self.rate = path, rate
        self._temporary = unfinished(path)
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None

    def add(self, pixels: NDArray[np.uint8], seconds: Fraction) -> None:
        """Encode the next frame, (H, W, 3).

        Raises:
            UserError: It cannot be written.
        """
        height, width = pixels.shape[:2]
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(even, format="rgb24")
        frame.pts, frame.time_base = round(seconds / CLOCK), CLOCK
        try:
            if self._container is None or self._stream is None:
                self._container, self._stream = self._open(even.shape[0], even.shape[1])
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise unwritten(self.path, error) from error

    def _open(self, height: int, width: int) -> tuple[OutputContainer, VideoStream]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "faststart"})
        codec = next(name for name in CODECS if name in av.codecs_available)
        stream = container.add_stream(codec, rate=self.rate, options=OPTIONS[codec])
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = stream.codec_context.time_base = CLOCK
        return container, stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._container is None or self._stream is None:
            return
        try:
            if kind is None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None:
                self._temporary.replace(self.path)
        except (av.FFmpegError, OSError) as error:
            if kind is None:
                raise unwritten(self.path, error) from error
        finally:
            with suppress(OSError):
                self._temporary.unlink()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
