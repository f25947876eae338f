"""What the tests of layouts share."""

import make_goldens
import pytest
from toy_models import golden


@pytest.fixture
def llama_dir(tmp_path):
  """A Llama in Hugging Face's layout, which a test may damage."""
  return make_goldens.write(tmp_path / "llama", golden("llama"))
