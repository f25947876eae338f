"""Every field of a config, once, with LocVLM-B's values.

The other configs change what differs. A config's argument is a comma list of
words, as in `configs/micro.py:stage2,tiny`; `tiny` shrinks any config to a few
steps of a few rows that run on a laptop.
"""

import ml_collections

from configs import variants

# What `eval` has files of; the evaluations that ask about them.
BENCHMARKS = (
  "hal_ade",  # a folder of ADE20K; its images are beside the json files
  # A line {"video", "objects"} each, or YouTube-VIS's json.
  "hal_act",
  "pope_random", "pope_popular", "pope_adversarial",
  "vqav2", "gqa",
  "activitynet_qa", "msvd_qa", "msrvtt_qa", "tgif_qa",
  # refs(*).p with instances.json beside it, or json
  "refcoco_val", "refcoco_testA", "refcoco_testB",
  "refcocoplus_val", "refcocoplus_testA", "refcocoplus_testB",
  "refcocog_val", "refcocog_test",
)  # fmt: skip


def words(argument: str, allowed: tuple[str, ...]) -> set[str]:
  """The words of a config's argument.

  Raises:
    ValueError: a word that this config does not know.
  """
  found = {w for w in argument.split(",") if w}
  unknown = found - {*allowed, "tiny"}
  if unknown:
    raise ValueError(
      f"config argument {argument!r}: unknown {', '.join(sorted(unknown))}; "
      f"allowed: {', '.join((*allowed, 'tiny'))}."
    )
  return found


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  """All fields; LocVLM-B, stage 2, unless a config says otherwise."""
  variant = words(argument, ())
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.stage = "stage2"  # a name for logs and reports
  # What is trained: patterns for the beginning of a parameter's path.
  c.trainable = ("adapter", "llm")
  c.init = initial()
  c.lora = lora()
  c.model = model()
  c.tokenizer = ""  # directory with tokenizer.json
  c.prompt_format = "v1"
  c.coords = coordinates()
  c.geometry = "center_crop"  # center_crop | pad | square
  c.video = video()
  c.data = data()
  c.optim = optimizer()
  c.update(schedule())
  c.faults = faults()
  c.mesh = mesh()
  c.profile = profile()
  c.eval = evaluation()
  c.pseudo = pseudo()
  c.validation = validation()
  return variants.tiny(c) if "tiny" in variant else c


def initial() -> ml_collections.ConfigDict:
  """Where the parameters come from.

  `checkpoint` (the workdir of an earlier run) takes precedence over the others,
  which are directories in Hugging Face layout; llava may also be one of
  LLaVA's own, with the tower of `vision` and, if it has no LLM or a LoRA, the
  base of `llm`.
  """
  i = ml_collections.ConfigDict()
  i.vision = ""
  i.llm = ""
  i.llava = ""
  i.checkpoint = ""
  # Fields in which this stage differs from the checkpoint or llava that it
  # starts from, as ("geometry", "video"). Model, coords, geometry, format,
  # tokenizer and video are else taken from there; --override adds to it.
  i.override = ()
  # Parts of which parameters that none of them gives may start as random
  # numbers: vision, adapter, llm. A LoRA always may, and so may an adapter that
  # is trained alone, as in stage 1.
  i.random = ()
  return i


def lora() -> ml_collections.ConfigDict:
  """Low-rank updates of the LLM's kernels, in place of the kernels."""
  lo = ml_collections.ConfigDict()
  lo.rank = 0  # none
  lo.alpha = 16.0  # updates count alpha / rank
  lo.targets = ("q", "k", "v", "out", "gate", "up", "down")
  lo.dropout = 0.0  # share of the inputs of updates, while training
  return lo


