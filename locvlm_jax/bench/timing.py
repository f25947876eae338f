"""Medians of rounds that take turns, so that a noisy machine is fair."""

import multiprocessing
import statistics
from collections.abc import Callable, Mapping
from typing import Any


def rounds(
  contestants: Mapping[str, Callable[[], float]], number: int
) -> dict[str, dict[str, float]]:
  """Rates of each contestant, called in turn `number` times.

  Args:
    contestants: name -> measures itself once and returns a rate.
    number: of rounds.

  Returns:
    By name: the median, lowest and highest rate.
  """
  rates = {name: [] for name in contestants}
  for _ in range(number):
    for name, measured in contestants.items():
      rates[name].append(measured())
  return {name: spread(r) for name, r in rates.items()}


def in_subprocess(function: Callable[..., Any], *arguments) -> Any:
  """What `function` returns in a process of its own.

  So that neither memory nor threads of one contestant are in another's way.

  Raises:
    ValueError: it failed; its error is on the terminal.
  """
  context = multiprocessing.get_context("spawn")
  receive, send = context.Pipe(duplex=False)
  child = context.Process(target=_send, args=(function, arguments, send))
  child.start()
  send.close()
  try:
    return receive.recv()
  except EOFError:
    raise ValueError(
      f"{function.__name__} failed; its error is above."
    ) from None
  finally:
    child.join()


def _send(function: Callable, arguments: tuple, send) -> None:
  send.send(function(*arguments))
  send.close()


def spread(values: list[float]) -> dict[str, float]:
  """The median, lowest and highest of `values`."""
  return {
    "median": statistics.median(values),
    "lowest": min(values),
    "highest": max(values),
  }
