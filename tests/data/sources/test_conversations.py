"""Files of conversations as sources: about images, videos and nothing."""

import json

import pytest
from clip_files import opened, turn

from locvlm_jax import errors
from locvlm_jax.data.sources import conversations


def test_conversations_are_read_with_and_without_an_image(tmp_path):
  path = tmp_path / "c.json"
  turn = [
    {"from": "human", "value": "<image>\nWhat?"},
    {"from": "gpt", "value": "A cup."},
  ]
  text = [turn[0] | {"value": "What?"}, turn[1]]
  path.write_text(
    json.dumps(
      [
        {"id": "a", "image": "x/1.jpg", "conversations": turn},
        {"id": "a", "conversations": text},  # LLaVA's files repeat ids
      ]
    )
  )
  source = conversations.Conversations(str(path), str(tmp_path))
  assert source[0].turns == (("What?", "A cup."),)
  assert source[0].image == str(tmp_path / "x" / "1.jpg")
  assert source[1].image is None and source[1].id == "a"


@pytest.mark.parametrize(
  "row, message",
  [
    ("text", "record 1: field 'conversations' is missing"),
    ({"id": 7}, "record 1: field 'conversations' is missing"),
    ({"conversations": [], "image": ["a.jpg"]}, "record 1: image .* no file"),
    ({"conversations": [{"from": "human", "value": "a"}]}, "wants pairs"),
    ({"conversations": []}, "wants pairs"),
    ({"conversations": {}}, "wants pairs"),
    ({"conversations": None}, "wants pairs"),
    ({"conversations": ["a", "b"]}, "message 0: field 'from' is missing"),
    (
      {
        "conversations": [
          {"from": "human", "value": "a"},
          {"from": "gpt", "value": None},
        ]
      },
      "message 1: None is no text",
    ),
    (
      {
        "conversations": [
          {"from": "gpt", "value": "a"},
          {"from": "human", "value": "a"},
        ]
      },
      "message 0 is not from 'human'",
    ),
    ({"image": "../a.jpg", "conversations": []}, "record 1: file name"),
  ],
)
def test_bad_conversations_name_file_and_record(row, message, tmp_path):
  good = {
    "conversations": [
      {"from": "human", "value": "a"},
      {"from": "gpt", "value": "b"},
    ]
  }
  path = tmp_path / "talk.json"
  path.write_text(json.dumps([good, row]))
  with pytest.raises(errors.DataError, match="talk.json: .*" + message):
    conversations.Conversations(str(path), str(tmp_path))


def test_video_chatgpts_files_are_read(tmp_path):
  (tmp_path / "v_1.mkv").write_bytes(b"")
  found = opened(
    tmp_path,
    [
      {"id": "a", "video": "v_1.pkl", "conversations": turn("What?\n<video>")},
      {"id": "b", "video": "x/2.gif", "conversations": turn("<video>\nWhat?")},
      {"video_id": "v_1", "q": "Who?", "a": "A cat."},
      {"video_id": "v_9", "q": "Who?", "a": "A cat."},
    ],
    conversations.Videos,
  )
  assert [r.image for r in found] == [
    str(tmp_path / n) for n in ("v_1.mkv", "x/2.gif", "v_1.mkv", "v_9")
  ]
  assert found[0].turns == found[1].turns == (("What?", "A dog."),)
  assert found[2].turns == (("Who?", "A cat."),) and found[2].id == "v_1"
  assert found.image_ids() == ["1", "2", "1", "9"]


@pytest.mark.parametrize(
  "row, message",
  [
    ({"conversations": []}, "record 0: field 'video' is missing"),
    ({"video": "../x.mp4", "conversations": []}, "leads outside"),
    ({"video": 7, "conversations": []}, "video 7 is no file name"),
    ({"video_id": "v", "q": "Who?"}, "message 1: None is no text"),
  ],
)
def test_bad_records_about_videos_are_named(row, message, tmp_path):
  with pytest.raises(errors.DataError, match=message):
    opened(tmp_path, [row], conversations.Videos)[0]


def test_a_missing_folder_is_named(tmp_path):
  with pytest.raises(errors.DataError, match="Set --config.data.videos"):
    conversations.Videos("x.json", str(tmp_path / "absent"))


def said(*texts):
  """A conversation of these messages, human and gpt in turn."""
  return [
    {"from": ("human", "gpt")[i % 2], "value": t} for i, t in enumerate(texts)
  ]


@pytest.mark.parametrize("nothing", ["", " \n", "<image>", "<image>\n "])
def test_a_turn_with_an_empty_answer_is_left_out_and_counted(nothing, tmp_path):
  rows = [
    {"conversations": said("a?", nothing, "b?", "c")},
    {"conversations": said("a?", nothing)},
  ]
  source = opened(tmp_path, rows, conversations.Conversations)
  assert [r.turns for r in source] == [(("b?", "c"),)]
  assert "2 turns with an empty answer, 1 records without" in repr(source)


