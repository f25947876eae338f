"""The micro model: LocVLM small enough to train on two CPU cores.

  micro.py:portraits the ViT from nothing on pictures of single objects and
                     their captions, read by a small decoder that is thrown
                     away later: with the next, CLIP's part in the paper
  micro.py:scenes    the same, further on pictures of several objects
  micro.py:captions  adapter + LLM from nothing, that ViT frozen, on captions:
                     an LLM that can name what it sees before it is asked
  micro.py:lookups   further on nothing but the color of the object named
  micro.py:base      further on captions, questions and text without
                     coordinates: the part of LLaMA's corpus and LLaVA's data
  micro.py:stage1    the base's adapter between frozen ViT and LLM, on captions
  micro.py:stage2    adapter + LLM on the three objectives and general data
  micro.py:baseline  the same steps as stage2 on the general data alone
  micro.py:reference stage 2 of the committed reference: more RevLoc, fewer
                     denials, more conversations
  micro.py:refine    that further, and more gently, with the ViT trained as well
  micro.py:reference_baseline, :refine_baseline
                     both on the general data alone
  micro.py:course    a short course of spatial questions about pictures, for any
                     of these models: init.checkpoint says which
  micro.py:vid_b     the reference's adapter on conversations about videos
  micro.py:vid_b_plus adapter + LLM on these and on what stands still in videos

`demo` shortens stage1 and stage2 to a few minutes. Set `--config.root` to a
micro-world (`python -m locvlm_jax.microworld`).
"""

import os

from configs import base, variants

# Relative, so that a run's config means the same in another clone.
BASE, REFERENCE = (
  os.path.relpath(
    os.path.join(
      os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
      "locvlm_jax", "assets", name,
    )
  )
  for name in ("micro_base", "micro_reference")
)  # fmt: skip
DIGIT_LOSS = 8.0
STAGES = (
  "portraits", "scenes", "captions", "lookups", "base",
  "stage1", "stage2", "baseline", "reference", "refine",
  "reference_baseline", "refine_baseline", "course", "vid_b", "vid_b_plus",
)  # fmt: skip


def get_config(argument: str = ""):
  """The micro model; its words are above, and demo and tiny."""
  variant = base.words(argument, (*STAGES, "demo"))
  stage = next((s for s in STAGES if s in variant), "stage2")
  c = common()
  c.stage = stage
  {
    "portraits": portraits,
    "scenes": scenes,
    "captions": captions,
    "lookups": lookups,
    "base": base_model,
    "stage1": stage1,
    "stage2": stage2,
    "baseline": baseline,
    "reference": reference,
    "refine": refine,
    "reference_baseline": reference_baseline,
    "refine_baseline": refine_baseline,
    "course": course,
    "vid_b": vid_b,
    "vid_b_plus": vid_b_plus,
  }[stage](c)
  c = demo(c) if "demo" in variant else c
  return variants.tiny(c) if "tiny" in variant else c


def common():
  """Model, data paths and schedule that all stages share."""
  c = base.get_config()
  c.root = "runs/microworld"
  c.tokenizer = BASE
  c.prompt_format = "bare"
  c.coords.num_bins = 96
  c.geometry = "square"
  c.model.vision.update(
    image_size=96,
    patch_size=12,
    width=128,
    num_layers=6,
    num_heads=4,
    mlp_width=512,
  )
  c.model.adapter = "mlp"
  c.model.llm.update(
    vocab_size=1024,
    width=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=4,
    head_dim=32,
    mlp_width=352,
    eps=1e-5,
  )
  c.model.dtype = "float32"
  c.model.remat = "none"
  c.model.unroll = 8
  # What conversations about the micro-world's pictures ask, too.
  c.pseudo.plain = ("What color is the {obj}?", "a {answer} {obj}")
  c.pseudo.relational = (
    "What is closest to the {obj}?",
    "the {obj} closest to {answer}",
  )
  data_paths(c)
  c.optim.update(lr=1e-3, b2=0.99)
  c.batch_size = 32
  c.log_every = 20
  c.checkpoint_every = 200
  c.data.threads = 1
  c.data.text_length = 64
  c.data.sort_window = 0  # a row is hardly longer than the next multiple
  c.data.max_pairs = 8
  return c


