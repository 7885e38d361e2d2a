"""One image: what a file becomes, as a person sees it; what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from data_utils.errors import DataFileError
from data_utils.images.folders import read_image

from ..common import damaged, fuzz, memory_below
from .common import write_image


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
def test_every_image_becomes_rgb(tmp_path, rng, mode):
    path = tmp_path / ("x.png" if mode == "RGBA" else "x.JPEG")
    write_image(path, rng, mode=mode)
    image = read_image(path)
    assert image.mode == "RGB" and image.size == (20, 16)


def test_a_png_named_jpeg_is_read_and_another_format_is_not(tmp_path, rng):
    pixels = write_image(tmp_path / "x.JPEG", rng, format="PNG")
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.JPEG")), pixels)
    write_image(tmp_path / "y.JPEG", rng, format="BMP")
    with pytest.raises(DataFileError, match="y.JPEG: cannot be decoded .*expected a complete JPEG or PNG"):
        read_image(tmp_path / "y.JPEG")


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (2**13, 2**13 + 1)).save(path)
    with (
        memory_below(2**20),
        pytest.raises(DataFileError, match="67,117,056 pixels; expected at most 67,108,864"),
    ):
        read_image(path)


def png_and_jpeg():
    files = []
    for format in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, format)
        files.append(buffer.getvalue())
    return files


@fuzz
@given(damaged(png_and_jpeg()[0]) | damaged(png_and_jpeg()[1]))
def test_damaged_images_end_in_an_error_that_names_the_file(tmp_path, data):
    path = tmp_path / "image.JPEG"
    path.write_bytes(data)
    try:
        image = read_image(path)
    except DataFileError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert image.mode == "RGB"


# ---------------------------------------------------------------- as a person sees it


def seen(image, path, **options) -> list:
    """Return the RGB pixels of a Pillow image that was written to a file and read again."""
    image.save(path, **options)
    return np.asarray(read_image(path)).tolist()


def oriented(number) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif.tobytes()


ABC_DEF = np.array([[10, 20, 30], [40, 50, 60]], "uint8")


@pytest.mark.parametrize(
    "number, expected",
    [  # the EXIF standard: where the stored first row and first column are for the person who looks
        (1, [[10, 20, 30], [40, 50, 60]]),  # top, left
        (2, [[30, 20, 10], [60, 50, 40]]),  # top, right
        (3, [[60, 50, 40], [30, 20, 10]]),  # bottom, right
        (4, [[40, 50, 60], [10, 20, 30]]),  # bottom, left
        (5, [[10, 40], [20, 50], [30, 60]]),  # left, top
        (6, [[40, 10], [50, 20], [60, 30]]),  # right, top
        (7, [[60, 30], [50, 20], [40, 10]]),  # right, bottom
        (8, [[30, 60], [20, 50], [10, 40]]),  # left, bottom
        (99, [[10, 20, 30], [40, 50, 60]]),  # no such number: as stored
    ],
)
def test_the_cameras_orientation_is_applied(tmp_path, number, expected):
    pixels = np.array(seen(Image.fromarray(ABC_DEF), tmp_path / "x.png", exif=oriented(number)))
    assert pixels[..., 0].tolist() == expected


def test_the_orientation_of_a_jpeg_is_applied(tmp_path):
    write_image(tmp_path / "x.jpg", np.random.default_rng(0), size=(16, 8), exif=oriented(6))
    stored = np.asarray(Image.open(tmp_path / "x.jpg"))
    image = read_image(tmp_path / "x.jpg")
    assert image.size == (8, 16) and np.array_equal(np.asarray(image), np.rot90(stored, -1))  # clockwise


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow warns
@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0nonsense", b"\0" * 40])
def test_damaged_exif_data_do_not_make_an_image_unreadable(tmp_path, exif):
    path = tmp_path / "x.jpg"
    Image.fromarray(ABC_DEF).save(path)
    whole = path.read_bytes()
    marker = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    path.write_bytes(whole[:2] + marker + whole[2:])
    assert np.array_equal(np.asarray(read_image(path))[..., 0], np.asarray(Image.open(path)))


def test_transparent_pixels_are_laid_over_white(tmp_path):
    colours = np.array([[[200, 0, 100, 255], [200, 0, 100, 0], [200, 0, 100, 51]]], "uint8")
    expected = [[[200, 0, 100], [255, 255, 255], [244, 204, 224]]]  # 51 / 255 = 1/5 of the colour
    assert seen(Image.fromarray(colours), tmp_path / "rgba.png") == expected
    greys = np.array([[[100, 255], [100, 0], [100, 51]]], "uint8")
    assert seen(Image.fromarray(greys), tmp_path / "la.png") == [[[100] * 3, [255] * 3, [224] * 3]]
    marked = Image.fromarray(np.array([[[1, 2, 3], [3, 2, 1]]], "uint8"))
    assert seen(marked, tmp_path / "rgb.png", transparency=(1, 2, 3)) == [[[255] * 3, [3, 2, 1]]]
    marked = Image.fromarray(np.array([[7, 8]], "uint8"))
    assert seen(marked, tmp_path / "l.png", transparency=7) == [[[255] * 3, [8] * 3]]


def test_a_palette_becomes_its_colours(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([2, 0, 1])
    assert seen(image, tmp_path / "p.png") == [[[70, 80, 90], [10, 20, 30], [40, 50, 60]]]
    one = seen(image, tmp_path / "one.png", transparency=0)
    assert one == [[[70, 80, 90], [255, 255, 255], [40, 50, 60]]]
    each = seen(image, tmp_path / "each.png", transparency=bytes([255, 0, 51]))
    assert each == [[[218, 220, 222], [10, 20, 30], [255, 255, 255]]]  # 51 / 255 = 1/5 of the colour


def test_black_and_white_of_one_bit(tmp_path):
    image = Image.fromarray(np.array([[True, False]]))
    assert image.mode == "1" and seen(image, tmp_path / "x.png") == [[[255] * 3, [0] * 3]]


def png(width: int, depth: int, colour: int, row: bytes, transparent: bytes = b"") -> bytes:
    """Return a PNG file of one row; colour: 0 for grey, 2 for RGB."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))]
    chunks += [(b"tRNS", transparent)] * bool(transparent)
    chunks += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_levels_of_16_bits_are_scaled(tmp_path):
    """255, 256 and 65535 become 0, 1 and 255, in grey and in colour alike."""
    path, levels = tmp_path / "x.png", struct.pack(">6H", 0, 255, 256, 0x1234, 0x8000, 0xFFFF)
    path.write_bytes(png(6, 16, 0, levels))
    assert np.asarray(read_image(path))[0].tolist() == [[v] * 3 for v in (0, 0, 1, 0x12, 0x80, 0xFF)]
    path.write_bytes(png(2, 16, 2, levels))
    assert np.asarray(read_image(path))[0].tolist() == [[0, 0, 1], [0x12, 0x80, 0xFF]]
    path.write_bytes(png(6, 16, 0, levels, transparent=struct.pack(">H", 0x1234)))
    assert np.asarray(read_image(path))[0, :, 1].tolist() == [0, 0, 1, 255, 0x80, 0xFF]


