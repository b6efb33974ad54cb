"""Where the bytes of a benchmark's pictures come from."""

from pathlib import Path

from data.command import UserError
from eval.benchmark import Picture

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FOLDERS = ("images", "Images", "flickr30k-images", "flickr30k_images", "imgs")


def folder_pictures(table: Path, images: Path | None) -> Picture:
    """Pictures as files in `images`, or in a folder of a usual name beside `table`, or beside `table` itself.

    An id is a file name, with or without `.jpg`, with or without its folder.
    """
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images}: no such folder")
    beside = [table.parent / name for name in FOLDERS if (table.parent / name).is_dir()]
    folder = images or next(iter(beside), table.parent)

    def picture(image: str) -> bytes:
        for name in (image, f"{image}.jpg", Path(image).name):
            if (folder / name).is_file():
                return (folder / name).read_bytes()
        raise UserError(
            f"image {image}: no such file in {folder}; name the folder of pictures with --images, "
            "or give ready features with --image-features"
        )

    return picture
