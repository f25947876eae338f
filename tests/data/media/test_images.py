"""Image files of every kind, whole and damaged."""

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from locvlm_jax.data.media import images


def _gray(mode):
  """A picture that is gray (120) in any mode, and 40 x 30."""
  if mode == "I;16":
    return Image.fromarray(np.full((30, 40), 120 * 256 + 7, np.uint16))
  picture = Image.new("RGB", (40, 30), (120, 120, 120))
  if mode == "P":  # a palette that has this gray
    return picture.quantize(2)
  return picture if mode == "RGB" else picture.convert(mode)


@pytest.mark.parametrize(
  "mode, ending",
  [
    ("RGB", "jpg"),
    ("L", "jpg"),
    ("CMYK", "jpg"),
    ("P", "png"),
    ("LA", "png"),
    ("RGBA", "png"),
    ("I;16", "png"),
    ("P", "gif"),
  ],
)
def test_images_of_any_mode(mode, ending, tmp_path):
  path = str(tmp_path / f"x.{ending}")
  _gray(mode).save(path)
  image = images.load_image(path, (40, 30))
  assert image.mode == "RGB" and image.size == (40, 30)
  assert abs(np.asarray(image).astype(int) - 120).max() <= 4


@pytest.mark.parametrize(
  "orientation, corner",
  [(1, 0), (2, 1), (3, 3), (4, 2), (5, 0), (6, 1), (7, 3), (8, 2)],
)
def test_exif_says_which_way_up_a_picture_is(orientation, corner, tmp_path):
  """The stored left upper corner is white; where it is seen, by Pillow too."""
  path, exif = str(tmp_path / "x.png"), Image.Exif()
  exif[0x0112] = orientation
  stored = Image.new("RGB", (40, 30))
  stored.putpixel((0, 0), (255, 255, 255))
  stored.save(path, exif=exif)
  seen = images.load_image(path)
  with Image.open(path) as opened:
    wanted = ImageOps.exif_transpose(opened)
    assert np.array_equal(images.load_image(opened), wanted)
  assert np.array_equal(seen, wanted)
  width, height = seen.size
  at = (width - 1) * (corner % 2), (height - 1) * (corner // 2)
  assert seen.getpixel(at) == (255, 255, 255)
  assert images.load_stored(path).getpixel((0, 0)) == (255, 255, 255)


def test_an_annotation_tells_by_its_size_which_way_up_its_boxes_are(tmp_path):
  """COCO's boxes are in the frame of the stored pixels."""
  path, exif = str(tmp_path / "x.jpg"), Image.Exif()
  exif[0x0112] = 6
  _gray("RGB").save(path, exif=exif)
  assert images.load_image(path).size == (30, 40)
  assert images.load_image(path, (30, 40)).size == (30, 40)
  assert images.load_image(path, (40, 30)).size == (40, 30)
  with pytest.raises(images.BadImage, match=r"is \(30, 40\), .* \(20, 40\)"):
    images.load_image(path, (20, 40))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_leaves_the_picture_as_it_is(tmp_path):
  path = str(tmp_path / "x.jpg")
  _gray("RGB").save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
  assert images.load_image(path).size == (40, 30)


def test_a_warning_of_pillow_is_not_relied_on(tmp_path, monkeypatch):
  """Filters of warnings are the process's, and loaders are threads."""
  monkeypatch.setattr("warnings.warn", lambda *a, **k: None)
  path = str(tmp_path / "x.png")
  Image.new("1", (9_500, 9_500)).save(path)  # a file of 11 kB
  with pytest.raises(images.BadImage, match="too many"):
    images.load_image(path)


def _huge(path):
  Image.new("1", (20_000, 10_000)).save(path)


@pytest.mark.parametrize(
  "spoil",
  [
    lambda p: p.write_bytes(b""),
    lambda p: p.write_bytes(b"not an image"),
    lambda p: p.write_bytes(p.read_bytes()[:-200]),
    lambda p: (p.unlink(), p.mkdir()),
    lambda p: p.unlink(),
    _huge,
  ],
  ids=["empty", "text", "truncated", "folder", "missing", "bomb"],
)
def test_images_that_cannot_be_used(spoil, tmp_path):
  path = tmp_path / "x.png"
  noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
  Image.fromarray(noise).save(path)
  spoil(path)
  with pytest.raises(images.BadImage):
    images.load_image(str(path))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_the_header_is_that_of_the_picture(orientation, tmp_path):
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  path = str(tmp_path / "a.jpg")
  Image.new("RGB", (40, 30)).save(path, exif=exif)
  assert images.read_size(path) == images.load_image(path).size
  with pytest.raises(images.BadImage):
    images.read_size(str(tmp_path / "absent.jpg"))
