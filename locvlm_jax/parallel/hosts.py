"""The processes of one run: how they meet, agree, and end together.

They find each other by the environment, which `launch/` sets (`environment`).
Where there is one process there is nothing to agree on. What several tell each
other goes through the coordinator's table of keys and values, not through the
devices: a device that waits for a dead process can't tell.
"""

import contextlib
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax._src import distributed  # the table of keys has no public name

from locvlm_jax import errors
from locvlm_jax.parallel import environment


def is_first() -> bool:
  """Says whether this process writes what all of them share."""
  return jax.process_index() == 0


def host_file(name: str) -> str:
  """Returns `name`; for all but the first process with its number in it."""
  stem, suffix = os.path.splitext(name)
  return name if is_first() else f"{stem}-{jax.process_index()}{suffix}"


_PERIOD = 1.0  # seconds between two beats
_SUSPENDED = 10.0  # a beat that comes so much too late: all was suspended
_QUICK = ("data", "step")  # phases that `stall_seconds` bounds


class Watch:
  """Ends the process, with all the others, when any of them gets stuck.

  A thread looks at how long the main one has been in its phase; another tells
  the coordinator that this process lives, and hears of the others. A fault
  prints what stands where, and the stacks of all threads. SIGTERM to any
  process stops all of them before the same step. A process that was suspended
  itself, as by Ctrl-Z or with its machine, counts anew from where it goes on.

  Args:
    limits: `config.faults`; 0 seconds: for ever.
  """

  def __init__(self, limits: Any):
    self._limits = limits
    self._host = socket.gethostname()
    self._index, self._count = 0, 1
    self._client = None
    self._where = ("start", 0, time.monotonic())  # phase, step, since when
    self._heard = time.monotonic()  # when the coordinator last answered
    self._verdict: errors.Fault | None = None
    self._signs: list[str] = []  # where each process was, as last heard
    self._places: dict[str, str] = {}  # of others, with the rows they have read
    self._rows: Callable[[], int] = int  # that this process has read so far
    self._moved = time.monotonic()  # when another process last got further
    self._woke = time.monotonic()  # when this one last went on
    self._over = threading.Event()
    self._asked, self._stop = False, None

  def __enter__(self):
    with contextlib.suppress(RuntimeError, OSError, ValueError):
      faulthandler.enable()  # where standard error is a file
    if threading.current_thread() is threading.main_thread():
      self._handler = signal.signal(signal.SIGTERM, self._ask)
    threading.Thread(target=self._look, daemon=True).start()
    return self

  def __exit__(self, kind, error, trace) -> None:
    ours = isinstance(error, Exception) and not isinstance(
      error, errors.Preempted
    )
    if ours and self._count > 1:
      self._end_with(error)
    self._over.set()
    if threading.current_thread() is threading.main_thread():
      signal.signal(signal.SIGTERM, self._handler)

  def enter(self, step: int, phase: str) -> None:
    """Tells what the main thread begins to do."""
    self._where = (phase, step, time.monotonic())

  def attend(self, rows: Callable[[], int]) -> None:
    """Lets a wait for data last as long as rows are being read.

    A batch of videos can take minutes, which is no stall.

    Args:
      rows: counts those that are read so far.
    """
    self._rows = rows

  # ------------------------------------------------------------- beginning

  def connect(self) -> None:
    """Waits for the other processes; before anything asks for a device.

    Raises:
      ValueError: a variable of the environment is missing or wrong.
    """
    own = environment.processes(os.environ)
    if own.count == 1:
      return
    # Its SIGTERM is ours: Orbax asks that service too, out of turn.
    jax.config.update("jax_enable_preemption_service", False)
    patience = int(self._limits.start_seconds)
    which = {}
    if own.count:
      which = {
        "coordinator_address": own.coordinator,
        "num_processes": own.count,
        "process_id": own.index,
        # Slurm's would give each process one device.
        "cluster_detection_method": "deactivate",
      }
      self._index, self._count = own.index, own.count
    # The limits here are better told than JAX's, which only abort.
    jax.distributed.initialize(
      **which,
      initialization_timeout=patience + 60,
      heartbeat_timeout_seconds=100,
      shutdown_timeout_seconds=60,
    )
    self._index = distributed.global_state.process_id
    self._count = distributed.global_state.num_processes
    self._heard = time.monotonic()
    self._client = distributed.global_state.client
    threading.Thread(target=self._exchange, daemon=True).start()

  def compare(self, what: str, facts: Mapping[str, object]) -> None:
    """Compares `facts` between the processes.

    Args:
      what: a name of this comparison, used once.
      facts: what json can hold; the same keys and values everywhere.

    Raises:
      Mismatch: names the fact, the processes and both values.
    """
    if self._client is None:
      return
    mine = json.dumps({"host": self._host, "facts": dict(facts)})
    self._client.key_value_set(f"locvlm/{what}/{self._index}", mine)
    patience = 1000 * int(self._limits.slow_seconds or 10**6)
    self._client.wait_at_barrier(f"locvlm/{what}", patience)
    told = {
      int(key.rsplit("/", 1)[1]): json.loads(value)
      for key, value in self._client.key_value_dir_get(f"locvlm/{what}")
    }
    first = told[0]["facts"]
    for index, other in sorted(told.items()):
      if differing := _differing(first, other["facts"]):
        raise errors.Mismatch(
          f"process {index} on {other['host']} differs from process 0 on "
          f"{told[0]['host']} in {differing}. All have to run the same "
          "command, program and data."
        )

  # ---------------------------------------------------------------- ending

  def stop_requested(self, step: int) -> bool:
    """Says whether a SIGTERM to any process ends the run before `step`.

    Call it once before each step, having waited for the step before the
    last: no process can then be further than the step that is agreed on.

      a process is asked before step   s
      it names                         s + 2, and goes on with s
      another reaches s + 2            when s is done, thus after the naming
    """
    if self._client is None:
      return self._asked
    if self._stop is None and self._asked:
      with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was first
        self._client.key_value_set("locvlm/stop/before", str(step + 2))
    if self._stop is None:
      for _, value in self._client.key_value_dir_get("locvlm/stop"):
        self._stop = int(value)
    return self._stop is not None and step >= self._stop

  def _ask(self, number, frame) -> None:
    self._asked = True

  def _end_with(self, error: Exception) -> None:
    """Tells the others why this process ends, and ends."""
    if _from_another(error):
      traceback.print_exception(error)
      # Who is dead is known when it has been silent for long enough.
      self._over.wait(self._limits.silent_seconds + 5 * _PERIOD)
      error = errors.Stalled(f"{self._me()}: {_one_line(error)}")
    code = errors.code(error)
    if code == 1:
      traceback.print_exception(error)
    told = errors.describe(error) or type(error).__name__
    message = " ".join(told.split())
    self._end(_Told(f"{self._me()}: {message[:2000]}", code), tell=True)

  def _end(self, fault: errors.Fault, tell: bool) -> None:
    print(f"error: {_one_line(fault)}", file=sys.stderr, flush=True)
    if fault.code in (1, errors.Stalled.code):
      for sign in self._signs:
        print(f"last heard: {sign}", file=sys.stderr)
      print(f"stacks of {self._me()}:", file=sys.stderr, flush=True)
      with contextlib.suppress(RuntimeError, OSError, ValueError):
        faulthandler.dump_traceback(all_threads=True)
    if tell and self._client is not None:
      told = json.dumps([_one_line(fault), fault.code])
      sender = threading.Thread(target=self._tell, args=(told,), daemon=True)
      sender.start()
      sender.join(3 * _PERIOD)
    if self._index == 0 and self._count > 1:
      time.sleep(3 * _PERIOD)  # the table of keys ends with this process
    sys.stdout.flush()
    os._exit(fault.code)  # exit handlers would wait for the others

  def _tell(self, told: str) -> None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was first
      self._client.key_value_set("locvlm/verdict/it", told)

  # -------------------------------------------------------------- watching

  def _me(self) -> str:
    phase, step, _ = self._where
    return (
      f"process {self._index} of {self._count} on {self._host}, step {step}, "
      f"phase {phase}"
    )

  def _look(self) -> None:
    """Of a thread: ends the process when it or another one is stuck."""
    rows, read = 0, time.monotonic()
    while not self._rest(_PERIOD / 2):
      if self._verdict is not None:
        self._end(self._verdict, tell=False)
      if self._rows() > rows:
        rows, read = self._rows(), time.monotonic()
      phase, _, since = self._where
      since = max(since, self._woke)
      if phase in _QUICK:  # another may be reading what all wait for
        since = max(since, self._moved, read if phase == "data" else 0.0)
      field = f"{self._kind(phase)}_seconds"
      limit, now = self._limits[field], time.monotonic()
      if limit and now - since > limit:
        message = f"{self._me()}: for {now - since:.0f} s, more than"
        self._end(
          errors.Stalled(f"{message} faults.{field}={limit}"), tell=True
        )
      silent = self._limits.silent_seconds
      heard = max(self._heard, self._woke)
      if self._client and silent and now - heard > silent:
        self._end(
          errors.Stalled(
            f"{self._me()}: process 0 has not answered for {silent} s"
          ),
          tell=False,
        )

  def _rest(self, seconds: float) -> bool:
    """Waits, notes whether all of it was suspended; returns whether to end."""
    began = time.monotonic()
    over = self._over.wait(seconds)
    if time.monotonic() - began > seconds + _SUSPENDED:
      self._woke = time.monotonic()
    return over

  def _kind(self, phase: str) -> str:
    if phase == "start":
      return "start"
    return "stall" if phase in _QUICK else "slow"

  def _exchange(self) -> None:
    """Of a thread: tells that this process lives, and hears the others."""
    beats, beat = {}, 0
    while not self._rest(_PERIOD):
      beat += 1
      try:
        self._client.key_value_set(
          f"locvlm/beat/{self._index}",
          f"{beat}|{self._me()}|{self._rows()}",
          allow_overwrite=True,
        )
        verdicts = self._client.key_value_dir_get("locvlm/verdict")
        told = self._client.key_value_dir_get("locvlm/beat")
      except jax.errors.JaxRuntimeError:
        continue  # `_look` sees that nothing is heard
      for _, value in verdicts:
        self._verdict = _Told(*json.loads(value))
      self._heard = time.monotonic()
      self._signs = sorted(value.split("|")[1] for _, value in told)
      mine = f"locvlm/beat/{self._index}"
      places = {k: v.split("|", 1)[1] for k, v in told if k != mine}
      if places != self._places:
        self._places, self._moved = places, self._heard
      self._verdict = self._verdict or self._silent(dict(told), beats)

  def _silent(self, told: Mapping, beats: dict) -> errors.Fault | None:
    """Process 0 listens to all, the others to process 0."""
    limit, now = self._limits.silent_seconds, time.monotonic()
    for key, value in told.items():
      if beats.get(key, ("", 0))[0] != value:
        beats[key] = (value, now)
      index = int(key.rsplit("/", 1)[1])
      watched = self._index == 0 or index == 0
      if limit and watched and now - max(beats[key][1], self._woke) > limit:
        where = value.split("|")[1]
        fault = errors.Stalled(f"{where}: dead or frozen for {limit} s")
        self._tell(json.dumps([str(fault), fault.code]))
        return fault
    return None


class _Told(errors.Fault):
  """What another process, or another thread, has said."""

  def __init__(self, message: str, code: int):
    super().__init__(message)
    self.code = code


def _from_another(error: Exception) -> bool:
  """Whether another process's end made this one fail."""
  return isinstance(error, jax.errors.JaxRuntimeError) or any(
    word in str(error) for word in ("Gloo", "NCCL", "coordination service")
  )


def _differing(first: Mapping, other: Mapping) -> str:
  """The facts that differ, with both values."""
  keys = [k for k in sorted({*first, *other}) if first.get(k) != other.get(k)]
  return "; ".join(
    f"{k}: {other.get(k)!r} instead of {first.get(k)!r}" for k in keys[:5]
  )


def _one_line(error: Exception) -> str:
  return " ".join((str(error) or type(error).__name__).split())[:2000]
