"""Every source keeps to the interface that its callers rely on."""

import os

import pytest

from configs import micro
from locvlm_jax.data import catalog
from locvlm_jax.data.exclude import exclusion
from locvlm_jax.data.records import Object, Record, Records, Source
from locvlm_jax.data.sources import coco

ALL = (*catalog.SOURCES, *catalog.BENCHMARKS)
# Splits of RefCOCO that the micro-world has no twin of.
ABSENT = {
  name
  for name in catalog.BENCHMARKS
  if name.startswith("refcoco")
  and name
  not in {"refcoco_testB", "refcocoplus_testB", "refcocog_val", "refcocog_test"}
}


@pytest.fixture(scope="module")
def config(microworld):
  c = micro.get_config("stage2")
  c.root = microworld(num_train=8, num_val=12, num_videos=5)
  return c


def opened(name: str, config) -> Source:
  trained_on = name in config.data and name not in catalog.BENCHMARKS
  return catalog.open_source(name, config.data if trained_on else config.eval)


def check(source: Source) -> None:
  """Holds a source to all that `Source` states."""
  assert isinstance(source, Source) and isinstance(source, Records)
  assert os.path.isdir(source.folder)
  assert isinstance(source.categories, tuple)
  assert len(set(source.categories)) == len(source.categories)
  assert all(type(count) is int for count in source.box_counts.values())
  assert all(type(count) is int for count in source.caption_counts.values())
  assert type(source.missing) is int and source.missing >= 0
  assert len(source) > 0 and len(source.image_ids()) == len(source)
  paths = [record.image for record in source]
  assert source.image_paths(range(len(source))) == paths
  captions = source.object_captions()
  assert captions.keys() <= set(source.categories)
  everything = frozenset(record.id for record in source)
  assert source.object_captions(everything) == {}
  for index in {0, len(source) - 1}:
    check_record(source[index], source)
  things = (thing for record in source for thing in record.objects)
  named = {thing.category for thing in things} & set(source.categories)
  assert bool(named) == bool(source.categories)


def check_record(record: Record, source: Source) -> None:
  assert isinstance(record, Record) and isinstance(record.id, str)
  if record.image is not None:
    folder = os.path.realpath(source.folder)
    assert os.path.realpath(record.image).startswith(folder + os.sep)
    assert os.path.exists(record.image)
  assert all(isinstance(thing, Object) for thing in record.objects)


@pytest.mark.parametrize("name", sorted(set(ALL) - ABSENT))
def test_every_source_of_the_catalog_keeps_to_the_interface(name, config):
  check(opened(name, config))


@pytest.mark.parametrize("name", sorted(catalog.SOURCES))
def test_every_source_that_is_trained_on_says_what_its_images_are(name):
  source, _ = catalog.SOURCES[name]
  assert source.image_ids is not Source.image_ids


def test_what_is_derived_from_a_source_keeps_to_the_interface_too(config):
  source = opened("instances", config)
  number = next(iter(source.annotations()))
  captioned = source.with_texts({number: ("a red cup",)}, {"used": 1})
  found = exclusion.Found({0: "tested.json", 1: "tested.json"})
  for derived in (
    source.per_object(),
    captioned,
    exclusion.WithoutExcluded(source, found),
    exclusion.WithoutExcluded(captioned.per_object(), found),
    exclusion.WithoutExcluded(opened("video_conversations", config), found),
  ):
    check(derived)
  kept = exclusion.WithoutExcluded(captioned, found)
  assert kept.caption_counts == {"used": 1}
  assert kept.categories == source.categories
  assert isinstance(source, coco.Instances)


def test_sources_are_mixed_in_the_order_of_the_catalog(config):
  """A config gives its fields in the order of the alphabet."""
  data = config.copy_and_resolve_references().data
  data.mixture.update(
    text=1.0, captions=1.0, instances=1.0, tracks=0.0, spatial=0.0
  )
  assert catalog.used(data) == [
    "instances",
    "captions",
    "conversations",
    "text",
  ]
  assert [*catalog.open_sources(data)] == catalog.used(data)
