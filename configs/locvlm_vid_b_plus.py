"""LocVLM-Vid-B+: adapter and LLM on videos of 8 frames (Section 3.5).

Besides Video-ChatGPT's conversations it is trained on LocPred, NegPred and
RevLoc about what stands still, from boxes over the frames (see
`data.sources.tracks`; `build_data --dataset localize_activitynet` writes the
same pairs). The paper gives no layout, schedule or mixture for it. Ours: 8
temporal and 256 spatial tokens, without padding
(`--config.video.temporal=100` pads to the 356 of Vid-B); the schedule of Vid-B;
half of the rows for either kind.

Set the fields of `configs/locvlm_vid_b.py`, and `--config.data.tracks`.
"""

from configs import base, locvlm_b, locvlm_vid_b, variants


def get_config(argument: str = ""):
  """LocVLM-Vid-B+; words: baseline, paper, paper_literal, tiny."""
  variant = base.words(argument, locvlm_vid_b.WORDS)
  c = locvlm_vid_b.stage3(locvlm_b.get_config())
  c.video.frames = 8
  c.data.mixture.update(video_conversations=0.5, tracks=0.5)
  if "baseline" in variant:  # Table 12, first row: without the objectives
    c.stage = "baseline"
    c.data.mixture.update(video_conversations=1.0, tracks=0.0)
  c = variants.paper_words(c, variant)
  return locvlm_vid_b.tiny(c) if "tiny" in variant else c
