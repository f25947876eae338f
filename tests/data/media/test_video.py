"""Videos to frames: sampling, counts, damage, odd sizes and rates."""

import os
import pathlib
import sys
import types

import numpy as np
import pytest
from PIL import Image

from locvlm_jax.data.media import clips as clips_lib
from locvlm_jax.data.media import images, video

DATA = os.environ.get("LOCVLM_TEST_DATA", "")
real = pytest.mark.skipif(
  not os.path.isdir(f"{DATA}/videos"), reason="LOCVLM_TEST_DATA: no videos"
)


def pyav():
  return pytest.importorskip("av", reason="PyAV is not installed")


def _by_hand(num: int, most: int) -> list[int]:
  """The predecessor's formula with Python's own numbers."""
  n = min(num, most)
  segment = float(num - 1) / n
  return [
    (round(segment * i) + round(segment * (i + 1))) // 2 for i in range(n)
  ]


@pytest.mark.parametrize("most", [1, 8, 100])
def test_sampling_is_the_predecessors(most):
  for num in range(1, 1001):
    found = video.sample_indices(num, most).tolist()
    assert found == _by_hand(num, most)
    assert len(found) == min(num, most) and found == sorted(found)
    assert 0 <= found[0] and found[-1] < num


def test_nothing_to_sample():
  with pytest.raises(ValueError, match="8 of 0 frames"):
    video.sample_indices(0, 8)


def gray(values, size=(48, 32)) -> list[Image.Image]:
  """Frames of one gray each."""
  return [Image.new("RGB", size, (v, v, v)) for v in values]


def shades(frames) -> list[int]:
  return [int(np.asarray(f).mean().round()) for f in frames]


def film(path, frames, codec="ffv1", times=None, degrees=0):
  """Writes frames without loss; `times` in milliseconds.

  A player is to turn them by `degrees` against the clock.
  """
  import fractions

  with pyav().open(str(path), "w") as out:
    stream = out.add_stream(codec, rate=25)
    stream.width, stream.height = frames[0].size
    if degrees:
      if not hasattr(stream, "set_display_rotation"):
        pytest.skip("this PyAV writes no rotation")
      stream.set_display_rotation(degrees)
    stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
    stream.codec_context.time_base = fractions.Fraction(1, 1000)
    for i, image in enumerate(frames):
      frame = sys.modules["av"].VideoFrame.from_image(image)
      frame.pts = times[i] if times else 40 * i
      frame.time_base = fractions.Fraction(1, 1000)
      out.mux(stream.encode(frame))
    out.mux(stream.encode(None))
  return str(path)


def gif(path, frames):
  frames[0].save(path, save_all=True, append_images=frames[1:])
  return str(path)


def folder(path, frames):
  path.mkdir()
  for i, frame in enumerate(frames, 1):
    frame.save(path / f"frame{i}.png")
  (path / "notes.txt").write_text("no frame")
  return str(path)


WRITERS = {"x.mkv": film, "x.gif": gif, "x": folder}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("num", [1, 2, 12])
def test_frames_of_each_kind(name, num, tmp_path):
  values = [20 * i for i in range(num)]
  path = WRITERS[name](tmp_path / name, gray(values))
  assert video.is_video(path)
  assert shades(video.sample(path, 100)) == [
    values[i] for i in _by_hand(num, 100)
  ]
  assert shades(video.sample(path, 5)) == [values[i] for i in _by_hand(num, 5)]


def test_time_stamps_do_not_matter(tmp_path):
  values, times = [0, 50, 100, 150], [0, 7, 900, 905]
  path = film(tmp_path / "x.mkv", gray(values), times=times)
  assert shades(video.sample(path, 4)) == [values[i] for i in _by_hand(4, 4)]


