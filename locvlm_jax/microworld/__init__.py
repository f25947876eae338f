"""The micro-world: a generator of small data sets in COCO's formats."""
