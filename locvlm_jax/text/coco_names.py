"""Other words for COCO's categories, as captions have them: ours.

What a caption of one such object may call it: "a man" names a person, "a table"
a dining table. A word that mostly means something else is not here: "a glass"
names no wine glass.
"""

import functools
import re

from locvlm_jax.text import english

_WORDS = """
person: man, woman, boy, girl, child, kid, baby, toddler, infant, lady, guy,
  gentleman, people, men, women, children, player, batter, pitcher, catcher,
  umpire, skier, snowboarder, skateboarder, surfer, skater, rider, cyclist,
  biker, motorcyclist, pedestrian, tourist, worker, chef, cook, officer,
  policeman, soldier, student, teacher, bride, groom, family, adult, teenager,
  male, female, passenger, driver, spectator, fan, mother, father, couple
bicycle: bike, cycle
car: automobile, sedan, taxi, cab, suv, minivan, vehicle
motorcycle: motorbike, moped, scooter, bike
airplane: plane, aeroplane, aircraft, jet, airliner, jetliner
bus: coach, minibus
train: locomotive, tram, trolley
truck: lorry, pickup, van
boat: ship, canoe, kayak, sailboat, ferry, yacht, rowboat
traffic light: stoplight, traffic signal, street light
fire hydrant: hydrant
stop sign: sign
parking meter: meter
bird: seagull, pigeon, duck, goose, parrot, owl, eagle, chicken, swan, gull
cat: kitten, kitty
dog: puppy, pup
horse: pony, foal, mare, stallion
sheep: lamb, ram, ewe
cow: cattle, bull, calf, ox
bear: cub
backpack: rucksack, knapsack
umbrella: parasol
handbag: purse, bag
tie: necktie, bow tie
suitcase: luggage, baggage, briefcase
frisbee: disc, disk
skis: ski
snowboard: board
sports ball: ball, baseball, football, soccer ball, basketball, tennis ball
baseball bat: bat
baseball glove: glove, mitt
skateboard: board
surfboard: board
tennis racket: racket, racquet
wine glass: wineglass, goblet
cup: mug
bowl: dish
sandwich: burger, hamburger, sub
hot dog: hotdog, sausage
donut: doughnut
cake: cupcake, dessert, pastry
chair: stool, armchair
couch: sofa, loveseat
potted plant: plant, houseplant
bed: mattress
dining table: table
toilet: urinal
tv: television, monitor, screen
laptop: computer, notebook
mouse: computer mouse
remote: controller, remote control
cell phone: phone, cellphone, mobile phone, smartphone
microwave: microwave oven
oven: stove
refrigerator: fridge
clock: watch
teddy bear: teddy, stuffed animal, stuffed bear
hair drier: hair dryer, blow dryer
"""


@functools.cache
def _others() -> dict[str, tuple[str, ...]]:
  found = {}
  for line in _WORDS.replace("\n ", "").strip().splitlines():
    name, _, words = line.partition(": ")
    found[name] = tuple(word.strip() for word in words.split(","))
  return found


def names(text: str, category: str) -> bool:
  """Tells whether `text` holds the category's name, or another word for it.

  In the singular or the plural, as whole words, whatever their case.

  >>> names("A man with two dogs", "person"), names("a manhole", "person")
  (True, False)
  """
  category = english.bare(category).casefold()
  known = [category, *_others().get(category, ())]
  words = {w for name in known for w in (name, english.plural(name))}
  either = "|".join(map(re.escape, sorted(words)))
  return bool(re.search(rf"(?<!\w)(?:{either})(?!\w)", text.casefold()))