@pytest.mark.parametrize("size", [(33, 17), (1, 1), (7, 50)])
def test_odd_sizes(size, tmp_path):
  path = film(tmp_path / "x.mkv", gray([10, 90], size))
  clip, num, found = clips_lib.Clips(4, "square", 16).read(path)
  assert found == size and num == 2 and clip.shape == (4, 16, 16, 3)
  assert clip[:, 0, 0, 0].tolist() == [10, 10, 0, 0]  # of two, 0 comes twice


def test_a_picture_is_a_video_of_one_frame(tmp_path):
  Image.new("RGB", (9, 5), (70, 70, 70)).save(tmp_path / "x.png")
  clips = clips_lib.Clips(3, "center_crop", 8)
  clip, num, size = clips.read(str(tmp_path / "x.png"))
  assert num == 1 and size == (9, 5) and not video.is_video("x.png")
  assert (clip[0] == 70).all() and not clip[1:].any()


def test_videos_that_cannot_be_used(tmp_path):
  (tmp_path / "empty").mkdir()
  (tmp_path / "text.mp4").write_text("not a video")
  (tmp_path / "text.gif").write_text("not a video")
  for name in ("empty", "text.gif", "absent.mp4"):
    with pytest.raises(video.BadVideo):
      list(video.sample(str(tmp_path / name), 8))
  pyav()
  with pytest.raises(video.BadVideo, match="Invalid data"):
    list(video.sample(str(tmp_path / "text.mp4"), 8))


@pytest.mark.parametrize("name", ["x.mkv", "x.avi"])
def test_a_film_without_any_frame(name, tmp_path):
  path = tmp_path / name
  with pyav().open(str(path), "w") as out:
    stream = out.add_stream("ffv1", rate=25)
    stream.width, stream.height, stream.pix_fmt = 16, 16, "bgr0"
    out.start_encoding()
  with pytest.raises(video.BadVideo, match="no frame|no video|End of file"):
    list(video.sample(str(path), 8))


@pytest.mark.parametrize("name", ["x.mkv", "x.avi", "x.mp4", "x.gif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_nothing_is_read_of_a_file_that_was_cut_off(name, share, tmp_path):
  noise = np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), np.uint8)
  frames = [Image.fromarray(x) for x in noise]
  write = gif if name == "x.gif" else film
  options = {} if write is gif else {"codec": "mpeg4"}
  path = pathlib.Path(write(tmp_path / name, frames, **options))
  whole = path.read_bytes()
  assert len(list(video.sample(str(path), 9))) == 9
  path.write_bytes(whole[: int(share * len(whole))])
  if (name, share) == ("x.avi", 0.95):  # it lost its index, no frame
    assert len(list(video.sample(str(path), 9))) == 9
    return
  with pytest.raises(video.BadVideo):
    next(video.sample(str(path), 8))


def test_a_gif_cut_between_its_frames(tmp_path):
  path = pathlib.Path(gif(tmp_path / "x.gif", gray([0, 100, 200])))
  path.write_bytes(path.read_bytes()[:-1])  # complete but for the trailer
  with pytest.raises(video.BadVideo, match="cut off"):
    next(video.sample(str(path), 8))


def test_without_pyav_it_says_what_to_install(tmp_path, monkeypatch):
  (tmp_path / "x.mp4").write_bytes(b"0")
  monkeypatch.setitem(sys.modules, "av", None)
  with pytest.raises(ValueError, match="pip install"):
    next(video.sample(str(tmp_path / "x.mp4"), 8))


def test_frames_are_not_kept(tmp_path, monkeypatch):
  """A long video does not fill the memory: one picture at a time."""
  alive, most = set(), []
  path = gif(tmp_path / "x.gif", gray(range(0, 200, 2)))
  convert = Image.Image.convert

  def counted(self, *args):
    import weakref

    image = convert(self, *args)
    alive.add(id(image))
    weakref.finalize(image, alive.discard, id(image))
    most.append(len(alive))
    return image

  monkeypatch.setattr(Image.Image, "convert", counted)
  clip, num, _ = clips_lib.Clips(50, "square", 8).read(path)
  assert num == 50 and max(most) <= 3