def model() -> ml_collections.ConfigDict:
  """CLIP ViT-L/14 at 224 px, a linear adapter, LLaMA-7B (Section 3.1)."""
  m = ml_collections.ConfigDict()
  m.vision = ml_collections.ConfigDict()
  m.vision.image_size = 224
  m.vision.patch_size = 14
  m.vision.width = 1024
  m.vision.num_layers = 24
  m.vision.num_heads = 16
  m.vision.mlp_width = 4096
  m.vision.family = "clip"  # clip | siglip
  m.vision.activation = "quick_gelu"  # quick_gelu | gelu | gelu_pytorch_tanh
  m.vision.eps = 1e-5
  m.vision.feature_layer = -2  # -1: the last layer's output
  m.adapter = "linear"  # linear | mlp
  m.llm = ml_collections.ConfigDict()
  m.llm.vocab_size = 32_000
  m.llm.width = 4096
  m.llm.num_layers = 32
  m.llm.num_heads = 32
  m.llm.num_kv_heads = 32
  m.llm.head_dim = 128
  m.llm.mlp_width = 11_008
  m.llm.eps = 1e-6
  m.llm.theta = 10_000.0
  m.llm.max_positions = 2048
  m.llm.tie_embeddings = False  # the head is the embedding
  # Of the kernels of its layers: float (`dtype`), or quantized where they are
  # frozen, to 8 bits or 4 in blocks of 64: int8 | nf4.
  m.llm.base_weights = "float"
  m.llm.qkv_bias = False  # Qwen2's
  # How positions were stretched: default | linear | llama3.
  m.llm.rope_type = "default"
  m.llm.rope_factor = 1.0
  m.llm.rope_low_freq_factor = 1.0
  m.llm.rope_high_freq_factor = 4.0
  m.llm.rope_original_positions = 8192
  m.dtype = "bfloat16"  # of the computation
  # What the backward pass computes again: none | dots | full; and layers per
  # iteration of the scan. auto and 0: by the kind of device (models/layers.py).
  m.remat = "auto"
  m.unroll = 0
  # The kernel of training's attention. auto: cuDNN's on GPUs, else XLA's;
  # splash: the fused one of TPUs, for heads whose width is a multiple of 128.
  m.attention = "auto"  # auto | xla | splash
  return m


def coordinates() -> ml_collections.ConfigDict:
  """How a location is written (Section 3.2 of the paper)."""
  k = ml_collections.ConfigDict()
  k.form = "ivb"  # nfp | ivb | diga
  k.num_bins = 224
  k.location = "box"  # box | point
  k.fixed_width = False  # ivb with leading zeros: [028,038,052,076]
  return k


def video() -> ml_collections.ConfigDict:
  """Videos in place of images (Section 3.5); an image has a single frame."""
  v = ml_collections.ConfigDict()
  v.frames = 0  # of a video, at most; 0: the model takes images
  # Tokens of frames, those that a video hasn't being zeros; 0: as many as
  # frames. One for each patch follows.
  v.temporal = 0
  v.chunk = 4  # frames of each video that are in the ViT at a time
  # A folder that keeps what the frozen ViT makes of each video that is trained
  # on; empty: it is computed again whenever the video is seen.
  v.cache = ""
  return v


def data() -> ml_collections.ConfigDict:
  """Where training examples come from and what a row holds."""
  d = ml_collections.ConfigDict()
  # The folder that COCO's file names are relative to. Empty: where the format
  # of `instances` has its pictures.
  d.images = ""
  d.conversation_images = ""  # the same for LLaVA's
  # Boxes: the three objectives. COCO json, FOLDER:SPLIT of tensorflow_datasets,
  # as coco/2017/1.1.0:train, or YOLO, VOC and others, see docs/own_boxes.md.
  d.instances = ""
  # jsonl of captions by COCO's annotation id, in place of the categories of
  # `instances` in all three objectives.
  d.object_captions = ""
  d.captions = ""  # COCO captions
  # RefCOCO, RefCOCO+, RefCOCOg: refs(*).p with instances.json beside it, or
  # json; several files are separated by commas.
  d.refer = ""
  d.conversations = ""  # LLaVA conversations about images
  # What the boxes in their text, [0.12, 0.34, 0.5, 0.6], are fractions of. pad:
  # the padded square, as in LLaVA's mix665k; they are rewritten in the form and
  # geometry above. model: they are in these already. Empty: files that hold
  # such boxes are refused.
  d.conversation_boxes = ""
  d.text = ""  # LLaVA conversations without an image
  # LLaVA conversations of spatial questions about images: a source of their
  # own, so that their weight is the dose of spatial supervision.
  d.spatial = ""
  # Conversations about videos, as Video-ChatGPT publishes them, and the folder
  # that their videos are in.
  d.video_conversations = ""
  d.videos = ""
  # Boxes over the frames of videos there, in YouTube-VIS's format: the three
  # objectives about what stands still (data/sources/tracks.py says what does).
  d.tracks = ""
  # weight: a source's share of the rows is its weight, whatever its size.
  # epoch: an epoch has each of its records that many times, as LLaVA's mix665k.
  d.mix_by = "weight"
  d.mixture = ml_collections.ConfigDict()  # weight of each source
  d.mixture.instances = 1.0
  d.mixture.captions = 0.0
  d.mixture.refer = 0.0
  d.mixture.conversations = 0.0
  d.mixture.text = 0.0
  d.mixture.video_conversations = 0.0
  d.mixture.tracks = 0.0
  d.mixture.spatial = 0.0
  d.text_length = 192  # T: text tokens a row; no turn of 4 pairs is left out
  d.max_pairs = 4  # question-answer pairs of an image in a row; 1: single
  # An epoch of `instances` has an image once, or once for each object in it
  # that can be asked about.
  d.per_object = False
  d.objectives = ml_collections.ConfigDict()  # relative frequency
  d.objectives.loc_pred = 1.0
  d.objectives.neg_pred = 1.0
  d.objectives.rev_loc = 1.0
  # "Find every cup, plate." -> all boxes of up to three categories, or that
  # there is none; beyond the paper.
  d.objectives.detect = 0.0
  # Steps whose examples are sorted by length together, and padded to the next
  # multiple of 64 positions instead of all to the longest; 0: none.
  d.sort_window = 8
  d.pack = 1  # conversations of a row; attention stays within each
  # The objectives' questions about an image share it and do not see each other,
  # as if each had a row: so many text tokens each at most, text_length all
  # together; 0: a conversation, whose later turns see the earlier.
  d.tree = 0
  d.threads = 4
  # Files of evaluation sets (COCO, VQA, GQA, POPE, RefCOCO, LLaVA), or folders
  # of their pictures: what they name, or show, is not trained on.
  d.exclude = ()
  # Visual Genome's image_data.json, which says which of its images are COCO's.
  d.visual_genome = ""
  d.exclude_eval = True  # the files of `eval` too
  d.max_bad_share = 0.001  # of rows; more stops the run
  return d


