"""A language model as a judge of open answers."""

import pytest

from locvlm_jax.evals.scorers import judge


def test_a_judge_that_fails_is_an_error_that_names_it():
  nowhere = judge.Judge("http://localhost:1/v1", "m", timeout=1.0, wait=0.0)
  with pytest.raises(ValueError, match="judge m at http://localhost:1/v1"):
    nowhere("a", "b", "c")


@pytest.mark.parametrize(
  "reply", ["no idea", '{"match": true}', '{"match": true, "score": "x"}']
)
def test_a_reply_that_is_no_verdict_is_refused(reply):
  with pytest.raises(ValueError, match="is no verdict"):
    judge.read_match(reply)


def test_a_score_is_held_within_zero_and_five():
  assert judge.read_match('{"match": false, "score": 9}') == (False, 5.0)


@pytest.mark.parametrize(
  "reply, verdict",
  [
    ("{'pred': 'yes', 'score': 4.8}", (True, 4.0)),
    ("{'pred': 'No.', 'score': 0}", (False, 0.0)),
    (' {"pred": "yes", "score": "3"}\n', (True, 3.0)),
  ],
)
def test_replies_to_video_chatgpts_question_read_as_there(reply, verdict):
  assert judge.read_pred(reply) == verdict


@pytest.mark.parametrize(
  "reply",
  ["yes, 5", "{'pred': 'yes'}", "{'pred': 'maybe', 'score': 1}", "[" * 9999,
   "{'pred': 1, 'score': 1}", "{'pred': 'yes', 'score': '4.8'}", "['yes']"],
)  # fmt: skip
def test_other_replies_to_it_have_no_verdict(reply):
  with pytest.raises(ValueError, match="is no verdict"):
    judge.read_pred(reply)


def test_video_chatgpts_question_is_put_as_there():
  first, second = judge.VIDEO_CHATGPT.messages("who {x}?", "a {truth}", "him")
  assert first["role"] == "system"
  assert first["content"].startswith("You are an intelligent chatbot designed")
  text = second["content"]
  assert (
    "\n\nQuestion: who {x}?\nCorrect Answer: a {truth}\n"
    "Predicted Answer: him\n\nProvide your evaluation only as a yes/no" in text
  )
  assert text.endswith("like this: {'pred': 'yes', 'score': 4.8}.")
  assert "not STRING.DO NOT PROVIDE" in text
