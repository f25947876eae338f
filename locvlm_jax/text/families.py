"""How benchmarks are put to models of different families.

A model answers best in the words that it was trained with, so that the
baselines of the paper's Tables 5 and 8 to 10 are asked in their own:
`eval.prompts` names the family. Where the words are not the paper's:

  plain     questions as they are: of models, such as the micro models, whose
            data has no "Answer the question using a single word or phrase."
  llava15   haotian-liu/LLaVA:docs/Evaluation.md, and the questions about
            regions of its mix665k
  kosmos2   microsoft/unilm:kosmos-2/README.md, whose region description the
            paper follows (Section 4.6): sentences that the model goes on with.
            Locations stay in the model's own form, since Kosmos-2's are tokens
            that no other vocabulary has
"""

import dataclasses

from locvlm_jax.text import prompts
from locvlm_jax.text.coords import Coords


@dataclasses.dataclass(frozen=True)
class Family:
  """The wordings of one family of models.

  Attributes:
    name: what `eval.prompts` calls it.
    short: of questions that want a word or a phrase (GQA, VQAv2).
    yes_no: of questions whether something is there (POPE, Hal-COCO).
    describe: asks what is at {loc}; for boxes and points.
    locate: asks where {text} or {obj} is; for boxes and points.
    form: how its locations are written; "": as `config.coords` says.
    geometry: what its locations are fractions of; "": as `config.geometry`.
  """

  name: str
  short: str
  yes_no: str
  describe: dict[str, str]
  locate: dict[str, str]
  form: str = ""
  geometry: str = ""

  def coords(self, own: Coords) -> Coords:
    """Returns how locations are written, `own` being the model's."""
    return Coords(self.form, location="box") if self.form else own


def _both(template: str) -> dict[str, str]:
  return {"box": template, "point": template}


LOCVLM = Family(
  "locvlm",
  short="{text}" + prompts.SHORT_ANSWER,
  yes_no="{text}",
  describe={kind: texts[0] for kind, texts in prompts.REV_LOC.items()},
  locate={kind: texts[0] for kind, texts in prompts.LOC_PRED.items()},
)
PLAIN = dataclasses.replace(LOCVLM, name="plain", short="{text}")
LLAVA15 = Family(
  "llava15",
  short="{text}" + prompts.SHORT_ANSWER,
  yes_no="{text}" + prompts.SHORT_ANSWER,
  describe=_both("Please provide a short description for this region: {loc}."),
  locate=_both(
    "Please provide the bounding box coordinate of the region this sentence"
    " describes: {text}."
  ),
  form="llava15",
  geometry="pad",
)
KOSMOS2 = Family(
  "kosmos2",
  short="Question: {text} Answer:",
  yes_no="Question: {text} Answer:",
  describe=_both("It {loc} is"),
  locate=_both("{text}"),
)
FAMILIES = {f.name: f for f in (LOCVLM, PLAIN, LLAVA15, KOSMOS2)}
