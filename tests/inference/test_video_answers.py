"""Questions about videos, from files to answers."""

import json
import os
import pathlib
import shutil

import pytest
from changed import changed
from PIL import Image
from zygote import run

from configs import micro
from locvlm_jax.config import Config
from locvlm_jax.evals import session

DATA = os.environ.get("LOCVLM_TEST_DATA", "")


@pytest.fixture(scope="module")
def root(microworld, tmp_path_factory):
  """A copy, since a test damages one of its videos."""
  folder = tmp_path_factory.mktemp("world") / "w"
  return str(shutil.copytree(microworld(num_videos=20), folder))


def config(words="vid_b", frames=4, **change) -> Config:
  """Few frames and short answers."""
  c = micro.get_config(words)
  c.video.frames = frames
  c.eval.update(samples=0, batch_size=4, max_new_tokens=4)
  c.eval.override = ("video",)  # the base was trained without videos
  c.root = change.pop("root", c.root)
  return changed(c, **change)


def rows(workdir) -> list[dict]:
  text = (workdir / "predictions.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_the_micro_worlds_videos(root, tmp_path, caplog):
  """With features and without; a damaged one is told, and gets no answer."""
  broken = next(pathlib.Path(root, "videos/val").iterdir())
  whole, found = broken.read_bytes(), {}
  broken.write_bytes(whole[: len(whole) // 2])
  for name, cache in (("frames", ""), ("features", str(tmp_path / "cache"))):
    caplog.clear()
    c = config(root=root, **{"video.cache": cache})
    metrics = session.evaluate(
      c, str(tmp_path / name), ["video_vqa"], micro.BASE
    )
    assert metrics["video_vqa.num"] == 4
    found[name] = {r["id"]: r["answer"] for r in rows(tmp_path / name)}
    assert f"no answers about {broken}" in caplog.text
    silent = [r for r in rows(tmp_path / name) if not r["answer"]]
    assert [r["image"] for r in silent] == [str(broken)]
  broken.write_bytes(whole)
  assert found["frames"] == found["features"]


def test_a_model_of_images_sees_the_middle(root, tmp_path):
  c = config("stage2", 0, root=root)
  session.evaluate(c, str(tmp_path), ["video_vqa"], micro.BASE)
  assert all(r["answer"] for r in rows(tmp_path))


@pytest.mark.skipif(
  not os.path.isdir(f"{DATA}/msrvtt_qa"), reason="LOCVLM_TEST_DATA: no videos"
)
def test_real_clips_and_gifs(tmp_path):
  """Six clips, two GIFs, and a clip whose middle is damaged."""
  pytest.importorskip("av", reason="PyAV is not installed")
  media = tmp_path / "media"
  media.mkdir()
  for folder, ending in (("msrvtt_qa/videos", "mp4"), ("tgif_qa", "gif")):
    for path in pathlib.Path(DATA, folder).glob(f"*.{ending}"):
      shutil.copy(path, media)
  shutil.copy(f"{DATA}/videos/decord_corrupted.mp4", media / "video1.mp4")
  names = [f"video70{i}" for i in range(10, 16)] + ["video1"]
  gifs = sorted(p.stem for p in media.glob("*.gif"))
  assert len(gifs) == 2 and len(list(media.iterdir())) == 9
  asked = [
    {"id": i, "video_id": i, "question": "what moves?", "answer": "man"}
    for i in (1, *range(7010, 7016))
  ]
  (tmp_path / "msrvtt.json").write_text(json.dumps(asked))
  lines = ["gif_name\tquestion\tanswer\ttype\tvid_id"]
  lines += [f"{name}\twhat moves ?\tcat\t0\tG{name}" for name in gifs]
  (tmp_path / "tgif.csv").write_text("\n".join(lines) + "\n")
  c = config(
    **{
      "eval.msrvtt_qa.questions": str(tmp_path / "msrvtt.json"),
      "eval.tgif_qa.questions": str(tmp_path / "tgif.csv"),
      "eval.msrvtt_qa.media": str(media),
      "eval.tgif_qa.media": str(media),
      "video.cache": str(tmp_path / "cache"),
    }
  )
  session.evaluate(c, str(tmp_path), ["msrvtt_qa", "tgif_qa"], micro.BASE)
  answers = {pathlib.Path(r["image"]).stem: r["answer"] for r in rows(tmp_path)}
  assert set(answers) == {*names, *gifs}
  assert [name for name in answers if not answers[name]] == ["video1"]


def test_generate_takes_a_video(tmp_path):
  frames = [Image.new("RGB", (60, 40), (40 * i, 9, 9)) for i in range(5)]
  path = tmp_path / "x.gif"
  frames[0].save(path, save_all=True, append_images=frames[1:])
  done = run(
    "generate",
    "--config=configs/micro.py:vid_b",
    f"--checkpoint={micro.BASE}",
    f"--video={path}",
    "--prompt=What moves?",
    "--json",
    "--max_new_tokens=8",
    f"--draw={tmp_path}/x.png",
  )
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout.splitlines()[-1])["answer"]
  with Image.open(tmp_path / "x.png") as drawn:
    assert drawn.size == (60, 40)
  path.write_bytes(path.read_bytes()[:-1])
  done = run("generate", f"--video={path}", "--prompt=What moves?")
  assert done.returncode == 70 and "cut off" in done.stderr