@real
@pytest.mark.parametrize(
  "name, num, size",
  [
    *[
      (f"msrvtt_qa/videos/video70{i}.mp4", n, (320, 240))
      for i, n in zip(
        range(10, 16), (270, 390, 336, 420, 300, 330), strict=True
      )
    ],
    ("tgif_qa/frameqa_1.gif", 20, (360, 240)),
    ("tgif_qa/frameqa_2.gif", 28, (360, 240)),
    ("videos/decord_flipping_a_pancake.mkv", 310, (426, 240)),  # claims 0
    ("videos/videollava_sample_demo_3.mp4", 146, (640, 360)),
  ],
)
def test_real_videos_have_so_many_frames(name, num, size):
  if not name.endswith("gif"):
    pyav()
  path = os.path.join(DATA, name)
  assert sum(1 for _ in video._frames(path)) == num
  found, wanted = list(video.sample(path, 3)), _by_hand(num, 3)
  assert len(found) == 3 and {f.size for f in found} == {size}
  for i, picture in enumerate(video._frames(path)):
    if i == wanted[1]:
      assert np.array_equal(found[1], picture())


@real
def test_the_corrupted_clip_is_not_half_read():
  """28 of its frames decode."""
  pyav()
  with pytest.raises(images.BadImage, match="Invalid data"):
    next(video.sample(f"{DATA}/videos/decord_corrupted.mp4", 8))


@pytest.mark.parametrize("degrees", [0, 90, -90, 180])
def test_a_film_is_turned_as_its_phone_says(degrees, tmp_path):
  """As FFmpeg and decord do; PyAV names the angle, against the clock."""
  stored = Image.new("RGB", (48, 32))
  stored.paste((255, 255, 255), (0, 0, 24, 16))
  path = film(tmp_path / "x.mp4", [stored] * 3, "mpeg4", degrees=degrees)
  (shown,) = video.sample(path, 1)
  with sys.modules["av"].open(path) as container:
    frame = next(container.decode(video=0))
  assert abs(frame.rotation) == abs(degrees)
  wanted = frame.to_image().rotate(frame.rotation, expand=True)
  assert np.array_equal(shown, wanted)
  _, _, size = clips_lib.Clips(2, "square", 16).read(path)
  assert size == wanted.size


def test_a_film_to_be_turned_by_no_quarter_is_refused(tmp_path):
  path = film(tmp_path / "x.mp4", gray([9]), "mpeg4", degrees=45)
  with pytest.raises(video.BadVideo, match="no quarter"):
    next(video.sample(path, 1))


def test_a_cover_picture_is_no_film():
  disposition = pyav().stream.Disposition
  cover = types.SimpleNamespace(disposition=disposition.attached_pic)
  own = types.SimpleNamespace(disposition=disposition.default)

  def container(*streams):
    return types.SimpleNamespace(streams=types.SimpleNamespace(video=streams))

  assert video._film_stream(container(cover, own)) is own
  with pytest.raises(video.BadVideo, match="no video stream"):
    video._film_stream(container(cover))


def test_what_is_no_frame_is_passed_over(tmp_path, caplog):
  path = folder(tmp_path / "x", gray([10, 20, 30]))
  gray([99])[0].save(tmp_path / "x/._frame1.png")
  gray([99])[0].save(tmp_path / "x/cover.jpg")
  assert shades(video.sample(path, 100)) == [
    [10, 20, 30][i] for i in _by_hand(3, 100)
  ]
  assert caplog.text.count("no number: cover.jpg") == 1
  gray([99])[0].save(tmp_path / "x/thumb1.jpg")
  with pytest.raises(video.BadVideo, match="more than one kind: .*thumb1.jpg"):
    next(video.sample(path, 100))


def test_frames_without_any_number_are_frames(tmp_path):
  (tmp_path / "x").mkdir()
  gray([50])[0].save(tmp_path / "x/only.png")
  assert shades(video.sample(str(tmp_path / "x"), 4)) == [50]
