"""Medians of rounds that take turns, so that a noisy machine is fair."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def rounds(
  contestants: Mapping[str, Callable[[], float]], number: int
) -> dict[str, dict[str, float]]:
  """Measures each contestant in turn, `number` times.

  Args:
    contestants: {name: function that measures once and returns a rate}.
    number: of rounds.

  Returns:
    {name: median, lowest and highest rate}.
  """
  rates = {name: [] for name in contestants}
  for _ in range(number):
    for name, measure in contestants.items():
      rates[name].append(measure())
  return {name: spread(r) for name, r in rates.items()}


def per_step(
  step: Callable[[], None],
  wait: Callable[[], None],
  *,
  warmup: int,
  steps: int,
  rounds: int,
) -> list[float]:
  """Measures the seconds of a step, once in each round.

  Args:
    step: starts one step.
    wait: waits until all steps are done. It is called at the end of a round,
      not of a step, so that one step may be prepared while another runs.
    warmup: steps before the first round.
    steps: in a round.
    rounds: number of results.
  """
  for _ in range(warmup):
    step()
  wait()
  seconds = []
  for _ in range(rounds):
    began = time.perf_counter()
    for _ in range(steps):
      step()
    wait()
    seconds.append((time.perf_counter() - began) / steps)
  return seconds


def in_subprocess(function: Callable[..., Any], *arguments) -> Any:
  """Calls `function` in a new process and returns its result.

  Neither memory nor threads of one contestant then disturb another.

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
  """Sends the result of `function` through a pipe."""
  send.send(function(*arguments))
  send.close()


def spread(values: Sequence[float]) -> dict[str, float]:
  """Returns the median, lowest and highest of `values`."""
  return {
    "median": statistics.median(values),
    "lowest": min(values),
    "highest": max(values),
  }
