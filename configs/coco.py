"""LocVLM-B on COCO: one config from annotations to report.

  python -m locvlm_jax.train --config configs/coco.py:tiny --workdir DIR \\
    --config.data.instances=annotations/instances_train2017.json \\
    --config.data.images=train2017

The words are those of `configs/locvlm_b.py`; with `tiny` they run on a laptop
with the micro tokenizer and random weights.
"""

from configs import base, locvlm_b, micro


def get_config(argument: str = ""):
  """LocVLM-B on COCO; its words, and tiny."""
  c = locvlm_b.get_config(argument)
  if "tiny" in base.words(argument, locvlm_b.WORDS):
    c.tokenizer = micro.common().tokenizer
    c.prompt_format = c.eval.prompt_format = "bare"
    c.coords.num_bins = 32
    c.eval.tasks = ("locpred", "revloc", "hallucination")
    # One annotation file is enough to try the whole path; what is reported
    # is then measured on training images. Set --config.eval.* for a number:
    # these fields follow those of `data` one way, and only until they are set.
    c.eval.instances = c.data.get_oneway_ref("instances")
    c.eval.images = c.data.get_oneway_ref("images")
    c.data.exclude_eval = False
  return c
