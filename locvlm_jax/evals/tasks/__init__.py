"""The evaluation tasks, by the name that their metrics carry.

Every task has the interface of `task.Task`.
"""

from locvlm_jax.data.sources import refer
from locvlm_jax.evals.tasks.benchmark import BENCHMARKS
from locvlm_jax.evals.tasks.counting import Counting
from locvlm_jax.evals.tasks.hallucination import Hallucination
from locvlm_jax.evals.tasks.loc_pred import LocPred
from locvlm_jax.evals.tasks.pointing import Pointing
from locvlm_jax.evals.tasks.rec import Rec
from locvlm_jax.evals.tasks.region import Region
from locvlm_jax.evals.tasks.rev_loc import RevLoc
from locvlm_jax.evals.tasks.spatial import Spatial
from locvlm_jax.evals.tasks.spatial_released import ReleasedSpatial
from locvlm_jax.evals.tasks.vqa import Vqa
from locvlm_jax.text import prompts

# Of the sets of referring expressions, the splits of the paper's Table 10 and
# those that boxes are asked for.
DESCRIBED = (
  "refcoco_testB", "refcocoplus_testB", "refcocog_val", "refcocog_test",
)  # fmt: skip
REFERRED = tuple(
  f"{name}_{split}" for name, splits in refer.SPLITS.items() for split in splits
)

EVALS = {
  task.name: task
  for task in (
    LocPred(),
    RevLoc(),
    Hallucination(),
    Hallucination("hallucination_novel", "novel"),
    Hallucination("hal_coco", "instances", whole=True),
    Hallucination("hal_ade", "hal_ade", whole=True),
    Hallucination(
      "hal_act", "hal_act", whole=True, question=prompts.PRESENCE_VIDEO[0]
    ),
    Spatial(),
    Spatial("spatial_pair", rule="pair"),
    Spatial("spatial_paper", per_image=None, whole=True),
    ReleasedSpatial(),
    Vqa(),
    Vqa("video_vqa", "video_conversations"),
    Pointing(),
    Counting(),
    *(Region(f"rd_{s}", s) for s in DESCRIBED),
    *(Rec(f"rec_{s}", s) for s in REFERRED),
    *BENCHMARKS,
  )
}