def data_paths(c):
  """Everything below `c.root`, as the generator lays it out."""
  root = c.get_ref("root")
  notes = root + "/annotations/"
  c.data.images = root + "/images/train"
  c.data.conversation_images = root + "/images"
  c.data.instances = notes + "instances_train.json"
  c.data.captions = notes + "captions_train.json"
  c.data.refer = notes + "refs_train.json"
  c.data.conversations = notes + "conversations_train.json"
  c.data.text = notes + "text_train.json"
  c.data.spatial = notes + "spatial_train.json"
  c.data.videos = root + "/videos"
  c.data.video_conversations = notes + "videos_train.json"
  c.data.tracks = notes + "videos_train.json"
  c.eval.images = root + "/images/val"
  c.eval.conversation_images = root + "/images"
  c.eval.instances = notes + "instances_val.json"
  c.eval.novel = notes + "instances_novel_val.json"
  c.eval.conversations = notes + "conversations_val.json"
  c.eval.spatial = notes + "spatial_val.json"
  c.eval.videos = root + "/videos"
  c.eval.video_conversations = notes + "videos_val.json"
  c.eval.tracks = notes + "videos_val.json"
  benchmarks(c.eval, root)
  c.eval.vqav2.questions = notes + "vqa_questions_val.json"
  c.eval.vqav2.answers = notes + "vqa_annotations_val.json"
  c.eval.hal_act.questions = notes + "videos_val.json"
  c.eval.hal_act.media = root + "/videos"
  c.eval.tasks = (
    "locpred",
    "revloc",
    "hallucination",
    "hallucination_novel",
    "spatial",
    "spatial_trained",
    "vqa",
  )
  c.eval.batch_size = 50
  # No question of the micro-world asks for a single word or phrase.
  c.eval.prompts = "plain"


def benchmarks(e, root):
  """The twins of the published benchmarks, in their formats.

  Each path is a sum of its own: fields that shared one would change together.
  """
  folder = root + "/benchmarks/"
  for name in (
    "pope_random",
    "pope_popular",
    "pope_adversarial",
    "gqa",
    "refcoco_testB",
    "refcocoplus_testB",
    "refcocog_val",
    "refcocog_test",
    "vqav2",
  ):
    e[name].questions = folder + name + ".json"
    e[name].media = root + "/images/val"
  for name, file in (
    ("activitynet_qa", "activitynet_q.json"),
    ("msvd_qa", "msvd.json"),
    ("msrvtt_qa", "msrvtt.csv"),
    ("tgif_qa", "tgif.csv"),
  ):
    e[name].questions = folder + file
    e[name].media = root + "/videos/val"
  e.activitynet_qa.answers = folder + "activitynet_a.json"
  e.hal_ade.questions = folder + "ade"


def portraits(c):
  """The ViT, by captioning pictures of a single object.

  A shape of any color on any background is learned late; from single objects
  sooner than from many, and by Muon sooner than by AdamW.
  """
  scenes(c)
  c.init.random = ("vision", "adapter", "llm")
  c.data.images = c.get_ref("root") + "/images/portraits"
  c.data.captions = c.get_ref("root") + "/annotations/captions_portraits.json"
  c.data.text_length = 16
  c.optim.weight_decay = 0.0  # not tried otherwise
  c.steps = 2500


def scenes(c):
  """The ViT, by captioning whole scenes; starts from `portraits`.

  A decoder of one layer can do little with what it is given, so that the ViT
  has to say plainly, patch by patch, what is where.
  """
  c.trainable = ("vision", "adapter", "llm")
  c.model.llm.update(num_layers=1, mlp_width=64)
  captions_alone(c)
  c.data.text_length = 40
  c.optim.name = "muon"
  # Without it the residual stream grows and drowns where a patch is.
  c.optim.weight_decay = 1.0
  # After 3,000 a linear probe names 71 % of the objects, after 7,000 85 %.
  c.steps = 7000


def captions(c):
  """The LLM's and the adapter's first steps; the ViT from `scenes`.

  Questions about a picture are a poor first lesson: most of their loss can be
  had without a look at any shape, and then no shape is learned.
  """
  c.init.random = ("adapter", "llm")
  captions_alone(c)
  c.data.text_length = 40
  c.optim.name = "muon"  # no decay: see `lookups`
  c.steps = 1500


def lookups(c):
  """What color is the ball? Finding the object that a word names.

  All localization begins with it, and it comes suddenly or not at all: not
  from captions or mixed questions, where it is a small part of the loss.
  """
  c.data.mixture.update(instances=0.0, conversations=1.0)
  c.data.conversations = c.get_ref("root") + "/annotations/lookups_train.json"
  c.data.text_length = 36
  # Without weight decay: under 0.5 the adapter forgot where its patches are,
  # since colors do not depend on it, and stage 2 had to learn that again.
  c.optim.name = "muon"
  c.optim.lr = 1.5e-3
  # Until the answers' tokens are right in 95 %: a base that begins before, at
  # 88 %, answers presence by chance whatever its steps (docs/micro_world.md).
  c.steps = 2000


def base_model(c):
  """General data without coordinates; from `lookups`."""
  c.data.mixture.update(
    instances=0.0, captions=0.2, conversations=0.6, text=0.2
  )
  c.data.text_length = 112  # most of a conversation's turns
  c.data.sort_window = 8  # captions are short beside conversations
  c.optim.name = "muon"  # no decay: see `lookups`
  c.optim.lr = 1.5e-3
  c.steps = 3000


