"""Post-training quantization of an ONNX file: the fastest form whose decisions stay what they were.

No PyTorch model is needed and nothing is trained. Three forms are made, timed beside the original
and held against its decisions on the user's data: weights stored as integers (how to compute with
them is the runtime's choice), integer kernels on calibrated grids (static), and integer kernels on
grids of their own (dynamic).
"""

import contextlib
import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import onnx

from autocompress.atomic_file import scratch_folder, write_atomically
from autocompress.errors import AutocompressError, InputError, TrialError, first_line
from autocompress.export.judgement import Judge, judge_of, metric_of
from autocompress.export.onnx_examples import (
    Reference,
    Watched,
    outputs_of,
    read_examples,
)
from autocompress.measurement import LEAST_NOISE
from autocompress.onnx_graph.exported_graph import ExportedGraph
from autocompress.onnx_graph.session import make_session
from autocompress.packing.packed import write_packed
from autocompress.runtime.base import Arrays
from autocompress.runtime.dynamic import dynamic_layers, to_dynamic
from autocompress.runtime.foreign import quantize_weights, read_onnx, with_integer_weights
from autocompress.runtime.integer import to_integer
from autocompress.runtime.integer_grids import grids_of
from autocompress.runtime.latency import Latency, time_files
from autocompress.runtime.onnxruntime import executed_integer_nodes
from autocompress.runtime.registry import find_runtime

Goal = Literal["latency", "size", "download"]
Form = Literal["weights", "static", "dynamic"]
FORMS: Final[tuple[Form, ...]] = ("weights", "static", "dynamic")

