"""One question of each published benchmark, in the format of its authors."""

import gzip
import json

HUMANS = ["yes"] * 7 + ["no"] * 3
FILES = {
  "pope_random": (
    [{"question_id": 1, "image": "COCO_val2014_000000000042.jpg",
      "text": "Is there a dog in the image?", "label": "no"}], None),
  "vqav2": (
    {"questions": [{"question_id": 421, "image_id": 42, "question": "A dog?"}]},
    {"annotations": [{"question_id": 421, "answer_type": "yes/no",
                      "answers": [{"answer": a} for a in HUMANS]}]}),
  "gqa": (
    {"007": {"imageId": "42", "question": "Which?", "answer": "left",
             "isBalanced": True, "types": {"structural": "query"}}}, None),
  "activitynet_qa": (
    [{"question_id": "v_a_3", "video_name": "a", "question": "a dog"}],
    [{"question_id": "v_a_3", "answer": "no", "type": 3}]),
  "msvd_qa": ([{"id": 5, "video_id": 7, "question": "who sings?",
                "answer": "man"}], None),
  "msrvtt_qa": ("video,question,answer,qid,type\n7,who sings,man,5,2\n", None),
  "tgif_qa": (
    "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\n"
    "g_1\twhat FRAMEQAlaces it ?\tcat\t0\tFRAMEQA9\t1\n"
    "g_1\twhat FRAMEQAlaces it ?\tcat\t0\tFRAMEQA9\t1\n", None),
}  # fmt: skip
MEDIA = (
  "COCO_val2014_000000000042.jpg", "42.jpg", "v_a.mkv", "vid7.avi",
  "video7.mp4", "g_1.gif",
)  # fmt: skip


def write(folder) -> tuple[dict[str, tuple[str, str]], str]:
  """Writes the files and empty media.

  Returns:
    ({name: (path of the questions, path of the answers or "")}, the folder).
  """
  for name in MEDIA:
    (folder / name).touch()
  return {name: _write(folder, name, *FILES[name]) for name in FILES}, str(
    folder
  )


def _write(folder, name, asked, answers) -> tuple[str, str]:
  path, more = folder / f"{name}.json", folder / f"{name}_answers.json.gz"
  if isinstance(asked, str):
    path = path.with_suffix(".csv")
    path.write_text(asked)
  elif name.startswith("pope"):
    path.write_text("\n".join(map(json.dumps, asked)))
  else:
    path.write_text(json.dumps(asked))
  if answers is None:
    return str(path), ""
  more.write_bytes(gzip.compress(json.dumps(answers).encode()))
  return str(path), str(more)
