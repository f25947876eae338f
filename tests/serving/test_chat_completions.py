"""What OpenAI's clients send and get, from a live server."""

import json

import pytest
import served
from served import CHAT, uri

pytest.importorskip("starlette", reason="the extra [serve] is not installed")


@pytest.fixture(scope="module")
def client():
  with served.running(examples=[("1.png", b"png")]) as client:
    yield client


def test_an_answer_has_the_fields_of_openais(client):
  status, found = client.ask("one two three")
  assert status == 200 and found["object"] == "chat.completion"
  (choice,) = found["choices"]
  assert choice["message"]["content"] == "one two three"
  assert choice["message"]["role"] == "assistant"
  assert choice["finish_reason"] == "stop" and choice["logprobs"] is None
  assert found["usage"] == {
    "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6
  }  # fmt: skip


def test_limits_on_tokens_and_stops_end_an_answer(client):
  _, found = client.ask("one two three", max_tokens=2)
  choice = found["choices"][0]
  assert choice["message"]["content"] == "one two"
  assert choice["finish_reason"] == "length"
  _, found = client.ask("one two three", stop=["tw"], max_completion_tokens=3)
  choice = found["choices"][0]
  assert choice["message"]["content"] == "one"
  assert choice["finish_reason"] == "stop"


def test_several_pictures_and_turns_reach_the_model(client):
  messages = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [
      {"type": "image_url", "image_url": {"url": uri(color="red")}},
      {"type": "text", "text": "and this"}]},
    {"role": "assistant", "content": "a ball"},
    {"role": "user", "content": [
      {"type": "text", "text": "now this"},
      {"type": "image_url", "image_url": {"url": uri(color="blue")}}]},
  ]  # fmt: skip
  body = json.dumps({"model": "rules", "messages": messages})
  assert client.send("POST", CHAT, body)[0] == 200
  (row,) = client.rules.batches[-1]
  assert row.question.history == (("be brief\nand this", "a ball"),)
  assert row.question.question == "now this"
  red, blue = row.question.pictures
  assert red.size == (96, 96) and red.getpixel((48, 48)) == (255, 0, 0)
  assert blue.getpixel((48, 48)) == (0, 0, 255)


def test_sampling_is_passed_on_and_choices_differ_by_their_key(client):
  _, found = client.ask("one", temperature=0.7, top_p=0.9, seed=5, n=2)
  assert [c["index"] for c in found["choices"]] == [0, 1]
  rows = [row for batch in client.rules.batches[-2:] for row in batch][-2:]
  assert {row.question.id for row in rows} == {"0", "1"}
  assert {(r.temperature, r.top_p, r.seed) for r in rows} == {(0.7, 0.9, 5)}
  seeds = [client.ask("one", temperature=1)[1]["choices"] for _ in range(2)]
  first, second = [c[0]["message"]["content"] for c in seeds]
  assert first != second


def test_log_probabilities_come_with_their_tokens(client):
  _, found = client.ask("one two", logprobs=True, top_logprobs=2, seed=1)
  tokens = found["choices"][0]["logprobs"]["content"]
  assert [t["token"] for t in tokens][:2] == ["one", "two"]
  assert tokens[0]["logprob"] == -0.5
  assert tokens[0]["bytes"] == list(b"one")
  assert len(tokens[0]["top_logprobs"]) == 2


def test_a_stream_grows_into_the_answer_and_ends_with_its_counts(client):
  chunks = client.events(
    "one two three", stream_options={"include_usage": True}
  )
  assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
  *parts, end = chunks
  deltas = [c["choices"][0]["delta"] for c in parts]
  assert deltas[0]["role"] == "assistant"
  texts = [d.get("content", "") for d in deltas]
  assert "".join(texts) == "one two three"
  assert parts[-1]["choices"][0]["finish_reason"] == "stop"
  assert all(c["usage"] is None for c in parts)
  assert end["choices"] == [] and end["usage"]["completion_tokens"] == 3


def test_a_stream_holds_back_what_may_still_change(client):
  _, whole = client.ask("at [1, 2, 3, 4] end of it", stop=["of it"])
  chunks = client.events("at [1, 2, 3, 4] end of it", stop=["of it"])
  texts = [
    c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]
  ]
  assert "".join(texts) == whole["choices"][0]["message"]["content"]
  assert not any("[" in text and "]" not in text for text in texts)


@pytest.mark.parametrize(
  "kind, asked, native, box",
  [
    ("pixels", "[10,5,30,15]", "[24,36,72,60]", [10, 5, 30, 15]),
    ("0-1", "[0.25,0.25,0.75,0.75]", "[24,36,72,60]", [0.25, 0.25, 0.75, 0.75]),
    ("0-999", "[250,250,749,749]", "[24,36,71,59]", [250, 250, 749, 749]),
  ],
)
def test_boxes_are_counted_as_the_client_counts(
  client, kind, asked, native, box
):
  """In a wide picture that the model sees padded: its rows are 24 to 72."""
  found = client.ask(uri(), f"what is at {asked}", locations=kind)[1]
  (row,) = client.rules.batches[-1]
  assert row.question.question == f"what is at {native}"
  message = found["choices"][0]["message"]
  (listed,) = message["boxes"]
  wide = 999 if kind == "0-999" else 40 if kind == "pixels" else 1
  assert listed["box"] == pytest.approx(box, abs=0.02 * wide)