def optimizer() -> ml_collections.ConfigDict:
  """The optimizer, and what the loss has beside cross-entropy."""
  o = ml_collections.ConfigDict()
  o.name = "adamw"  # adamw | muon
  o.lr = 2e-5
  o.adapter_lr = 0.0  # of the adapter; 0: as of all else
  # The paper prints a warm-up ratio of 0.3; LLaVA, which it follows, uses
  # 0.03. `paper_literal()` gives the former.
  o.warmup_ratio = 0.03
  o.weight_decay = 0.0
  o.b1 = 0.9
  o.b2 = 0.999
  o.eps = 1e-8
  o.clip_norm = 1.0
  # Beside cross-entropy, so many times the expected distance of coordinate
  # digits, in shares of the square (training/losses/digits.py); 0: none.
  o.digit_loss = 0.0
  # Of the first moment; bfloat16 saves 2 of 16 bytes a trained parameter.
  o.mu_dtype = "float32"
  # 8bit: both moments of adamw in blocks of 8-bit codes (arXiv:2110.02861);
  # 2 bytes a trained parameter in place of 8.
  o.moments = "float"  # float | 8bit
  # What trains and its gradients: float32; or bfloat16, where the optimizer
  # keeps the other 16 bits of a master (split) or updates are rounded at random
  # (stochastic): 8 bytes, 6 or 4 a trained parameter, the gradient's included.
  o.masters = "float32"  # float32 | split | stochastic
  return o


def schedule() -> ml_collections.ConfigDict:
  """Steps, batches and checkpoints: fields of the config itself."""
  c = ml_collections.ConfigDict()
  c.steps = 31_250  # 10 epochs of 200K at batch 64 (Section 4.1)
  c.batch_size = 64  # global
  c.accumulate = 1  # microbatches a step
  c.log_every = 10
  c.checkpoint_every = 1000
  c.checkpoint_keep = 2  # of the newest
  c.checkpoint_best = 0  # of the best by `checkpoint_metric`, besides
  c.checkpoint_metric = "loss"  # less is better; "-accuracy": more is
  c.checkpoint_pinned = ()  # steps that are saved and stay for good
  return c


def faults() -> ml_collections.ConfigDict:
  """When a run is stopped; 0 seconds: never."""
  f = ml_collections.ConfigDict()
  # A step whose loss or gradient is not finite is skipped; so many in a row
  # stop the run.
  f.max_skipped = 3
  f.spike_factor = 4.0  # of the median of the last losses; such a step is told
  # All processes end, with their stacks, when one of them
  f.start_seconds = 50  # has not come since the others began
  f.silent_seconds = 20  # gives no sign of life
  f.stall_seconds = 40  # waits for a batch, or for a step's result
  f.slow_seconds = 1800  # restores, compiles or saves
  return f


