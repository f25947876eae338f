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
  path.write_text(
    json.dumps(
      [
        {"id": "a", "image": "x/1.jpg", "conversations": turn},
        {"id": "a", "conversations": turn},  # LLaVA's files repeat ids
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
