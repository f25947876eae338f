#!/usr/bin/env bash
# What one GPU does with LocVLM-B and -L: training steps beside transformers on
# PyTorch, QLoRA, full fine-tuning, packed rows, decoding. Ten minutes at most.
#
#   bash benchmarks/gpu.sh [--out FOLDER] [--minutes 10] [--tiny]
#
# Run again with the same folder, it measures what is left. FOLDER gets gpu.json
# and gpu.md. --tiny runs all of it on a small model, also on a CPU. PYTHON names
# the interpreter; it needs jax, flax, optax, orbax-checkpoint, einops, jaxtyping
# and absl-py, and for the peers transformers and torch.
set -euo pipefail
cd "$(dirname "$0")/.."
# By default jax takes three quarters of the memory: 35 GB of an H200 are lost.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
