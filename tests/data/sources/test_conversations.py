"""Files of conversations as sources: about images, videos and nothing."""

import json

import pytest

from locvlm_jax import errors
from locvlm_jax.data.sources import conversations


def test_conversations(tmp_path):
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
