"""Tasks that need each other, several at a time, each on its share of cores."""

import concurrent.futures
import graphlib
import os
import queue
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

Task = TypeVar("Task", bound=Hashable)
Cores = frozenset[int]


def run(
  tasks: Mapping[Task, Iterable[Task]],
  work: Callable[[Task, Cores], object],
  *,
  jobs: int = 1,
  after: Callable[[Task], object] = lambda task: None,
) -> None:
  """Does every task, each as soon as what it needs is done.

  Args:
    tasks: what each task needs; of those that may begin, the first does.
    work: does a task on the cores that it is given.
    jobs: tasks at a time; the cores are divided among them.
    after: is called after each task, one at a time.

  Raises:
    Exception: what a task raised. Tasks that had begun end first, so that
      nothing of theirs is lost.
  """
  graph = graphlib.TopologicalSorter(tasks)
  graph.prepare()
  order = {task: i for i, task in enumerate(tasks)}
  cores, ready, running = _shares(jobs), [], {}
  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    while graph.is_active():
      ready = sorted([*ready, *graph.get_ready()], key=order.get)
      while ready and len(running) < jobs:
        task = ready.pop(0)
        running[pool.submit(_on_its_cores, work, task, cores)] = task
      finished, _ = concurrent.futures.wait(
        running, return_when=concurrent.futures.FIRST_COMPLETED
      )
      for future in finished:
        future.result()  # raises what the task has raised
        graph.done(running[future])
        after(running.pop(future))


def all_cores() -> Cores:
  """Returns the cores that this process may run on."""
  if hasattr(os, "sched_getaffinity"):
    return frozenset(os.sched_getaffinity(0))
  return frozenset(range(os.cpu_count() or 1))


def pin(process_id: int, cores: Cores) -> None:
  """Keeps a process to its cores, where the system can (macOS cannot)."""
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(process_id, cores)


def _shares(jobs: int) -> queue.Queue:
  """Divides the cores of this machine among the jobs."""
  cores = sorted(all_cores())
  shares = queue.Queue()
  for job in range(jobs):
    shares.put(frozenset(cores[job::jobs] or cores))
  return shares


def _on_its_cores(work: Callable, task: Hashable, cores: queue.Queue) -> None:
  mine = cores.get()
  try:
    work(task, mine)
  finally:
    cores.put(mine)