_ONNX, _PACKED = "model.onnx", "model.acz"
_N_JUDGED: Final = 256  # examples on which the weights that hurt are told


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """One form of the model.

    Attributes:
        form: Which.
        graph: What ships as ONNX.
        packed: The graph that is packed, and its stored weights.
        agreement: Share of decisions or values that are the original's, in the worse of both files
            and the worst output.
        error: Largest difference of an output there, as a share of the original's largest value.
        latency: Against the original.
        n_integer_nodes: Operators that run in integers after ONNX Runtime's own optimisation.
        n_bytes: Of the ONNX file.
        download_bytes: Of the same, compressed with zlib.
        accuracy: By the labels, of what ships as ONNX; None without labels.
    """

    form: Form
    graph: onnx.ModelProto
    packed: ExportedGraph
    agreement: float
    error: float
    latency: Latency
    n_integer_nodes: int
    n_bytes: int
    download_bytes: int
    accuracy: float | None

    def to_json(self, original_bytes: int, *, is_chosen: bool) -> dict[str, Any]:
        """What a table says about it."""
        return {
            "form": self.form,
            "chosen": is_chosen,
            "onnx_bytes": self.n_bytes,
            "download_bytes": self.download_bytes,
            "smaller": original_bytes / self.n_bytes,
            "agreement": self.agreement,
            **({} if self.accuracy is None else {"accuracy": self.accuracy}),
            "largest_error": self.error,
            "latency_ms": self.latency.median_ms,
            "speedup": 1.0 / self.latency.ratio,
            "speedup_low": 1.0 / self.latency.ratio_high,
            "speedup_high": 1.0 / self.latency.ratio_low,
            "integer_nodes": self.n_integer_nodes,
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PostTraining:
    """What came of a file.

    Attributes:
        original_bytes: Of the original, weights in files of their own included.
        forms: All that could be made.
        refused: Form -> why it could not.
        chosen: The best of those that agree; the first of equally fast ones.
        left_float: Weights that stayed float, because decisions changed with them.
        packed_bytes: Of the packed file.
        judges: Output name -> how it was judged.
        original_accuracy: Of the original by the labels; None without labels.
    """

    original_bytes: int
    forms: tuple[Made, ...]
    refused: Mapping[Form, str]
    chosen: Made
    left_float: tuple[str, ...]
    packed_bytes: int
    judges: Mapping[str, str]
    original_accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """All figures as plain containers, a row for each form, made or refused."""
        return {
            "original_bytes": self.original_bytes,
            "onnx_bytes": self.chosen.n_bytes,
            "packed_bytes": self.packed_bytes,
            "left_float": list(self.left_float),
            "judged": dict(self.judges),
            "original_accuracy": self.original_accuracy,
            "forms": [
                *(
                    made.to_json(self.original_bytes, is_chosen=made is self.chosen)
                    for made in self.forms
                ),
                *(
                    {"form": form, "chosen": False, "refused": why}
                    for form, why in self.refused.items()
                ),
            ],
        }


def quantize_file(
    path: Path,
    data: Path,
    output: Path,
    *,
    state: Mapping[str, str] | None = None,
    judges: Mapping[str, str] | None = None,
    labels: str | None = None,
    metric: str | None = None,
    by: Goal = "latency",
    bits: float = 7,
    least_agreement: float = 0.99,
    threads: int = 1,
    on_step: Callable[[str], None] = lambda step: None,
) -> PostTraining:
    """Quantize an ONNX file; writes `model.onnx` and `model.acz`.

    The file is run in this process: one of somebody else belongs in `quantize_process`. Where
    decisions change with all weights quantized, those that change outputs most stay float, one
    after the other, until they do not.

    Args:
        path: The file.
        data: Examples, see `read_examples`.
        output: Folder to write to.
        state: Output name -> input name of what an example hands to the next.
        judges: Output name -> how it is judged, see `Judge`; others by what they look like.
        labels: A `.npy` file of labels, to tell the accuracy of each form; see `metric_of`.
        metric: `file.py:function` that scores outputs by them.
        by: Which of the forms that agree is taken: the fastest, that of the smallest file, or of
            the smallest file once it is compressed for a download (zlib).
        bits: Of stored weights, 2-8. With 8, integer kernels for x86 without VNNI saturate.
        least_agreement: Share of an output's decisions or values that must stay, in each output.
        threads: Threads of the runtime.
        on_step: Told, in words, what is being done, each time the model is run on an example.

    Raises:
        InputError: If the file or the data cannot be used.
        AutocompressError: If no form keeps the decisions.
    """
    for name in (_ONNX, _PACKED):
        if (output / name).resolve() == path.resolve():
            raise InputError(
                f"The output {output / name} must not be the input.", "Name it with -o."
            )
    doing = "reading the model"
    on_step(doing)
    model = read_onnx(path)
    examples = read_examples(data, model, state or {})
    watched = Watched(examples.feeds, lambda: on_step(doing))
    examples = dataclasses.replace(examples, feeds=watched)
    inputs = [value.name for value in make_session(model, threads).get_inputs()]
    doing = "running the original"
    expected, seen = outputs_of(model, examples, path)
    calibration = Watched(
        [tuple(feed[name] for name in inputs) for feed in seen], lambda: on_step(doing)
    )
    unknown = sorted((judges or {}).keys() - expected.keys())
    if unknown:
        raise InputError(
            f"`judge` must name an output, but got {unknown[0]!r}.",
            f"Outputs: {', '.join(expected)}.",
        )
    if metric is not None and labels is None:
        raise InputError("`metric` needs `labels`, but none are given.")
    judged = {n: judge_of(n, found, (judges or {}).get(n)) for n, found in expected.items()}
    scored = None if labels is None else metric_of(Path(labels), expected, judged, metric)
    reference = Reference(
        examples=examples,
        outputs=expected,
        judges=judged,
        least_agreement=least_agreement,
        metric=scored,
    )
    doing = "rounding weights"
    exported, left = _agreeing(model, bits, reference)
    forms, refused = list[Made](), dict[Form, str]()
    for form in FORMS:
        doing = f"making the form {form!r}"
        try:
            graph = _agreeing_form(form, exported, calibration, reference)
            forms.append(_made(form, graph, model, reference, calibration[0], threads))
        except (TrialError, InputError) as error:
            refused[form] = error.message
    if not forms:
        reasons = " ".join(f"{form}: {reason}" for form, reason in refused.items())
        raise AutocompressError(f"{path}: one form at least must run, but none does. {reasons}")
    kept = [made for made in forms if made.agreement >= least_agreement]
    if not kept:
        best = max(made.agreement for made in forms)
        raise AutocompressError(
            f"{path}: outputs must agree by {least_agreement:.1%}, but the best form agrees by "
            f"{best:.1%}, {_judged(reference.judges)}.",
            "Raise `bits`, lower `min_agreement`, or say what an output is with `judge`.",
        )
    chosen = _best(kept, by)
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / _ONNX, chosen.graph.SerializeToString())
    except OSError as error:
        raise InputError(f"{output} cannot be written: {first_line(error)}.") from error
    packed = chosen.packed
    size = write_packed(output / _PACKED, packed.model, packed.quantized, {})
    return PostTraining(
        original_bytes=len(model.SerializeToString()),
        forms=tuple(forms),
        refused=refused,
        chosen=chosen,
        left_float=left,
        packed_bytes=size,
        judges={name: judge.kind for name, judge in judged.items()},
        original_accuracy=None if scored is None else scored(expected),
    )


def _judged(judges: Mapping[str, Judge]) -> str:
    return "judged by " + ", ".join(f"{judge.kind} ({name})" for name, judge in judges.items())


