"""Which files of other people the paper's tables need, and where they lie.

All are below one folder, under the names in which their authors publish them.
"""

import dataclasses
import os


@dataclasses.dataclass(frozen=True)
class Input:
  """A file, or a folder, that somebody else has made.

  Attributes:
    path: below the folder of all inputs.
    what: what it is, and how large.
  """

  path: str
  what: str

  def found(self, root: str) -> bool:
    """Says whether it is there; an empty folder is not."""
    path = os.path.join(root, self.path)
    return bool(os.listdir(path)) if os.path.isdir(path) else (
      os.path.isfile(path)
    )  # fmt: skip


VISION = Input(
  "weights/clip-vit-large-patch14", "CLIP ViT-L/14 at 224 px, 0.3 B parameters"
)
LLM = Input("weights/llama-7b", "LLaMA-7B with its tokenizer, 6.7 B parameters")
CC3M = Input("llava/chat.json", "LLaVA's CC3M: 595,375 captions")
CC3M_IMAGES = Input("llava/cc3m", "its images")
INSTRUCT = Input(
  "llava/llava_instruct_158k.json", "LLaVA's conversations: 158,000"
)
INSTANCES = Input(
  "coco/annotations/instances_train2017.json",
  "COCO instances: 118,287 images, 860,001 objects",
)
TRAIN = Input("coco/train2017", "118,287 images")
VAL_INSTANCES = Input(
  "coco/annotations/instances_val2017.json",
  "COCO instances: 5,000 images, 36,781 objects",
)
VAL = Input("coco/val2017", "5,000 images")
VAL2014 = Input("coco/val2014", "40,504 images")
TRAIN2014 = Input("coco/train2014", "82,783 images")
VIDEO_INSTRUCT = Input(
  "video/VideoInstruct100K.json", "Video-ChatGPT's conversations: 100,010"
)
ACTIVITYNET = Input("video/activitynet", "the videos of ActivityNet")
TRACKS = Input(
  "video/localize_activitynet.json",
  "boxes over frames (`pseudo_label --mode boxes`)",
)

# What each task asks about, by the field of the config that names it.
TASKS: dict[str, dict[str, Input]] = {
  **dict.fromkeys(
    ("spatial_paper", "spatial_disjoint", "hal_coco"),
    {"eval.instances": VAL_INSTANCES, "eval.images": VAL},
  ),
  "gqa": {
    "eval.gqa.questions": Input(
      "gqa/testdev_balanced_questions.json",
      "testdev-balanced: 12,578 questions",
    ),
    "eval.gqa.media": Input("gqa/images", "its images"),
  },
  "vqav2": {
    "eval.vqav2.questions": Input(
      "vqav2/v2_OpenEnded_mscoco_val2014_questions.json", "214,354 questions"
    ),
    "eval.vqav2.answers": Input(
      "vqav2/v2_mscoco_val2014_annotations.json", "ten answers to each"
    ),
    "eval.vqav2.media": VAL2014,
  },
  **{
    f"pope_{kind}": {
      f"eval.pope_{kind}.questions": Input(
        f"pope/coco_pope_{kind}.json", "POPE: 3,000 questions"
      ),
      f"eval.pope_{kind}.media": VAL2014,
    }
    for kind in ("random", "popular", "adversarial")
  },
  "hal_ade": {
    "eval.hal_ade.questions": Input(
      "ade20k/images/ADE/validation", "ADE20K of 2021: 2,000 images and objects"
    )
  },
  "hal_act": {
    "eval.hal_act.questions": Input(
      "video/activitynet_objects.jsonl", "what is in the videos, a line each"
    ),
    "eval.hal_act.media": ACTIVITYNET,
  },
  "activitynet_qa": {
    "eval.activitynet_qa.questions": Input(
      "video/activitynet_qa/test_q.json", "8,000 questions"
    ),
    "eval.activitynet_qa.answers": Input(
      "video/activitynet_qa/test_a.json", "their answers"
    ),
    "eval.activitynet_qa.media": ACTIVITYNET,
  },
  **{
    f"{name}_qa": {
      f"eval.{name}_qa.questions": Input(f"video/{name}_qa/{file}", what),
      f"eval.{name}_qa.media": Input(f"video/{name}", "its videos"),
    }
    for name, file, what in (
      ("msvd", "val_qa.json", "validation: 6,415 questions"),
      ("msrvtt", "val_qa.json", "validation: 12,278 questions"),
      ("tgif", "Test_frameqa_question.csv", "FrameQA: 13,691 questions"),
    )
  },
  **{
    f"rd_{split}": {
      f"eval.{split}.questions": Input(f"refer/{file}", "with instances.json"),
      f"eval.{split}.media": TRAIN2014,
    }
    for split, file in (
      ("refcoco_testB", "refcoco/refs(unc).p"),
      ("refcocoplus_testB", "refcoco+/refs(unc).p"),
      ("refcocog_val", "refcocog/refs(umd).p"),
      ("refcocog_test", "refcocog/refs(umd).p"),
    )
  },
}
