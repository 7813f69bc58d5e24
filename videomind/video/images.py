"""Image files and .gif files, by PIL, within limits on what they may cost."""

import os
import stat
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageOps

from videomind.faults import ends_run
from videomind.video.reader import BadVideoError, VideoReader

# What PIL raises on broken files, and on pictures so large that they must be an attack.
IMAGE_ERRORS = (
    OSError, SyntaxError, EOFError, ValueError, IndexError, KeyError, RuntimeError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
MAX_CANVAS = 1 << 24  # pixels of one picture of a .gif; some bytes can ask for gigabytes
MAX_PIXELS = 1 << 32  # of all its pictures, each of which is built from those before it
_GIF_MARK = b"GIF8"


def is_gif(path: str) -> bool:
    """Tell whether a file is read as a .gif, whose frame rate is the caller's.

    By its name, in any case; one that is there must have a .gif's first bytes as well.
    """
    if not path.lower().endswith(".gif"):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) == _GIF_MARK
    except OSError:
        return True  # the reader says why


def read_image(path: str) -> Image.Image:
    """Read an image as RGB, 8 bits, turned as its metadata says.

    Raises:
        OSError: it is no regular file, or cannot be read.
        ValueError: its values have no known range.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is no regular file")
    with Image.open(path) as image:
        # Turning copies the picture: only where it is turned.
        turned = ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image
        return _eight_bits(turned).convert("RGB")


_ORIENTATION = 0x0112  # the EXIF tag


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring a picture of one channel with more bits to 8; any other stays as it is."""
    if image.mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"its values are floats from {low:g} to {high:g}; allowed: 0 to 1, or integers")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"its values go from {values.min()} to {values.max()}; allowed: 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    return image


class GifReader(VideoReader):
    """A .gif, by PIL. Its own timing is ignored: `fps` is the caller's (that of the visual budget)."""

    pixel_aspect = 1.0
    has_times = False

    def __init__(self, path: str, fps: float):
        super().__init__(path)
        self.fps = fps
        self._image = None
        try:
            self._image = Image.open(path)
            self._check_canvas(1)
            self.total_frames = getattr(self._image, "n_frames", 1)
            self._check_canvas(self.total_frames)
        except IMAGE_ERRORS as error:
            self.close()
            if ends_run(error) or isinstance(error, BadVideoError):
                raise
            raise BadVideoError(f"{path}: not an image that can be opened ({error}; tried PIL)") from error

    def _check_canvas(self, pictures: int) -> None:
        """Raises BadVideoError where the pictures are too large."""
        width, height = self._image.size
        if width * height > MAX_CANVAS:
            most = f"at most {MAX_CANVAS} pixels are allowed"
            raise BadVideoError(f"{self.path}: pictures of {width} x {height} pixels, {most}")
        if width * height * pictures > MAX_PIXELS:
            count = f"{pictures} pictures of {width} x {height} pixels"
            raise BadVideoError(f"{self.path}: {count}, at most {MAX_PIXELS} pixels in all are allowed")

    def close(self) -> None:
        if self._image is not None:
            self._image.close()

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        size = self._image.size
        for index in indices:
            try:
                self._image.seek(index)
                frame = self._image.convert("RGB")
            except IMAGE_ERRORS as error:
                if ends_run(error):
                    raise
                self.reasons[index] = str(error)
                continue
            if frame.size != size:  # a picture that goes beyond the canvas makes PIL's larger
                self.resized[index] = frame.size
                frame = frame.crop((0, 0, *size))
            yield index, np.array(frame)
