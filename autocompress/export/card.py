"""The model card of a bundle: what it is, how good, how to run it."""

from collections.abc import Iterator, Mapping
from typing import Any

from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.technique import METHODS, OF_LAYERS, TECHNIQUES

_CODE = """```python
import numpy, onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
names = [item.name for item in session.get_inputs()]
outputs = session.run(None, dict(zip(names, inputs)))   # inputs: numpy arrays, batch first
```"""


def model_card(manifest: Mapping[str, Any], plan: CompressionPlan) -> str:
    """Write the card as Markdown.

    Args:
        manifest: The bundle's manifest.
        plan: What was done to the model.
    """
    measured, baseline = manifest["measurements"], manifest["baseline"]
    rows = [
        _row(f"{manifest['metric']}, {split}", measured[key], baseline[key], "{:.2%}")
        for split, key in (
            ("test", "test_accuracy"),
            ("validation", "val_accuracy"),
            ("test and validation together", "held_out_accuracy"),
        )
        if measured[key] is not None
    ]
    rows.append(_row("packed file, bytes", measured["size_bytes"], baseline["size_bytes"], "{:,}"))
    rows.append(
        _row("latency, ms", measured["latency_ms"], measured["baseline_latency_ms"], "{:.3f}")
    )
    memory = measured["peak_memory_bytes"]
    if memory is not None:
        rows.append(f"| memory to load and run, MB | {memory / 1e6:.1f} | |")
    return "\n".join(
        [
            f"# {manifest['task']}: {manifest['label']} of run {manifest['run']}",
            "",
            "| | this model | original |",
            "|---|---|---|",
            *rows,
            "",
            f"Accuracy is that of `model.onnx`, loaded in a fresh process. {_timed(manifest)} The "
            "test split was not used by the search.",
            "",
            *_runtime_lines(manifest),
            *_processor_lines(manifest),
            "## What was asked for, and done",
            "",
            *_plan_lines(plan),
            *(f"- Not done: {line}" for line in manifest["skipped"]),
            "",
            "## Run it",
            "",
            "`model.acz` is what ships: `autocompress unpack model.acz` turns it into the same "
            "ONNX model.",
            "",
            _CODE,
            "",
        ]
    )


def _timed(manifest: Mapping[str, Any]) -> str:
    """How latency was taken."""
    timed, measured = manifest["timed"], manifest["measurements"]
    hardware = manifest["environment"]["hardware"]["processor"]
    versions = manifest["runtimes"][timed["runtime"]]["versions"]
    runtime = ", ".join(f"{name} {version}" for name, version in versions.items())
    threads = "one thread" if timed["threads"] == 1 else f"{timed['threads']} threads"
    return (
        f"Latency is that of a batch of {timed['batch']} in {runtime} on {threads} of {hardware}, "
        f"both models in turns: {measured['speedup']:.2f} times as fast (95 % interval "
        f"{measured['speedup_low']:.2f} to {measured['speedup_high']:.2f})."
    )


def _runtime_lines(manifest: Mapping[str, Any]) -> list[str]:
    """A table of the files for further runtimes, if there are any."""
    found = manifest["runtimes"]
    if len(found) == 1:
        return []
    lines = ["| file | runs in | bytes | accuracy | times as fast |", "|---|---|---|---|---|"]
    for name, facts in found.items():
        if "error" in facts:
            lines.append(f"| none | {name} | | | {facts['error']} |")
            continue
        accuracy = facts["test_accuracy"] or facts["val_accuracy"]
        lines.append(
            f"| `{facts['file']}` | {name} | {facts['size_bytes']:,} | {accuracy:.2%} | "
            f"{facts['speedup']:.2f} ({facts['speedup_low']:.2f} to {facts['speedup_high']:.2f}) |"
        )
    return [*lines, ""]


def _processor_lines(manifest: Mapping[str, Any]) -> list[str]:
    """A warning if results differ from processor to processor."""
    layers = manifest["runtimes"]["onnxruntime"].get("needs_vnni")
    if not layers:
        return []
    names = ", ".join(f"`{layer}`" for layer in layers)
    return [
        f"Integer layers with 8-bit weights ({names}) saturate on x86 processors without VNNI: "
        "there `model.onnx` gives other results than these. `--integer-weight-bits 7` searches for "
        "models that give the same on all.",
        "",
    ]


def _row(name: str, value: float, base: float, form: str) -> str:
    return f"| {name} | {form.format(value)} | {form.format(base)} |"


def _plan_lines(plan: CompressionPlan) -> list[str]:
    pruned, dropped = (TECHNIQUES[kind].write_in_card for kind in ("pruning_ratio", "drop_block"))
    lines = [f"- `{name}`: {pruned(ratio)}" for name, ratio in plan.pruning_ratios.items()]
    lines += [f"- `{name}`: {dropped(1)}" for name in plan.dropped_blocks]
    for name, layer in plan.effective.layers.items():
        if not layer.is_untouched:
            lines.append(f"- `{name}`: {', '.join(_layer_parts(layer))}")
    return lines or ["Nothing: this is the original model."]


def _layer_parts(layer: LayerPlan) -> Iterator[str]:
    """What happens to a layer, each amount with its methods in brackets."""
    for row in OF_LAYERS:
        level = getattr(layer, row.kind)
        if not row.is_method and level != row.untouched:
            methods = [m for m in METHODS if m.needs == row.kind]
            how = ", ".join(m.write_in_card(getattr(layer, m.kind)) for m in methods)
            yield row.write_in_card(level) + (f" ({how})" if how else "")
