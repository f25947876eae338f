"""Which categories of a file are kinds of others."""

from collections.abc import Mapping

from locvlm_jax.data import reading


def related(
  content: object, names: Mapping[int, str], path: str
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
  """Reads which categories are kinds of others.

  Exports of Roboflow and others have "vehicle" among the categories, and as the
  "supercategory" of "car".

  Args:
    content: of a file in COCO's format.
    names: its categories, by id.
    path: for messages.

  Returns:
    ({category: those above and below it}, those that others are kinds of).
  """
  rows, own = reading.section(content, "categories", path), set(names.values())
  above = {
    row["name"]: row["supercategory"]
    for row in rows
    if isinstance(row.get("supercategory"), str)
    and row["supercategory"] in own - {row["name"]}
  }
  found = {name: set() for name in own}
  for name in above:
    for kind in _chain(name, above):
      found[name].add(kind)
      found[kind].add(name)
  broader = {kind for name in above for kind in _chain(name, above)}
  ordered = {name: tuple(sorted(others)) for name, others in found.items()}
  return ordered, tuple(sorted(broader))


def _chain(name: str, above: Mapping[str, str]) -> set[str]:
  """Follows what a category is a kind of, and so on."""
  found = set()
  while (name := above.get(name)) and name not in found:
    found.add(name)
  return found