def mesh() -> ml_collections.ConfigDict:
  """Sizes of the mesh axes; -1: all devices that are left.

  If data and fsdp both are, the devices go to data where the LLM is small (up
  to 67 M parameters), else to fsdp.
  """
  s = ml_collections.ConfigDict()
  s.data = -1
  s.fsdp = -1
  s.tensor = 1
  return s


def profile() -> ml_collections.ConfigDict:
  """A trace for XProf and `locvlm_jax.profile`.

  From the first of two steps to the last, as in --config.profile.steps=10,15;
  empty: none.
  """
  p = ml_collections.ConfigDict()
  p.steps = ()
  p.hlo = False  # the compiled program beside it
  p.memory = False  # what lies in memory after the last of them
  return p


def evaluation() -> ml_collections.ConfigDict:
  """Held-out data and how answers are decoded (Section 4.1)."""
  e = ml_collections.ConfigDict()
  e.images = ""
  e.conversation_images = ""
  e.instances = ""  # COCO instances of the evaluation split
  e.novel = ""  # the same for categories that no objective was trained on
  e.conversations = ""
  e.spatial = ""
  e.videos = ""
  e.video_conversations = ""
  e.tracks = ""
  # Benchmarks as their authors publish them: the file of the questions, that
  # of the answers where it is another one, the folder of images or videos.
  for name in BENCHMARKS:
    e[name] = ml_collections.ConfigDict(
      {"questions": "", "answers": "", "media": ""}
    )
  # Of the questions; empty: as in training. Captions alone are trained in
  # "plain", which has no place for a question.
  e.prompt_format = ""
  # The family of models in whose words benchmarks are asked, and whose boxes
  # they hold: locvlm | plain | llava15 | kosmos2 (text/families.py).
  e.prompts = "locvlm"
  e.tasks = ("locpred", "revloc", "hallucination", "spatial")
  e.samples = 500  # questions a task; 0: all
  e.batch_size = 16
  # Of the pictures and videos that a task asks about: more that can't be used
  # stop it. Fewer are counted, and get empty answers.
  e.max_bad_share = 0.01
  e.max_new_tokens = 32
  # The same of single tasks, by name or pattern, as in ("*_qa=1024", "gqa=16");
  # the first that fits decides.
  e.max_new_tokens_of = ()
  e.temperature = 0.0  # 0: greedy
  e.top_k = 0  # sampled among so many of the likeliest; 0: among all
  e.top_p = 1.0  # sampled among the likeliest that together reach it
  e.stop = ()  # texts at which an answer is cut off
  # Questions whose answer is a location get one that can be read.
  e.constrained = False
  # Beginnings of such a location that are kept: 1 is greedy.
  e.beams = 1
  # Such a location is looked at again, in a window so many times as large as
  # the box; 0: once is enough. For small objects, at twice the cost.
  e.zoom = 0.0
  # Of a category, in lists that are decoded so: no more are listed.
  e.max_boxes = 20
  e.seed = 0  # of the questions and the sampling
  e.seeds = 1  # repetitions with seed, seed + 1, ...: mean and deviation
  # Fields in which a model is asked otherwise than it was trained; --override
  # adds to it.
  e.override = ()
  return e


def pseudo() -> ml_collections.ConfigDict:
  """Captions that the model after stage 1 makes for stage 2 (Section 3.4)."""
  p = ml_collections.ConfigDict()
  # What is asked about each object, and the caption that is made of the
  # answer's first sentence; empty: not asked. The wordings are ours.
  p.plain = (
    "Describe the {obj} in this image in one short phrase, without a verb.",
    "{answer}",
  )
  p.relational = (
    "Describe the {obj} in this image by where it is relative to other objects,"
    " in one short phrase that begins with the {obj}.",
    "{answer}",
  )
  # empty: no word; long: above max_words; unnamed: without a name of the
  # category ("a man" names a person), off because the paper keeps captions of
  # other objects; repeating: the same words three times in a row; ambiguous:
  # said of two objects of an image.
  p.filters = ("empty", "long", "repeating", "ambiguous")
  p.max_words = 20
  p.samples = 0  # questions; 0: all
  return p


def validation() -> ml_collections.ConfigDict:
  """What is measured on the data of `eval` while training goes on."""
  v = ml_collections.ConfigDict()
  v.every = 0  # steps; 0: never
  v.rows = 256  # of the mean loss; 0: none
  v.tasks = ()  # of `evaluate`
  v.samples = 64  # questions a task
  return v
