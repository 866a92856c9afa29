"""Blocks that can be left out: modules whose output is their input plus something.

Whether it is can be read off the graph that autograd records: from the output, through
activations, norms and reshapes, a way of additions must lead to the input without any weights.
"""

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.analysis.pass_through import pass_through_for, replaced
from autocompress.errors import first_line
from autocompress.tasks.base import Inputs

_ADDITIONS = ("AddBackward", "SubBackward")
_NORMS = ("LayerNormBackward", "BatchNormBackward", "GroupNormBackward", "RmsNormBackward")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Call:
    """What one module was given and what it returned."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: object

    @property
    def has_tensors(self) -> bool:
        """Whether the first argument and the output are one float tensor each."""
        ends = (self.args[0] if self.args else None, self.output)
        return all(isinstance(end, Tensor) and end.is_floating_point() for end in ends)


class _Constant(nn.Module):
    """Returns what a block returned before, so that no graph leads through it."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self._output = output

    def forward(self, *args: object, **kwargs: object) -> object:
        """Anything -> the recorded output."""
        return self._output


def find_residual_blocks(
    model: nn.Module, example_inputs: Inputs
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Find the blocks that can be left out.

    A module that merely holds such blocks, such as a stage of a residual net, is not one.

    Args:
        model: Not modified.
        example_inputs: Inputs the model runs on.

    Returns:
        Names of the blocks, in the order of modules, and those that add something to their input
        and still cannot be left out: name -> why.
    """
    copied = copy.deepcopy(model).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    is_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one node with weights instead of a block
    try:
        calls, n_calls = _record_calls(copied, example_inputs)
        modules = dict(copied.named_modules())
        found: list[str] = []
        refused: dict[str, str] = {}
        for name in reversed(list(calls)):  # inner ones first
            if not _adds_itself(modules, name, calls, found, refused):
                continue
            reason = _why_not_left_out(copied, name, calls[name], n_calls[name], example_inputs)
            if reason:
                refused[name] = reason
            else:
                found.append(name)
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fused)
    return tuple(reversed(found)), dict(reversed(refused.items()))


def _record_calls(model: nn.Module, inputs: Inputs) -> tuple[dict[str, _Call], Counter[str]]:
    """The last call of each module that has parts, in the order of modules."""
    calls: dict[str, _Call] = {}
    n_calls: Counter[str] = Counter()

    def recording(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            kept = tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in args)
            output = forward(*args, **kwargs)
            n_calls[name] += 1
            calls[name] = _Call(args=kept, kwargs=kwargs, output=output)
            return output

        return recorded

    wrapped = [(n, m) for n, m in model.named_modules() if n and any(True for _ in m.children())]
    for name, module in wrapped:
        object.__setattr__(module, "forward", recording(name, module.forward))
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for _, module in wrapped:
            object.__delattr__(module, "forward")
    order = [name for name, _ in wrapped if name in calls and calls[name].has_tensors]
    return {name: calls[name] for name in order}, n_calls


def _adds_itself(
    modules: Mapping[str, nn.Module],
    name: str,
    calls: Mapping[str, _Call],
    found: Collection[str],
    refused: Collection[str],
) -> bool:
    """Whether a block's output ends in an addition that is not one of its inner blocks'."""
    stand_ins: dict[nn.Module, nn.Module] = {}
    for inner in (*found, *refused):
        if inner.startswith(f"{name}."):
            block, output = modules[inner], calls[inner].output
            stand_ins[block] = pass_through_for(block) if inner in found else _Constant(output)
    with replaced(modules[name], stand_ins):
        output, _ = _run_alone(modules[name], calls[name])
    return _last_addition(output.grad_fn) is not None


def _why_not_left_out(
    model: nn.Module, name: str, call: _Call, n_calls: int, inputs: Inputs
) -> str:
    block = model.get_submodule(name)
    output, leaf = _run_alone(block, call)
    if output.shape != leaf.shape or output.dtype != leaf.dtype:
        before, after = (tuple(tensor.shape[1:]) for tensor in (leaf, output))
        return f"it turns an input of shape {before} into one of shape {after}"
    if not _reaches(_last_addition(output.grad_fn), leaf):
        return "what it adds to is not its input itself"
    if n_calls > 1:
        return f"it is called {n_calls} times"
    try:
        with replaced(model, {block: pass_through_for(block)}), torch.no_grad():
            model(*inputs)
    except Exception as error:  # noqa: BLE001 - a model may need its block in any way
        return f"the model does not run without it: {first_line(error)}"
    return ""


def _run_alone(block: nn.Module, call: _Call) -> tuple[Tensor, Tensor]:
    """Output of a block and the leaf of the graph that is its input."""
    leaf = call.args[0].detach().clone().requires_grad_()
    with torch.enable_grad():
        output = block(leaf.clone(), *call.args[1:], **call.kwargs)
    return output, leaf


def _last_addition(node: Any) -> Any:
    """The addition that a node leads back to without weights in between; None if there is none."""
    while node is not None and not _is_addition(node):
        node = _before(node)
    return node


def _reaches(node: Any, leaf: Tensor) -> bool:
    """Whether a way without weights leads from a node to a leaf."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if getattr(node, "variable", None) is leaf:
            return True
        if _is_addition(node):
            waiting += [before for before, _ in node.next_functions if before is not None]
        elif (before := _before(node)) is not None:
            waiting.append(before)
    return False


def _is_addition(node: Any) -> bool:
    return bool(node.name().startswith(_ADDITIONS))


def _before(node: Any) -> Any:
    """The node a node with one input computes from; None for weights, products and leaves."""
    inputs = [before for before, _ in node.next_functions if before is not None]
    if len(inputs) == 1 or (inputs and any(norm in node.name() for norm in _NORMS)):
        return inputs[0]
    return None