@pytest.mark.parametrize("depth, row, expected", [(1, 0b01000000, [0, 255]), (2, 0b01110000, [85, 255]),
                                                  (4, 0x5F, [85, 255])])  # fmt: skip
def test_greys_of_few_bits_are_scaled(tmp_path, depth, row, expected):
    (tmp_path / "x.png").write_bytes(png(2, depth, 0, bytes([row])))
    assert np.asarray(read_image(tmp_path / "x.png"))[0, :, 2].tolist() == expected


@pytest.mark.parametrize("format", ["PNG", "MPO"])
def test_of_several_frames_the_first_is_taken(tmp_path, format):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ((0, 0, 0), (255, 255, 255)))
    path = tmp_path / "x.jpg"
    first.save(path, format, save_all=True, append_images=[second])
    with Image.open(path) as image:
        assert image.n_frames == 2
    assert np.array_equal(np.asarray(read_image(path)), np.zeros((8, 8, 3)))


@pytest.mark.parametrize(
    "data, told",
    [
        (b"RIFF\x10\0\0\0WEBPVP8 ", "a WebP picture"),
        (b"\0\0\0\x18ftypheic\0\0", "a HEIC picture"),
        (b"\0\0\0\x20ftypavif\0\0", "an AVIF picture"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS, without the data"),
        (b"", "an empty file"),
    ],
)
def test_what_is_named_like_an_image_is_called_what_it_is(tmp_path, data, told):
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    with pytest.raises(DataFileError, match=rf"x.jpg: cannot be decoded \({told}\); expected a complete"):
        read_image(path)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(DataFileError, match=r"cannot be decoded \(a folder\)"):
        read_image(tmp_path)


def test_a_file_cannot_claim_more_pixels_than_its_bytes_can_hold(tmp_path):
    """Its checksums are right and its pixels are missing, so Pillow would first allocate all of them."""
    path, right = tmp_path / "small.png", tmp_path / "right.png"
    Image.new("1", (1024, 1024)).save(right)
    assert read_image(right).size == (1024, 1024)  # the densest that PNG has
    whole, body = right.read_bytes(), b"IHDR" + struct.pack(">IIBBBBB", 7, 7_405_568, 8, 0, 0, 0, 0)
    path.write_bytes(whole[:12] + body + zlib.crc32(body).to_bytes(4, "big") + whole[33:])
    most = f"{8 * 1032 * path.stat().st_size:,}"
    with pytest.raises(DataFileError, match=f"an image of 51,838,976 pixels; expected at most {most}"):
        read_image(path)


def test_a_chunk_cannot_claim_more_memory_than_the_file_has(tmp_path):
    path = tmp_path / "x.png"
    Image.new("RGB", (7, 5)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:33] + (2**26).to_bytes(4, "big") + b"tEXt" + whole[33:])
    with memory_below(2**20), pytest.raises(DataFileError, match="x.png: cannot be decoded"):
        read_image(path)