def _best(forms: Sequence[Made], by: Goal) -> Made:
    if by != "latency":
        return min(forms, key=lambda made: made.n_bytes if by == "size" else made.download_bytes)
    chosen = forms[0]
    for made in forms[1:]:
        if _is_faster(made.latency, chosen.latency):
            chosen = made
    return chosen


def _agreeing(
    model: onnx.ModelProto, bits: float, reference: Reference
) -> tuple[ExportedGraph, tuple[str, ...]]:
    """Weights rounded, without as many of the most harmful as change decisions."""
    exported = quantize_weights(model, bits)
    if reference.is_like(reference.compare(exported.model)):
        return exported, ()
    every = tuple(exported.quantized)
    harm = {}
    for name in every:
        alone = quantize_weights(model, bits, {*every} - {name})
        harm[name] = reference.compare(alone.model, _N_JUDGED).error
    left: list[str] = []
    for name in sorted(every, key=lambda name: -harm[name])[:-1]:
        left.append(name)
        exported = quantize_weights(model, bits, left)
        if reference.is_like(reference.compare(exported.model)):
            break
    return exported, tuple(left)


def _agreeing_form(
    form: Form, exported: ExportedGraph, calibration: Sequence[Arrays], reference: Reference
) -> ExportedGraph:
    """A form, without integer kernels where they change decisions most."""
    layers = list(exported.layer_nodes)
    made = _formed(form, exported, layers, calibration)
    if form == "weights" or reference.is_like(reference.compare(made.model)):
        return made
    harm: dict[str, float] = {}
    for layer in layers:
        with contextlib.suppress(InputError):  # it has no kernel of this form
            alone = _formed(form, exported, [layer], calibration)
            harm[layer] = reference.compare(alone.model, _N_JUDGED).error
    for layer in sorted(harm, key=lambda name: -harm[name])[:-1]:
        layers.remove(layer)
        made = _formed(form, exported, layers, calibration)
        if reference.is_like(reference.compare(made.model)):
            break
    return made


def _formed(
    form: Form, exported: ExportedGraph, layers: Sequence[str], calibration: Sequence[Arrays]
) -> ExportedGraph:
    if form == "weights":
        return exported
    dynamic = dynamic_layers(exported, dict.fromkeys(layers)) if form == "dynamic" else ()
    if form == "dynamic" and not dynamic:
        raise InputError("It has no matrix product in its main graph.")
    fixed = [name for name in layers if name not in dynamic]
    made = to_integer(exported, grids_of(exported, fixed, calibration), calibration)
    made = to_dynamic(made, dynamic)
    if made.model is exported.model:
        raise InputError("It has no layer with an integer kernel in its main graph.")
    return made


def _made(
    form: Form,
    made: ExportedGraph,
    original: onnx.ModelProto,
    reference: Reference,
    example: Arrays,
    threads: int,
) -> Made:
    """A form with all weights as integers, or with those of float layers as floats if need be.

    Some runtimes turn integers into floats each time they run, for layers that compute in float;
    and ONNX Runtime rounds the inputs of such matrix products too (MatMulNBits). Floats ship where
    they are faster, or where decisions would change otherwise.
    """
    plain = reference.compare(made.model)
    files = [(made.model, plain)]
    if made.quantized:
        small = with_integer_weights(made)
        files.insert(0, (small, reference.compare(small)))
    files = [file for file in files if reference.is_like(file[1])] or files
    graph, likeness = files[0]
    latency = _timed(graph, original, example, threads)
    for other, its_likeness in files[1:]:
        its_latency = _timed(other, original, example, threads)
        if _is_faster(its_latency, latency):
            graph, likeness, latency = other, its_likeness, its_latency
    content = graph.SerializeToString()
    return Made(
        form=form,
        graph=graph,
        packed=made,
        agreement=min(likeness.agreement, plain.agreement),
        error=max(likeness.error, plain.error),
        latency=latency,
        n_integer_nodes=executed_integer_nodes(graph),
        n_bytes=len(content),
        download_bytes=len(zlib.compress(content, 9)),
        accuracy=likeness.accuracy,
    )


def _is_faster(one: Latency, other: Latency) -> bool:
    return one.ratio_high * (1.0 + LEAST_NOISE) < other.ratio_low


def _timed(
    graph: onnx.ModelProto, original: onnx.ModelProto, example: Arrays, threads: int
) -> Latency:
    with scratch_folder() as scratch:
        own, base = Path(scratch) / "candidate.onnx", Path(scratch) / "original.onnx"
        own.write_bytes(graph.SerializeToString())
        base.write_bytes(original.SerializeToString())
        return time_files(own, base, example, find_runtime("onnxruntime"), threads)
