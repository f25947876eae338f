"""Pictures and videos to panoptic segmentations, and on to pseudo-boxes."""

import json

import numpy as np
import pytest
from PIL import Image
from zygote import run

from locvlm_jax.data.sources import coco, tracks
from locvlm_jax.pseudo import pseudo_boxes, segmentations, segmenter

KINDS = (
  {"id": 1, "name": "cup", "isthing": 1},
  {"id": 2, "name": "sky", "isthing": 0},
)


def _model(calls=None) -> segmenter.Segmenter:
  """The upper half is sky, the left of the lower one a cup."""

  def segmented(picture):
    if calls is not None:
      calls.append(picture.size)
    labels = np.full(picture.size[::-1], -1)
    half = picture.height // 2
    labels[:half] = 7
    labels[half:, : picture.width // 2] = 3
    return labels, [
      {"id": 7, "label_id": 1, "score": 0.8},
      {"id": 3, "label_id": 0, "score": 0.91},
    ]

  return segmenter.Segmenter(KINDS, segmented)


@pytest.fixture
def pictures(tmp_path):
  folder = tmp_path / "in"
  folder.mkdir()
  for name, size in (("b.jpg", (20, 10)), ("a.png", (8, 12))):
    Image.new("RGB", size).save(folder / name)
  (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
  (folder / "notes.txt").write_text("none")
  return folder


def test_pictures_become_boxes(pictures, tmp_path):
  out = tmp_path / "out"
  counts = segmenter.segment(_model(), str(pictures), str(out), log=lambda s: 0)
  assert counts == {"segmented": 2, "unusable": 1}
  source = segmentations.Segmentations(str(out / "panoptic.json"), str(out))
  content, _ = pseudo_boxes.pseudo_boxes(
    source, pseudo_boxes.Selection(max_void=0.3)
  )
  path = tmp_path / "pseudo.json"
  path.write_text(json.dumps(content))
  found = coco.Instances(str(path), str(pictures))
  records = [found[i] for i in range(len(found))]
  wanted = [str(pictures / name) for name in ("a.png", "b.jpg")]
  assert [r.image for r in records] == wanted
  assert [o.box for r in records for o in r.objects] == [
    (0, 6, 4, 12),
    (0, 5, 10, 10),
  ]


def test_what_is_there_is_not_made_again(pictures, tmp_path):
  calls, out = [], str(tmp_path / "out")
  segmenter.segment(_model(calls), str(pictures), out, log=lambda s: 0)
  (tmp_path / "out/b.jpg.png.json").unlink()  # killed before it
  first = (tmp_path / "out/panoptic.json").read_bytes()
  counts = segmenter.segment(_model(calls), str(pictures), out, log=lambda s: 0)
  assert len(calls) == 3 and counts["there already"] == 1
  assert (tmp_path / "out/panoptic.json").read_bytes() == first
  segmenter.claim(out, {"model": "a"})
  segmenter.claim(out, {"model": "a"})
  with pytest.raises(ValueError, match="other settings"):
    segmenter.claim(out, {"model": "b"})


def test_frames_of_videos_become_tracks(tmp_path):
  media, out = tmp_path / "in", tmp_path / "out"
  media.mkdir()
  frames = [Image.new("RGB", (16, 16), (40 * i, 0, 0)) for i in range(5)]
  frames[0].save(media / "v.gif", save_all=True, append_images=frames[1:])
  (media / "cut.gif").write_bytes((media / "v.gif").read_bytes()[:-20])
  counts = segmenter.segment(
    _model(), str(media), str(out), frames=3, log=lambda s: 0
  )
  assert counts == {"segmented": 3, "unusable": 1}
  source = segmentations.Segmentations(str(out / "panoptic.json"), str(out))
  content, _ = pseudo_boxes.pseudo_boxes(
    source, pseudo_boxes.Selection(max_void=0.3)
  )
  path = tmp_path / "tracks.json"
  path.write_text(json.dumps(pseudo_boxes.by_video(content)))
  found = tracks.Tracks(str(path), str(media))
  assert len(found) == 1 and found[0].image == str(media / "v.gif")
  assert [o.category for o in found[0].objects] == ["cup"]


def test_an_empty_folder_and_a_missing_one(tmp_path):
  for path, said in ((tmp_path, "no picture"), (tmp_path / "x", "no such")):
    with pytest.raises(ValueError, match=said):
      segmenter.segment(_model(), str(path), str(tmp_path / "o"))


@pytest.mark.parity
@pytest.mark.filterwarnings("default")
def test_a_model_of_transformers(pictures, tmp_path):
  """Small, random weights, of the class that real ones have."""
  torch = pytest.importorskip("torch")
  pytest.importorskip("torchvision")
  import transformers

  swin = transformers.SwinConfig(
    embed_dim=16,
    depths=[1, 1, 1, 1],
    num_heads=[1, 1, 2, 2],
    window_size=4,
    out_features=["stage1", "stage2", "stage3", "stage4"],
  )
  config = transformers.Mask2FormerConfig(
    backbone_config=swin,
    feature_size=32,
    mask_feature_size=32,
    hidden_dim=32,
    encoder_feedforward_dim=32,
    encoder_layers=1,
    decoder_layers=2,
    num_attention_heads=2,
    dim_feedforward=32,
    num_queries=1,
    id2label={0: "cup", 1: "dog", 2: "sky"},
  )
  torch.manual_seed(0)
  folder = str(tmp_path / "model")
  model = transformers.Mask2FormerForUniversalSegmentation(config)
  with torch.no_grad():
    model.class_predictor.bias[:] = torch.tensor([20.0, 0.0, 0.0, 0.0])
  model.save_pretrained(folder)
  transformers.Mask2FormerImageProcessor(
    size={"height": 64, "width": 64}
  ).save_pretrained(folder)
  out = tmp_path / "out"
  ended = run(
    "pseudo_label",
    "--mode=segment",
    f"--model={folder}",
    f"--media={pictures}",
    f"--out={out}",
    "--things=cup,dog",
    "--min_score=0.0",
  )
  assert ended.returncode == 0, ended.stderr
  content = json.loads((out / "panoptic.json").read_text())
  assert [k["isthing"] for k in content["categories"]] == [1, 1, 0]
  assert sum(len(a["segments_info"]) for a in content["annotations"]) > 0
  source = segmentations.Segmentations(str(out / "panoptic.json"), str(out))
  assert [s.image["file_name"] for s in source.each(1)] == ["a.png", "b.jpg"]


@pytest.mark.parametrize(
  "flags, said",
  [
    (("--model=m",), "--media is missing"),
    (("--media=m",), "--model is missing"),
    (("--model=m", "--media=m", "--things=no.json"), "no.json: no such file"),
  ],
)
def test_flags_that_are_wrong(flags, said, tmp_path):
  ended = run("pseudo_label", "--mode=segment", f"--out={tmp_path}/o", *flags)
  assert ended.returncode in (70, 78)
  assert said in ended.stderr and ended.stderr.count("\n") == 1
