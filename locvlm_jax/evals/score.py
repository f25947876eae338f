"""Scores any model's answers: `python -m locvlm_jax.evals.score`.

  --task vqav2 --references QUESTIONS --answers ANNOTATIONS --predictions FILE
  --task rd_refcocog_val --references refcocog_val.json --predictions FILE
  --task spatial --predictions runs/b2/predictions.jsonl

Prints json. Predictions are json lines or a json list of rows with an id
(question_id, questionId or id) and a text (text, answer, prediction or pred):
LLaVA's answer files, and the upload formats of VQA and GQA. POPE's, which have
no id, are taken in the order of the questions. `evaluate` writes its questions
beside its answers, so that its own file needs no references.

--upload OUT writes what the benchmark's server takes; of detect COCO's results
file or, where OUT ends in "/", a folder of YOLO's labels with scores.
--judge_url and --judge_model let a language model judge open answers, over
OpenAI's interface, --judge_protocol video_chatgpt as the paper's predecessor
does. Its verdicts are written as they come, and the same command goes on after
an interruption.
"""

import json

from absl import flags

from locvlm_jax import command

_TASK = flags.DEFINE_string(
  "task", None, "The name of a task of evaluate; a wrong one is answered with"
  " the list of all.",
)  # fmt: skip
_PREDICTIONS = flags.DEFINE_string("predictions", None, "The answers.")
_REFERENCES = flags.DEFINE_string(
  "references", "", "The benchmark's questions, or expressions."
)
_ANSWERS = flags.DEFINE_string(
  "answers", "", "The benchmark's answers, where they stand apart; of GQA the"
  " valid and plausible ones.",
)  # fmt: skip
_UPLOAD = flags.DEFINE_string(
  "upload", "", "A file to write for the benchmark's server."
)
_JUDGE_URL = flags.DEFINE_string(
  "judge_url", "", "The address of a service with /chat/completions."
)
_JUDGE_MODEL = flags.DEFINE_string(
  "judge_model", "", "The model of that service."
)
_JUDGE_PROTOCOL = flags.DEFINE_enum(
  "judge_protocol", "locvlm", ["locvlm", "video_chatgpt"], "How it is asked."
)
_JUDGE_REQUESTS = flags.DEFINE_integer(
  "judge_requests", 8, "How many answers it is asked about at once.", 1
)
_VERDICTS = flags.DEFINE_string(
  "verdicts", "", "The file of its verdicts; by default beside the predictions."
)


def main(argv: list[str]) -> None:
  """Prints the scores."""
  del argv
  from locvlm_jax.evals import scoring

  request = scoring.Request(
    task=_TASK.value,
    predictions=_PREDICTIONS.value,
    references=_REFERENCES.value,
    answers=_ANSWERS.value,
    upload=_UPLOAD.value,
    judge_url=_JUDGE_URL.value,
    judge_model=_JUDGE_MODEL.value,
    judge_protocol=_JUDGE_PROTOCOL.value,
    judge_requests=_JUDGE_REQUESTS.value,
    verdicts=_VERDICTS.value,
  )
  print(json.dumps(scoring.score(request), indent=2))


if __name__ == "__main__":
  command.run(main, required=["task", "predictions"])
