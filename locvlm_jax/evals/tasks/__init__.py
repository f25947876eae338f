"""The evaluation tasks, by the name that their metrics carry.

A new task is one file in this folder, with a class that has all of
`task.Task`, and one line in `EVALS`.
"""

from locvlm_jax.data.sources import refer
from locvlm_jax.evals.tasks.benchmark import Gqa, OpenQuestions, Pope, Vqav2
from locvlm_jax.evals.tasks.counting import Counting
from locvlm_jax.evals.tasks.detection import Detection
from locvlm_jax.evals.tasks.hallucination import Hallucination
from locvlm_jax.evals.tasks.loc_pred import LocPred
from locvlm_jax.evals.tasks.pointing import Pointing
from locvlm_jax.evals.tasks.rec import Rec
from locvlm_jax.evals.tasks.region import Region
from locvlm_jax.evals.tasks.rev_loc import RevLoc
from locvlm_jax.evals.tasks.spatial import Spatial
from locvlm_jax.evals.tasks.spatial_released import SpatialByReleasedScript
from locvlm_jax.evals.tasks.task import Task
from locvlm_jax.evals.tasks.vqa import Vqa
from locvlm_jax.text import prompts

# The splits of referring expressions that the paper's Table 10 describes.
DESCRIBED = (
  "refcoco_testB", "refcocoplus_testB", "refcocog_val", "refcocog_test",
)  # fmt: skip
# All splits; boxes are asked for in each.
REFERRED = tuple(
  f"{name}_{split}" for name, splits in refer.SPLITS.items() for split in splits
)

EVALS: dict[str, Task] = {
  task.name: task
  for task in (
    LocPred(),
    RevLoc(),
    Hallucination(),
    Hallucination("hallucination_novel", "novel"),
    Hallucination("hal_coco", "instances", whole_image=True),
    Hallucination("hal_ade", "hal_ade", whole_image=True),
    Hallucination(
      "hal_act", "hal_act", whole_image=True, wording=prompts.PRESENCE_VIDEO[0]
    ),
    Spatial(),
    Spatial("spatial_pair", rule="pair"),
    Spatial("spatial_paper", per_image=None, whole_image=True),
    Spatial(
      "spatial_disjoint", rule="disjoint", per_image=None, whole_image=True
    ),
    Spatial("spatial_trained", rule="pair", wordings=prompts.SPATIAL_TRAINED),
    Spatial(
      "spatial_trained_disjoint",
      rule="disjoint",
      per_image=None,
      wordings=prompts.SPATIAL_TRAINED,
    ),
    SpatialByReleasedScript(),
    Vqa(),
    Vqa("video_vqa", "video_conversations"),
    Pointing(),
    Counting(),
    Detection(),
    Detection("detect_several", together=3),
    Detection("detect_coco", absent=None),
    *(Region(f"rd_{split}", split) for split in DESCRIBED),
    *(Rec(f"rec_{split}", split) for split in REFERRED),
    *(Pope(f"pope_{kind}") for kind in ("random", "popular", "adversarial")),
    Vqav2("vqav2"),
    Gqa("gqa"),
    OpenQuestions("activitynet_qa"),
    OpenQuestions("msvd_qa"),
    OpenQuestions("msrvtt_qa"),
    OpenQuestions("tgif_qa"),
  )
}
