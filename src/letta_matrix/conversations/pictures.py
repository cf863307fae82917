"""Images made fit for a model: decoded, turned upright, made smaller, written anew.

Import it where an image came: Pillow is large.
"""

import io
from dataclasses import dataclass

from PIL import Image, ImageFile, ImageOps

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
_DRAWN = ("PNG", "GIF")
_MAX_PIXELS = 40_000_000
_MAX_PNG = 2_000_000
_QUALITY = 88

# Ours is checked before anything is decoded, and Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


class PictureFault(Exception):
    """An image cannot be decoded, or is too large to try; the text is for a person."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image and its size in pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


def prepare(data: bytes, most_side: int) -> Picture:
    """The first frame of an image as PNG or JPEG, no side above `most_side` pixels, upright and
    without metadata. Blocks for up to a second. Raises PictureFault."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            is_drawn = opened.format in _DRAWN
            image = _upright(opened, most_side)
        return _written(image, is_drawn=is_drawn)
    except PictureFault:
        raise
    except Exception as error:
        # Decoders of hostile files fail in every way there is.
        raise PictureFault("it is damaged or no image that can be decoded") from error


def _upright(opened: ImageFile.ImageFile, most_side: int) -> Image.Image:
    if opened.width * opened.height > _MAX_PIXELS:
        raise PictureFault(f"it has too many pixels ({opened.width}x{opened.height})")
    # Decodes a large JPEG at a smaller size at once.
    opened.draft("RGB", (most_side, most_side))
    mode = "RGBA" if opened.has_transparency_data else "RGB"
    image = ImageOps.exif_transpose(opened).convert(mode)
    image.thumbnail((most_side, most_side))
    return image


def _written(image: Image.Image, *, is_drawn: bool) -> Picture:
    file = io.BytesIO()
    if is_drawn or image.mode == "RGBA":
        image.save(file, "PNG")
        if file.tell() <= _MAX_PNG:
            return Picture(file.getvalue(), "image/png", image.width, image.height)
        image, file = _on_white(image), io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return Picture(file.getvalue(), "image/jpeg", image.width, image.height)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white
