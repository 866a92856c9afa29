"""What every room's tests share: the zoo, its profiles, and a hash of a model."""

import dataclasses
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from autocompress.analysis.profile import ModelProfile, profile_model


def _load_zoo() -> ModuleType:
    """Under --import-mode=importlib tests cannot import each other; the file is loaded by path."""
    spec = importlib.util.spec_from_file_location("zoo", Path(__file__).with_name("zoo.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_ZOO = _load_zoo()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZooNet:
    """A net in eval mode, inputs for it, and its profile."""

    name: str
    model: nn.Module
    inputs: tuple[Tensor, ...]
    profile: ModelProfile


@functools.cache
def _net(name: str) -> ZooNet:
    model, inputs = _ZOO.build(name)
    return ZooNet(name=name, model=model, inputs=inputs, profile=profile_model(model, inputs))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Nets this small only lose by threads, and lose a lot on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def zoo() -> Callable[[str], ZooNet]:
    """Look a net up by name; nets are shared by all tests, which must not change them."""
    return _net


@pytest.fixture(scope="session", params=sorted(_ZOO.ZOO))
def zoo_net(request: pytest.FixtureRequest) -> ZooNet:
    """Every net of the zoo in turn."""
    return _net(request.param)


@pytest.fixture(scope="session")
def model_hash() -> Callable[[nn.Module], str]:
    """sha256 over names, dtypes, shapes and bytes of a model's state."""

    def digest_of(model: nn.Module) -> str:
        digest = hashlib.sha256()
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().numpy().tobytes())
        return digest.hexdigest()

    return digest_of
