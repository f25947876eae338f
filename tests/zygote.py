"""Runs commands of the package in forks of one process that imported the rest.

Python, jax and orbax take four seconds to start, and a test of one line on
standard error has little else to do. A fork runs the command's module as
`python -m` does: the module is imported, flags and all, in the fork alone.
"""

import functools
import gc
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import warnings

from paths import ROOT

_SECONDS = 120  # that a command may take


def run(command: str, *arguments: str) -> subprocess.CompletedProcess:
  """Runs `python -m locvlm_jax.COMMAND ARGUMENTS` in the repository, on CPU."""
  with tempfile.TemporaryDirectory() as folder:
    files = [os.path.join(folder, name) for name in ("out", "err")]
    job = {
      "module": f"locvlm_jax.{command}",
      "arguments": arguments,
      "env": {**os.environ, "JAX_PLATFORMS": "cpu"},
      "files": files,
    }
    zygote = _started()
    zygote.stdin.write(json.dumps(job) + "\n")
    zygote.stdin.flush()
    code = int(zygote.stdout.readline())
    assert code != -signal.SIGALRM, f"{command}: more than {_SECONDS} s"
    said = [pathlib.Path(f).read_text(errors="replace") for f in files]
    return subprocess.CompletedProcess(arguments, code, *said)


@functools.cache
def _started() -> subprocess.Popen:
  """Starts the process that forks; it ends when this process does."""
  return subprocess.Popen(
    [sys.executable, __file__],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )


def _serve() -> None:
  """Forks for each line, one after the other; answers with its exit code."""
  for line in sys.stdin:
    with warnings.catch_warnings(action="ignore"):  # of threads: none runs yet
      child = os.fork()
    if not child:
      _become(json.loads(line))
      return
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)


def _become(job: dict) -> None:
  """Runs the command to the end of this process."""
  signal.alarm(_SECONDS)
  for number, path in (
    (0, os.devnull),
    (1, job["files"][0]),
    (2, job["files"][1]),
  ):
    flags = os.O_RDWR | os.O_CREAT if number else os.O_RDONLY
    os.dup2(os.open(path, flags, 0o600), number)
  os.environ.clear()
  os.environ.update(job["env"])
  sys.argv = [job["module"], *job["arguments"]]
  runpy.run_module(job["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
  sys.path[0] = str(ROOT)
  import grain  # noqa: F401
  import orbax.checkpoint  # noqa: F401

  from locvlm_jax import assemble, command  # noqa: F401
  from locvlm_jax.data import stream  # noqa: F401
  from locvlm_jax.weights import checkpoints  # noqa: F401

  # Or else each fork looks through all that is imported when it ends.
  gc.freeze()
  _serve()
