"""The evaluation tasks, by the name that their metrics carry.

Every task has the interface of `run.Task`.
"""

from locvlm_jax import prompts
from locvlm_jax.evals.hallucination import Hallucination
from locvlm_jax.evals.loc_pred import LocPred
from locvlm_jax.evals.rev_loc import RevLoc
from locvlm_jax.evals.spatial import Spatial
from locvlm_jax.evals.spatial_released import Released
from locvlm_jax.evals.vqa import Vqa

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
    Released(),
    Vqa(),
  )
}