def test_a_located_answer_has_a_box_with_a_label(client):
  status, found = client.ask(
    uri(), "Where is the red cup?", constrained=True, locations="pixels",
    **{"as": "json"},
  )  # fmt: skip
  assert status == 200
  content = json.loads(found["choices"][0]["message"]["content"])
  (box,) = content["boxes"]
  assert box["label"] == "red cup" and box["score"] is None
  assert box["box"][0] == pytest.approx(10.2, abs=0.1)
  assert content["answer"].startswith("It is at [10.2,")


def test_every_object_is_listed_with_its_own_label_and_score(client):
  status, found = client.ask(
    uri(), "Find every cup, plate.", constrained=True, locations="pixels"
  )
  message = found["choices"][0]["message"]
  (row,) = client.rules.batches[-1]
  assert status == 200 and row.question.listed == ("cup", "plate")
  first, second = message["boxes"]
  assert first["label"] == second["label"] == "cup"
  assert first["box"] == pytest.approx([10.2, 0.2, 29.8, 19.8], abs=0.1)
  assert second["box"][0] == pytest.approx(20.2, abs=0.1)
  assert (first["score"], second["score"]) == (0.25, 0.75)
  numbers = ",".join(f"{n:.1f}" for n in first["box"])
  assert message["content"].startswith(f"cup [{numbers}] [20.2,")
  assert message["content"].endswith("]. no plate.")


def test_a_stream_of_lists_grows_by_categories(client):
  chunks = client.events("Find every cup, plate.", constrained=True)
  deltas = [c["choices"][0]["delta"] for c in chunks]
  texts = [d["content"] for d in deltas if d.get("content")]
  assert texts == ["cup [24,24,71,71] [48,24,71,71].", " no plate."]
  assert len(deltas[-1]["boxes"]) == 2


@pytest.mark.parametrize("text", ["", "Find every plate."])
def test_what_is_not_there_is_an_empty_list(client, text):
  asked = text or "You are a detector.\nFind all of these: the plate."
  _, found = client.ask(asked, constrained=True, **{"as": "json"})
  content = json.loads(found["choices"][0]["message"]["content"])
  assert content == {"answer": "no plate.", "boxes": []}


def test_free_answers_with_several_boxes_are_translated_as_a_whole(client):
  asked = "the red cup [10,5,30,15] and a plate (20, 5, 30, 15)"
  _, found = client.ask(uri(), asked, locations="pixels", **{"as": "json"})
  (row,) = client.rules.batches[-1]
  native = "the red cup [24,36,72,60] and a plate [48,36,72,60]"
  assert row.question.question == native
  content = json.loads(found["choices"][0]["message"]["content"])
  cup, plate = content["boxes"]
  assert (cup["label"], plate["label"]) == ("red cup", "plate")
  assert cup["box"] == pytest.approx([10, 5, 30, 15], abs=0.5)
  assert plate["box"] == pytest.approx([20, 5, 30, 15], abs=0.5)
  assert "[24," not in content["answer"] and content["answer"].count("[") == 2


def test_a_turn_after_an_empty_box_is_answered(client):
  """The model may write one; its own answer is no reason to refuse."""
  said = "It is at [5.0,5.0,5.0,5.0] or [39.9,30.0,50.0,30.0]."
  messages = [
    {"role": "user", "content": [
      {"type": "image_url", "image_url": {"url": uri()}},
      {"type": "text", "text": "where"}]},
    {"role": "assistant", "content": said},
    {"role": "user", "content": "and now"},
  ]  # fmt: skip
  fields = {"model": "rules", "messages": messages, "locations": "pixels"}
  assert client.send("POST", CHAT, json.dumps(fields))[0] == 200
  ((_, answer),) = client.rules.batches[-1][0].question.history
  assert answer == "It is at [12,36,12,36] or [95,95,95,95]."


def test_a_free_answer_that_lists_calls_every_box_by_its_category(client):
  client.rules.answers["Find every cup, red ball."] = (
    "cup [24,24,71,71] [48,24,71,71]. no plate. red ball [1,24,5,71]."
  )
  limits = {"max_tokens": 12}
  _, found = client.ask("Find every cup, red ball.", **limits)
  boxes = found["choices"][0]["message"]["boxes"]
  assert [b["label"] for b in boxes] == ["cup", "cup", "red ball"]
  assert {b["score"] for b in boxes} == {None}
  client.rules.answers["Find every cup."] = "It is at [24,24,71,71]."
  _, found = client.ask("Find every cup.", **limits)
  assert found["choices"][0]["message"]["boxes"][0]["label"] == "cup"


def test_the_model_is_listed_and_health_is_told(client):
  _, _, found = client.send("GET", "/v1/models")
  (model,) = json.loads(found)["data"]
  assert model["id"] == "rules" and model["object"] == "model"
  assert json.loads(client.send("GET", "/v1/models/rules")[2]) == model
  assert json.loads(client.send("GET", "/health")[2])["status"] == "ok"
  described = json.loads(client.send("GET", "/openapi.json")[2])
  assert CHAT in described["paths"]


def test_a_picture_is_shown_as_the_model_sees_it(client):
  body = json.dumps({"url": uri()})
  status, headers, png = client.send("POST", "/view", body)
  assert status == 200 and headers["content-type"] == "image/png"
  assert png.startswith(b"\x89PNG")


def test_the_page_is_there_and_takes_nothing_from_elsewhere(client):
  status, headers, page = client.send("GET", "/")
  assert status == 200 and headers["content-type"].startswith("text/html")
  assert "default-src 'self'" in headers["content-security-policy"]
  for path in ("/page/app.js", "/page/style.css", "/examples/1.png"):
    assert client.send("GET", path)[0] == 200
  assert json.loads(client.send("GET", "/examples")[2]) == ["1.png"]
