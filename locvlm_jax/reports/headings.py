"""What the page calls the tasks and metrics, and how to read them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Heading:
  """The title of a task, and how its questions are asked and scored."""

  title: str
  explanation: str = ""


# In the order of the page.
TASKS = {
  "locpred": Heading(
    "Where is the object?",
    "Questions about categories with exactly one instance in a held-out image. "
    "An answer counts at IoU 0.5 (0.75) or more; no box means IoU 0. "
    "center_error is in sides of the image, over the answers that parse.",
  ),
  "detect": Heading(
    "Find every …",
    "Every annotated category, and two that the image lacks. ap* is COCO's, by "
    "the scores of the boxes; ap_unscored gives every box a score of 1. "
    "f1_miou is the mean over IoU 0.5 to 0.95. An object that the crop removes "
    "counts as missed.",
  ),
  "detect_several": Heading(
    "Find every …, up to three categories in a question", "Otherwise as detect."
  ),
  "detect_coco": Heading(
    "Find every …, each category of the file in each image",
    "As COCO's AP is defined; otherwise as detect.",
  ),
  "revloc": Heading(
    "What is in this box?", "The answer has to contain the category's name."
  ),
  "hallucination": Heading(
    "Is there a …? Categories of the training annotations",
    "As many present as absent objects: always the same answer scores 50 %. "
    "Every answer without “no” counts as “yes” (POPE's rule).",
  ),
  "hallucination_novel": Heading(
    "Is there a …? Held-out categories",
    "The same for categories that no objective was trained on.",
  ),
  "spatial": Heading(
    "Left or right, above or below?",
    "The paper's triplet rule, each pair asked both ways round: always the "
    "same answer scores 50 %. icl: after two answered examples of the same "
    "image, which give the answer away: blind is the score of a solver that "
    "copies from them and never sees the image.",
  ),
  "spatial_pair": Heading(
    "Left or right, above or below? Any pair in opposite halves",
    "As above without the third object.",
  ),
  "spatial_paper": Heading(
    "COCO-Spatial (Table 4)",
    "The paper's triplet rule on whole images, with a blind solver's score.",
  ),
  "spatial_disjoint": Heading(
    "COCO-Spatial, examples of other objects",
    "icl_disjoint: the two examples are about objects that are not asked "
    "about; copying from them scores 50 %.",
  ),
  "spatial_trained": Heading(
    "Left or right, above or below? In wordings of the general data",
    "The same questions about held-out images in wordings that the general "
    "data has about others, with the objectives or without.",
  ),
  "spatial_trained_disjoint": Heading(
    "The same, after examples of other objects",
    "icl_disjoint: copying from the two examples scores 50 %.",
  ),
  "vqa": Heading(
    "General questions",
    "Held-out conversations: is general ability kept? Exact match, and the "
    "annotated words contained in the answer.",
  ),
}

# The metrics at the top of the page.
MAIN_METRICS = {
  "locpred.acc_iou50": "boxes with IoU ≥ 0.5",
  "detect.f1_50": "lists of boxes, F1 at IoU 0.5",
  "detect.ap": "lists of boxes, COCO's AP by their scores",
  "hallucination.accuracy": "object presence, seen",
  "hallucination_novel.accuracy": "object presence, held-out",
  "spatial_trained.direct.all": "spatial questions",
}

# The tasks whose answers list boxes; the first one's are shown.
LISTS = ("detect", "detect_several", "detect_coco")

# The tasks whose answers are shown below the tables; "locpred" has its own
# place above them.
GALLERIES = (
  "hallucination",
  "hallucination_novel",
  "spatial",
  "spatial_pair",
  "spatial_trained",
  "revloc",
  "vqa",
)


def heading(task: str) -> Heading:
  """Returns the heading of a task; one that is not above has its own name."""
  return TASKS.get(task, Heading(task))


def position(task: str) -> tuple[int, str]:
  """Returns what tasks are sorted by: the order above, then their names."""
  known = list(TASKS)
  return (known.index(task) if task in known else len(known), task)
