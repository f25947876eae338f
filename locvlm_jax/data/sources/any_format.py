"""Boxes in any format that is known, as a source."""

from locvlm_jax.data import reading
from locvlm_jax.data.cache import values
from locvlm_jax.data.formats import annotated, coco_json, recognize
from locvlm_jax.data.sources import coco, tfds_coco


class AnyInstances(coco.Instances):
  """Gives the same records of boxes in any format that is known.

  Args:
    path: COCO's json, a split of tensorflow_datasets, or what
      `locvlm_jax/data/formats/recognize.py` describes.
    images: the folder of the pictures; "": where the format has them.

  Raises:
    DataError: as `Instances`; or no format is recognized, or several.
  """

  def __init__(self, path: str, images: str):
    if tfds_coco.parse_split(path) and not recognize.claims(path):
      super().__init__(path, images)
      return
    if images:
      reading.check_directory(images)
    if recognize.is_known(path):
      self._take(path, recognize.read(path, images))
      return
    self.path, self.folder = path, images
    vars(self).update(values.make_once(path, "AnyInstances", self._read))
    self.folder = images or coco_json.folder(self._rows, path)
    self._order = list(range(len(self._rows)))

  @classmethod
  def of(cls, path: str, found: annotated.DataSet) -> "AnyInstances":
    """Makes a source of what `recognize.read` has found at a path."""
    source = cls.__new__(cls)
    source._take(path, found)
    return source

  def _take(self, path: str, found: annotated.DataSet) -> None:
    self.path, self.folder, self._told = path, found.folder, found.told
    self._index(found.content)
    reading.check_file_names(self._rows, self.folder, f"{path}: image")
    self._order = list(range(len(self._rows)))

  def _content(self) -> object:
    """Reads a json file, and puts it in order."""
    content = reading.read_json(self.path)
    content, self._told = coco_json.tidied(content, self.path)
    return content
