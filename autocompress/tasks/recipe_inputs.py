"""Checks of what a task brings for its recipes: teachers, unlabelled inputs, early weights."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autocompress.errors import InputError, first_line
from autocompress.tasks.base import Examples, Inputs, TensorData
from autocompress.tasks.explicit_attention import make_attention_explicit


def check_teachers(teacher: object) -> tuple[nn.Module, ...]:
    """Bring `Task.teacher` into one form: the models to average; none means the base model.

    Raises:
        InputError: If it is no module and no tuple of modules.
    """
    if teacher is None:
        return ()
    teachers = tuple(teacher) if isinstance(teacher, tuple | list) else (teacher,)
    if not teachers:
        raise InputError(
            "`Task.teacher` must hold at least one model, but is an empty tuple.",
            "Use None to distill from `Task.model`.",
        )
    for model in teachers:
        if not isinstance(model, nn.Module):
            raise InputError(
                "`Task.teacher` must be a torch.nn.Module or a tuple of them, "
                f"but got {type(model).__name__}."
            )
    return teachers


def check_teachers_fit(teachers: tuple[nn.Module, ...], inputs: Inputs, outputs: Tensor) -> None:
    """Check that teachers run on the model's inputs and return outputs of its shape.

    Args:
        teachers: Left in their mode, training or eval.
        inputs: A batch of the model's inputs.
        outputs: What the model returns for it.

    Raises:
        InputError: If one does not.
    """
    for i, teacher in enumerate(teachers):
        where = "`Task.teacher`" if len(teachers) == 1 else f"`Task.teacher[{i}]`"
        modes = {module: module.training for module in teacher.modules()}
        try:
            with torch.no_grad():
                got = teacher.eval()(*inputs)
        except Exception as error:  # a user's model may raise anything
            raise InputError(
                f"{where} must run on a batch of the training data, "
                f"but raised {type(error).__name__}: {first_line(error)}."
            ) from error
        finally:
            for module, is_training in modes.items():
                module.training = is_training
        shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
        if shape != tuple(outputs.shape):
            raise InputError(
                f"{where} must return outputs of the model's shape {tuple(outputs.shape)}, "
                f"but returned {shape}."
            )


def check_unlabelled(
    unlabelled: object, train: Examples, distill: str, names: tuple[str, ...] | None = None
) -> Inputs | None:
    """Bring `Task.unlabelled` into one form: a tuple of tensors, or None.

    Args:
        unlabelled: As the user gave it.
        train: Training data, in memory.
        distill: How outputs are matched.
        names: Names of the inputs of `train`, if they have some; those of a mapping must be these.

    Raises:
        InputError: If the inputs are not like those of `train`, or nothing is distilled.
    """
    if unlabelled is None:
        return None
    if not isinstance(train, TensorData):
        raise InputError(
            "`Task.unlabelled` needs training data in memory, but `train` is streamed.",
            "Give `train` as tensors, or leave the unlabelled inputs out.",
        )
    if isinstance(unlabelled, Mapping):
        if names is None or set(unlabelled) != set(names):
            raise InputError(
                "The inputs of `Task.unlabelled` must be named as those of train, "
                f"{names or 'which have no names'}, but are {tuple(unlabelled)}."
            )
        unlabelled = tuple(unlabelled[name] for name in names)
    inputs = tuple(unlabelled) if isinstance(unlabelled, tuple | list) else (unlabelled,)
    for part in inputs:
        if not isinstance(part, Tensor) or part.ndim == 0:
            got = "a single number" if isinstance(part, Tensor) else type(part).__name__
            raise InputError(
                f"`Task.unlabelled` must hold tensors of shape (N, ...), but got {got}."
            )
    wanted, kinds = ([_kind(t) for t in tensors] for tensors in (train.inputs, inputs))
    if wanted != kinds:
        raise InputError(
            "`Task.unlabelled` must be like the inputs of the train split, "
            f"({', '.join(wanted)}), but got ({', '.join(kinds)})."
        )
    lengths = [len(tensor) for tensor in inputs]
    if len(set(lengths)) > 1 or lengths[0] == 0:
        raise InputError(
            "The tensors of `Task.unlabelled` must be equally long and not empty, "
            f"but got lengths {lengths}."
        )
    if distill == "none":
        raise InputError(
            "`Task.unlabelled` needs distillation: without labels nothing else can be learned "
            "from it, but `Task.distill` is 'none'.",
            "Use kl or mse, or leave the unlabelled inputs out.",
        )
    return inputs


def _kind(tensor: Tensor) -> str:
    return f"N×{'×'.join(map(str, tensor.shape[1:]))} {str(tensor.dtype).removeprefix('torch.')}"


def check_initial_state(state: object, model: nn.Module) -> Mapping[str, Tensor] | None:
    """Check `Task.initial_state` and name its tensors as the model with explicit attention does.

    Args:
        state: A value of the right shape for every parameter of `model`; buffers that are missing
            are the model's.
        model: As the user gave it.

    Returns:
        The state of `make_attention_explicit(model)`; None if there is none.

    Raises:
        InputError: If it is no mapping of tensors, lacks a parameter, has an unknown name, a wrong
            shape or numbers that are not finite.
    """
    if state is None:
        return None
    if not isinstance(state, Mapping):
        raise InputError(
            "`Task.initial_state` must be a mapping of names to tensors, such as a state dict, "
            f"but got {type(state).__name__}."
        )
    known = model.state_dict()
    for name in state:
        if name not in known:
            raise InputError(
                f"`Task.initial_state` must be a state of `Task.model`, which has no {name!r}."
            )
    for name, _ in model.named_parameters():
        if name not in state:
            raise InputError(
                "`Task.initial_state` must hold every parameter of `Task.model`, "
                f"but has no {name!r}."
            )
    for name, value in state.items():
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if got != tuple(known[name].shape):
            raise InputError(
                f"{name!r} of `Task.initial_state` must be a tensor of shape "
                f"{tuple(known[name].shape)}, but got {got}."
            )
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise InputError(
                f"{name!r} of `Task.initial_state` must hold finite numbers, but some are not."
            )
    early = copy.deepcopy(model)
    early.load_state_dict(dict(state), strict=False)  # buffers may be missing
    return {
        name: value.clone() for name, value in make_attention_explicit(early).state_dict().items()
    }