def stage1(c):
  """The adapter alone, on captions; gently, for the base has one already."""
  from_base(c)
  c.trainable = ("adapter",)
  captions_alone(c)
  c.data.text_length = 40
  c.optim.lr = 1e-4
  c.steps = 100


def stage2(c):
  """Adapter + LLM on the objectives, mixed with the general data."""
  from_base(c)
  c.data.mixture.update(
    instances=0.65, conversations=0.15, text=0.1, spatial=0.1
  )
  c.data.per_object = True
  # Where it is asked for, a location is most of the answer and the last of the
  # three to be learned.
  c.data.objectives.loc_pred = 2.0
  c.data.text_length = 112
  c.optim.name = "muon"
  c.optim.lr = 3e-3
  # More boxes are found, and sooner, whatever the seed (docs/training.md).
  c.optim.digit_loss = DIGIT_LOSS
  c.steps = 10_000


def baseline(c):
  """Stage 2 without the three objectives; the same spatial questions."""
  stage2(c)
  c.data.mixture.update(
    instances=0.0, conversations=0.54, text=0.36, spatial=0.1
  )


def reference(c):
  """Stage 2 of the reference model, for the answers that are learned last."""
  stage2(c)
  c.data.mixture.update(
    instances=0.65, conversations=0.22, text=0.08, spatial=0.05
  )
  # Presence is learned long before what is in a box.
  c.data.objectives.update(neg_pred=0.5, rev_loc=1.5)
  c.steps = 7000


def refine(c):
  """The reference further, its ViT trained as well; from `reference`.

  A tower of captions tells roughly where an edge is; the paper's has 240 times
  the parameters, and stays frozen. At a higher rate, or before boxes are found,
  the ViT forgets what things are (docs/micro_world.md).
  """
  reference(c)
  c.trainable = ("vision", "adapter", "llm")
  c.optim.lr = 7e-4
  c.seed = 1  # other rows than those of the first steps
  c.steps = 4500


def reference_baseline(c):
  """The reference's steps without objectives; the same spatial questions."""
  reference(c)
  without_objectives(c)


def refine_baseline(c):
  """The same of `refine`; from `reference_baseline`."""
  refine(c)
  without_objectives(c)


def without_objectives(c):
  """General data in place of the three objectives."""
  c.data.mixture.update(
    instances=0.0, conversations=0.7, text=0.25, spatial=0.05
  )


def course(c):
  """Left or right, above or below? A few steps of nothing else.

  No objective and no coordinate is in it: who finds the objects learns to
  compare their places at once, who does not stays at chance.
  """
  stage2(c)
  c.data.mixture.update(instances=0.0, conversations=0.0, text=0.0, spatial=1.0)
  c.steps = 200
  c.checkpoint_every = 100
  c.validation.update(every=20, rows=0, tasks=("spatial_trained",), samples=300)
  c.eval.tasks = ("spatial_trained", "spatial_trained_disjoint", "spatial")


def vid_b(c):
  """Stage 3 of LocVLM-Vid-B: the adapter alone, all frames of a clip."""
  c.init.llava = REFERENCE
  c.init.override = ("video",)
  c.trainable = ("adapter",)
  c.video.frames = 16
  c.data.mixture.update(instances=0.0, video_conversations=1.0)
  c.data.text_length = 112
  c.optim.lr = 1e-3
  c.steps = 400
  c.eval.tasks = ("video_vqa", "hal_act")


def vid_b_plus(c):
  """Stage 3 of LocVLM-Vid-B+: adapter + LLM, 8 frames, the objectives too."""
  vid_b(c)
  c.optim.digit_loss = DIGIT_LOSS
  c.trainable = ("adapter", "llm")
  c.video.frames = 8
  c.data.mixture.update(video_conversations=0.5, tracks=0.5)


def captions_alone(c):
  """A picture and its caption, without a question."""
  c.eval.prompt_format = c.prompt_format
  c.prompt_format = "plain"
  c.data.mixture.update(instances=0.0, captions=1.0)


def from_base(c):
  """Starts from the committed base weights, in Hugging Face layout."""
  c.init.llava = BASE


def demo(c):
  """Minutes on two cores: mostly LocPred, which takes longest to learn."""
  c.steps = {"stage1": 30, "course": 100}.get(c.stage, 700)
  if c.stage != "course":  # the courses alone have questions in these wordings
    c.eval.tasks = tuple(t for t in c.eval.tasks if t != "spatial_trained")
  if c.stage == "stage2":
    c.data.mixture.update(
      instances=0.9, conversations=0.08, text=0.02, spatial=0.0
    )
    c.data.objectives.loc_pred = 4.0
  c.eval.samples = 300
  return c