def test_an_empty_answer_of_video_chatgpt_is_left_out(tmp_path):
  rows = [{"video_id": "v", "q": "Who?", "a": a} for a in ("", "A cat.")]
  source = opened(tmp_path, rows, conversations.Videos)
  assert len(source) == len(source.image_ids()) == 1
  assert source[0].turns == (("Who?", "A cat."),)


def test_a_file_of_empty_answers_is_refused(tmp_path):
  rows = [{"conversations": said("a?", "")}]
  with pytest.raises(errors.DataError, match="no record has a turn"):
    opened(tmp_path, rows, conversations.Conversations)


def test_messages_without_a_partner_are_left_out_as_llava_does(tmp_path):
  whole = said("a?", "b", "c?", "d")
  rows = [{"conversations": c} for c in (whole[1:], whole[:3], whole[1:3] * 2)]
  source = opened(tmp_path, rows[:2], conversations.Conversations)
  assert [r.turns for r in source] == [(("c?", "d"),), (("a?", "b"),)]
  assert "2 messages without a partner" in repr(source)
  source = opened(tmp_path, rows[2:], conversations.Conversations)
  assert source[0].turns == (("c?", "b"),)


def test_what_is_odd_in_sharegpts_files_is_left_out_and_counted(tmp_path):
  odd = [{"from": "system", "value": "Be brief."}, *said("a?", "b")]
  odd[1]["from"], odd[2]["from"] = "user", "chatgpt"
  rows = [{"conversations": c} for c in (odd, [], said("a") * 2, said("a", 1))]
  source = opened(tmp_path, rows, conversations.Text)
  assert [r.turns for r in source] == [(("a?", "b"),)]
  assert "3 malformed conversations" in repr(source)
  assert "record 1: wants pairs" in repr(source)


def test_the_first_box_in_the_text_about_an_image_is_found(tmp_path):
  box = said("Where?", "At [0.1, 0.2, 0.3, 0.4].")
  rows = [{"conversations": box}, {"image": "a.jpg", "conversations": box}]
  source = opened(tmp_path, rows, conversations.Conversations)
  assert source.boxed.endswith("clips.json: record 1")
  assert not opened(tmp_path, rows[:1], conversations.Conversations).boxed


@pytest.mark.parametrize(
  "keys, text",
  [
    ({"images": ["a.jpg"]}, "<image>\nWhat is it?"),
    ({"image_path": "a.jpg"}, "What is it?\n<image>"),
    ({}, "<image> What is it?"),
    ({"image": None}, "<image>\nWhat is it?"),
    ({"video": "a.mp4"}, "<video>\nWhat is it?"),
  ],
)
def test_a_picture_under_another_key_is_not_trained_on_as_text(
  keys, text, tmp_path
):
  rows = [
    {"id": "a", **keys, "conversations": [
      {"from": "human", "value": text}, {"from": "gpt", "value": "A bowl."}]}
  ]  # fmt: skip
  path = tmp_path / "c.json"
  path.write_text(json.dumps(rows))
  with pytest.raises(errors.DataError, match="record 0: its text has <.*'id'"):
    conversations.Conversations(str(path), str(tmp_path))
  with pytest.raises(errors.DataError, match="1 malformed conversations"):
    conversations.Text(str(path), "")


def test_a_word_in_angle_brackets_is_no_place_for_a_picture(tmp_path):
  """As in texts about HTML or RSS."""
  text = "Why does my feed have <image> in each item?"
  rows = [
    {"id": "a", "conversations": [
      {"from": "human", "value": text}, {"from": "gpt", "value": "RSS."}]}
  ]  # fmt: skip
  path = tmp_path / "c.json"
  path.write_text(json.dumps(rows))
  assert len(conversations.Text(str(path), "")) == 1


def test_of_two_videos_of_one_name_none_is_taken(tmp_path):
  for name in ("v_1.mp4", "v_1.mkv", "._v_2.mp4", "v_2.mp4"):
    (tmp_path / name).touch()
  turns = [
    {"from": "human", "value": "<video>\nWhat?"},
    {"from": "gpt", "value": "A dog."},
  ]
  rows = [{"video": f"v_{i}.pkl", "conversations": turns} for i in (1, 2)]
  (tmp_path / "c.json").write_text(json.dumps(rows))
  source = conversations.Videos(str(tmp_path / "c.json"), str(tmp_path))
  assert source[1].image.endswith("/v_2.mp4")
  with pytest.raises(errors.DataError, match="v_1.mkv or v_1.mp4"):
    source[0]
