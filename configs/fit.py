"""Stage 2 on boxes of your own, as `python -m locvlm_jax.fit` runs it.

  fit.py:stage2,micro   from the committed base of the micro model (the default)
  fit.py:stage2,llava   from the Llava that `init.llava` names, whose shape,
                        tokenizer, coordinates and geometry are taken over
  lora                  trains updates of the LLM alone, and the adapter

All rows are of `data.instances`: the three objectives, and lists of all objects
(detect). Set `--config.data.instances` and `--config.eval.instances`.
"""

from configs import base, micro, variants

WORDS = ("stage2", "micro", "llava", "lora")


def get_config(argument: str = ""):
  """Stage 2 on boxes alone; its words are above, and tiny."""
  variant = base.words(argument, WORDS)
  c = base.get_config()
  c = llava(c) if "llava" in variant else micro_model(c)
  c.data.mixture.update(instances=1.0)
  c.data.per_object = True
  c.data.objectives.detect = 3.0
  # What is asked before and after; boxes get the IoU to expect.
  c.eval.tasks = ("locpred", "revloc", "hallucination", "detect")
  c.eval.constrained = True
  c = variants.lora(c) if "lora" in variant else c
  return variants.tiny(c) if "tiny" in variant else c


def micro_model(c):
  """The micro model from its base, mostly on LocPred as in its demo."""
  other = micro.get_config("stage2,demo")
  for name in ("tokenizer", "prompt_format", "geometry", "steps", "batch_size"):
    c[name] = other[name]
  c.init.llava = other.init.llava
  for name in ("model", "coords", "optim"):
    c[name].update(other[name])
  c.log_every, c.checkpoint_every = other.log_every, other.checkpoint_every
  c.data.objectives.update(other.data.objectives)
  for name in ("threads", "text_length", "sort_window", "max_pairs"):
    c.data[name] = other.data[name]
  c.eval.update(samples=other.eval.samples, batch_size=other.eval.batch_size)
  return c


def llava(c):
  """A Llava; a few hundred steps, as data sets of one's own are small."""
  c.batch_size = 32
  c.steps = 500
  c.checkpoint_every = 100
  return c
