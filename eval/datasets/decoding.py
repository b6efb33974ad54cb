"""Pictures as 8-bit RGB, decoded with PIL, or a word on why not; without torch, which a report does not need."""

import io
import warnings

from PIL import Image, UnidentifiedImageError

from data.cli import UserError, one_line

PLAIN_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}
MAX_ASPECT_RATIO = 100


def decode_image(content: bytes, name: str) -> Image.Image:
    """The picture as 8-bit RGB; one that is cut short, CMYK, 16-bit, animated or a bomb raises UserError naming it.

    None of these is converted: a guess at colours or frame would change a score without a trace.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
            _check_image(image, name)
            return image.convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"image {name}: too many pixels to be a photograph ({error})") from error
    except UnidentifiedImageError as error:  # its message holds an address of memory
        raise UserError(f"image {name}: not a picture of a known format") from error
    except UserError:
        raise
    except Exception as error:  # PIL's decoders raise anything on broken bytes
        raise UserError(f"image {name}: cannot be decoded ({one_line(error)}); is the file cut short?") from error


def _check_image(image: Image.Image, name: str) -> None:
    if getattr(image, "n_frames", 1) > 1:
        raise UserError(f"image {name}: animated ({image.n_frames} frames); save the frame that is meant")  # type: ignore[attr-defined]
    if image.mode not in PLAIN_MODES:
        kind = "16 or 32 bits a channel" if image.mode[0] in "IF" else "an unusual colour space"
        kind = "four inks" if image.mode == "CMYK" else kind
        raise UserError(f"image {name}: mode {image.mode} ({kind}); save it as 8-bit RGB")
    if ";16" in str(getattr(image, "tile", "")):  # the decoder's raw mode, which PIL halves silently
        raise UserError(f"image {name}: 16 bits a channel; save it as 8-bit RGB")
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):  # OpenAI's resize would make a bomb of it
        raise UserError(f"image {name}: {image.width} x {image.height}, no photograph; cut out what is meant")
