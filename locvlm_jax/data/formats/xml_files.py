"""Reads xml that others wrote, without what can make a small file large.

Entities can be declared to stand for one another until a line stands for a
gigabyte, or for a file of this machine. Annotations declare none, so a file
with a document type is refused before it is parsed.
"""

from xml.etree import ElementTree

from locvlm_jax import files
from locvlm_jax.data import reading
from locvlm_jax.data.formats import annotated

_HEAD = 4096  # characters in which a root element begins


def read(path: str) -> ElementTree.Element:
  """Parses a file.

  Raises:
    DataError: the file is missing, is not xml, or declares a document type.
  """
  source = reading.read_text(path)
  if "<!DOCTYPE" in source.upper():
    annotated.refuse(
      path, "it declares a document type, which could hold entities; remove it."
    )
  try:
    return ElementTree.fromstring(source)
  except (ElementTree.ParseError, ValueError, RecursionError) as e:
    raise files.damaged(path, f"not valid xml ({e}).") from None


def root(path: str) -> str:
  """Names the root element of a file; "" where there is none to be seen."""
  try:
    with open(path, encoding="utf-8-sig", errors="replace") as f:
      head = f.read(_HEAD)
  except OSError:
    return ""
  for part in head.split("<")[1:]:
    if part[:1].isalpha():
      return part.replace(">", " ").replace("/", " ").split()[0]
  return ""


def child(element: ElementTree.Element, name: str, origin: str) -> str:
  """Reads the text of a child, as "xmin" or "size/width".

  Raises:
    DataError: there is none, or it is empty.
  """
  text = (element.findtext(name) or "").strip()
  if not text:
    annotated.refuse(origin, f"<{name}> is missing or empty.")
  return text


def attribute(element: ElementTree.Element, name: str, origin: str) -> str:
  """Reads an attribute.

  Raises:
    DataError: there is none.
  """
  if name not in element.attrib:
    annotated.refuse(origin, f"attribute {name!r} is missing.")
  return element.attrib[name]
