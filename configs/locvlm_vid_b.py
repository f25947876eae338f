"""LocVLM-Vid-B: LocVLM-B on videos of 100 frames, stage 3 (Section 3.5).

The adapter alone is trained, on the conversations of Video-ChatGPT, whose
schedule, sampling and 356 tokens a video these are
(mbzuai-oryx/Video-ChatGPT:docs/train_video_chatgpt.md). Ours: the video stands
before the first question, as an image does, with no token of its own around
it; frames are resized by PIL's bicubic filter. There are no objectives here:
the word `baseline` names the run that starts from the baseline of stage 2.

  python -m locvlm_jax.train --config configs/locvlm_vid_b.py --workdir DIR \\
    --config.init.checkpoint=STAGE2 --config.tokenizer=LLAMA_DIR \\
    --config.data.video_conversations=VideoInstruct100K.json \\
    --config.data.videos=activitynet/ --config.video.cache=features/
"""

from configs import base, locvlm_b, micro, variants

WORDS = ("baseline", *variants.PAPER_WORDS)


def get_config(argument: str = ""):
  """LocVLM-Vid-B; words: baseline, paper, paper_literal, tiny."""
  variant = base.words(argument, WORDS)
  c = stage3(locvlm_b.get_config())
  c.stage = "baseline" if "baseline" in variant else c.stage
  c.trainable = ("adapter",)
  # The frozen LLM fits on one GPU in bfloat16: no sharding needed.
  c.mesh.update(data=-1, fsdp=1)
  c = variants.paper_words(c, variant)
  return tiny(c) if "tiny" in variant else c


def stage3(c):
  """Videos of 100 frames, whole, and Video-ChatGPT's schedule."""
  c.stage = "stage3"
  c.video.frames = 100
  c.geometry = "square"
  c.init.override = ("geometry", "video")
  c.batch_size = 32
  c.steps = 3 * 100_000 // c.batch_size  # epochs of VideoInstruct100K
  c.data.mixture.update(instances=0.0, video_conversations=1.0)
  c.data.text_length = 512
  c.eval.tasks = (
    "activitynet_qa",
    "msrvtt_qa",
    "msvd_qa",
    "tgif_qa",
    "hal_act",
  )
  return c


def tiny(c):
  """`variants.tiny` with a tokenizer that is there, and a few frames."""
  c = variants.tiny(c)
  c.video.frames = min(c.video.frames, 6)
  c.tokenizer = micro.BASE
  c.prompt_format = c.eval.prompt_format = "bare"
  c.coords.num_bins = 32
  return c
