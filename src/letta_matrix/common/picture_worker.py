"""Makes one image fit for whoever gets it, as a process of its own: see `pictures`.

`python -m letta_matrix.common.picture_worker SIDE BYTES` reads an image from stdin and writes
one line of JSON to stdout: `{"fault": ...}`, or `media_type`, `width` and `height` with the new
image after it.
"""

import contextlib
import io
import json
import resource
import sys

from PIL import Image, ImageFile, ImageOps

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
_DRAWN = ("PNG", "GIF")
_MAX_PIXELS = 40_000_000
_MAX_PNG = 2_000_000
_QUALITY = 88
_SMALLER = (80, 60)
"""Qualities that are tried where there is a limit of bytes, before an image loses pixels."""
_LEAST_SIDE = 160
_MEMORY = 1_500_000_000
_SECONDS = 20

# Ours is checked before anything is decoded, and Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


class PictureFault(Exception):
    """An image cannot be decoded, or is too large to try; the text is for a person."""


def prepare(data: bytes, most_side: int, most_bytes: int = 0) -> tuple[Image.Image, str, bytes]:
    """The first frame of an image, upright, with no side above `most_side` pixels and, unless that
    is 0, with no more than `most_bytes`; its media type and its bytes as PNG or JPEG without
    metadata. Raises PictureFault."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            is_drawn = opened.format in _DRAWN
            image = _fitted(opened, most_side)
        made = _written(image, is_drawn=is_drawn)
        is_small = not most_bytes or len(made[2]) <= most_bytes
        return made if is_small else _shrunk(image, most_bytes)
    except PictureFault:
        raise
    except Exception as error:
        # Decoders of hostile files fail in every way there is.
        raise PictureFault("it is damaged or no image that can be decoded") from error


def _fitted(opened: ImageFile.ImageFile, most_side: int) -> Image.Image:
    if opened.width * opened.height > _MAX_PIXELS:
        raise PictureFault(f"it has too many pixels ({opened.width}x{opened.height})")
    # Decodes a large JPEG at a smaller size at once.
    opened.draft("RGB", (most_side, most_side))
    mode = "RGBA" if opened.has_transparency_data else "RGB"
    image = opened if opened.mode == mode else opened.convert(mode)
    image.thumbnail((most_side, most_side))
    return ImageOps.exif_transpose(image)


def _written(image: Image.Image, *, is_drawn: bool) -> tuple[Image.Image, str, bytes]:
    file = io.BytesIO()
    if is_drawn or image.mode == "RGBA":
        image.save(file, "PNG", exif=b"")
        if file.tell() <= _MAX_PNG:
            return image, "image/png", file.getvalue()
        image, file = _on_white(image), io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, exif=b"")
    return image, "image/jpeg", file.getvalue()


def _shrunk(image: Image.Image, most_bytes: int) -> tuple[Image.Image, str, bytes]:
    image = _on_white(image)
    while max(image.size) >= _LEAST_SIDE:
        for quality in _SMALLER:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=quality, exif=b"")
            if file.tell() <= most_bytes:
                return image, "image/jpeg", file.getvalue()
        side = max(image.size) * 3 // 4
        image.thumbnail((side, side))
    raise PictureFault("it cannot be made small enough")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


def main() -> None:
    for limited, most in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CPU, _SECONDS)):
        # macOS does not know every limit.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limited, (most, most))
    data = b""
    try:
        image, media_type, data = prepare(sys.stdin.buffer.read(), *map(int, sys.argv[1:3]))
        told = {"media_type": media_type, "width": image.width, "height": image.height}
    except PictureFault as fault:
        told = {"fault": str(fault)}
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n" + data)


if __name__ == "__main__":
    main()
