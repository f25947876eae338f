"""Writes the results of the GPU script as a table for people."""

from collections.abc import Mapping, Sequence

_HEAD = """# One GPU

{device}, {versions}; {seconds:.0f} s in all. TFLOP/s are the model's, without
what is computed again; the last column is one product of the MLP alone, the
ceiling of the device at these rows.

| part | settings | samples/s | TFLOP/s | MFU | GiB | of one product |
|---|---|---|---|---|---|---|
"""
_SHOWN = {
  "model": "", "stage": "stage ", "batch": "rows ", "accumulate": "/",
  "remat": "", "unroll": "unroll ", "base_weights": "", "lora_rank": "rank ",
  "moments": "", "masters": "", "pack": "pack ",
}  # fmt: skip


def markdown(results: Mapping) -> str:
  """Returns the table, and a line for what has no result."""
  lines = [_line(entry) for entry in results["entries"]]
  head = _HEAD.format(
    device=results["device"] or "no device",
    versions=results["versions"],
    seconds=results["seconds"],
  )
  rest = [f"- {name}: {why}" for name, why in results["without"].items()]
  ratios = [f"- {name}: {r:.2f}" for name, r in ratios_of(results).items()]
  return head + "\n".join(lines + ["", *ratios, *rest]) + "\n"


def ratios_of(results: Mapping) -> dict[str, float]:
  """Divides our rates by the peers', and packed by unpacked."""
  rates: dict[str, list[float]] = {}
  for entry in results["entries"]:
    if "samples_per_s" in entry.get("result", {}):
      name, s = entry["part"], entry["settings"]
      name = name if s.get("pack", 0) == 0 else f"pack {s['pack']}"
      name = f"{s['model'].upper()} {name}" if name == "stage 1" else name
      rate = entry["result"]["samples_per_s"]["median"]
      rates.setdefault(name, []).append(rate)
  best = {name: max(r) for name, r in rates.items()}
  found = {}
  for name, rate in best.items():
    base = name.split(",")[0]
    if name.endswith("peer") and base in best:
      found[f"{base} over {name.split(', ')[1]}"] = best[base] / rate
    if name.startswith("pack ") and name != "pack 1" and "pack 1" in best:
      found[f"{name} over unpacked"] = rate / best["pack 1"]
  if "search" in best and "L stage 2" in best:
    found["best of the search over L stage 2"] = (
      best["search"] / best["L stage 2"]
    )
  return found


def _line(entry: Mapping) -> str:
  settings = _settings(entry["settings"])
  if "error" in entry:
    return f"| {entry['part']} | {settings} | {entry['error'][:80]} | | | | |"
  result = entry["result"]
  if "samples_per_s" not in result:
    return "\n".join(_other(entry["part"], result))
  rate = result["samples_per_s"]["median"]
  flops = rate * result["sample_flops"]
  cells = [
    entry["part"],
    settings,
    f"{rate:.2f}",
    f"{flops / 1e12:.4g}",
    f"{result['mfu']['median']:.3f}",
    f"{result['memory'] / 2**30:.1f}" if result.get("memory") else "",
    f"{flops / ceiling:.2f}"
    if (ceiling := result.get("one_product_flops"))
    else "",
  ]
  return "| " + " | ".join(cells) + " |"


def _settings(settings: Mapping) -> str:
  """Writes what differs from the plain: "l, stage 2, rows 16/2, dots"."""
  plain = {"accumulate": 1, "unroll": 1, "lora_rank": 0, "pack": 0}
  plain |= {"base_weights": "float", "moments": "float", "masters": "float32"}
  said = {
    k: f"{word}{settings[k]}"
    for k, word in _SHOWN.items()
    if k in settings and settings[k] != plain.get(k)
  }
  return ", ".join(said.values()).replace(", /", "/")


def _other(part: str, result: Mapping) -> Sequence[str]:
  """Writes decoding (ms a step, share of the floor) and parity."""
  lines = []
  for name, r in result.items():
    if not isinstance(r, Mapping):
      continue
    if "step_ms" in r:
      text = (
        f"{r['tokens_per_s']:.0f} tokens/s, {r['step_ms']:.2f} ms a step,"
        f" {r['share_of_floor']:.2f} of the memory floor,"
        f" prefill {r['prefill_ms']:.1f} ms"
      )
    else:
      text = f"{r['difference']:.1e}, at most {r['bound']:.0e}"
    lines.append(f"| {part} | {name} | {text} | | | | |")
  return lines
