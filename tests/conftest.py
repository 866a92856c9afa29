"""What every room's tests share: the zoo, its profiles, a hash of a model, a PostgreSQL server."""

import dataclasses
import functools
import hashlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest
import torch
from torch import Tensor, nn

from autocompress.analysis.profile import ModelProfile, profile_model
from tests import skipped
from tests.needs import need_extra

pytest_plugins = ["tests.study_fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `.ci/run`."""
    skipped.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """What is skipped is counted at the end."""
    config.pluginmanager.register(skipped.SkippedTests(config), "skipped-tests")
    # No test asserts a wall-clock time: on a busy machine an example takes what it takes.
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")


# One of each kind: what has been shown to hold for these seldom breaks on a relative of theirs.
_KINDS = ("residual", "depthwise_separable", "dense_concat", "attention", "lstm", "shared_layer")
# Where each net is a case of its own: what belongs together, what is refused, what a cut does.
_ALL_NETS = ("tests/analysis/", "tests/compress/test_prune.py", "tests/space/test_build.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test the six kinds of nets, or all of them where each is a case of its own.

    The conformance suite takes every net through everything.
    """
    if "zoo_net" in metafunc.fixturenames:
        is_all = metafunc.definition.nodeid.startswith(_ALL_NETS)
        names = sorted(_ZOO.ZOO) if is_all else _KINDS
        metafunc.parametrize("zoo_net", names, indirect=True, scope="session")


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


@pytest.fixture(scope="session")
def zoo_net(request: pytest.FixtureRequest) -> ZooNet:
    """Nets of the zoo in turn, see `pytest_generate_tests`."""
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


class PostgresServer:
    """A server of this test session's own, on 127.0.0.1, with a password.

    Args:
        programs: Folder of `initdb` and `pg_ctl`.
    """

    PASSWORD = "s3cret-pw"

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="autocompress-pg-"))
        # it refuses to run as root
        self._user = {"user": "postgres"} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(self._folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        secret = self._folder / "secret"
        secret.write_text(self.PASSWORD)
        options = ("-A", "scram-sha-256", "-U", "tester", f"--pwfile={secret}", "-N")
        self._run("initdb", "-D", str(self._folder / "data"), *options)
        self._start("start")

    def restart(self) -> None:
        """Cut all connections, as an upgrade does."""
        self._start("restart", "-m", "fast")

    def close(self) -> None:
        """Stop it, and remove what it has written."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """Address of an empty database."""
        import psycopg

        name = f"db_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return self.address(name)

    def address(self, database: str) -> str:
        return f"postgresql://tester:{self.PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _start(self, *action: str) -> None:
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder} -F"
        data, log = str(self._folder / "data"), str(self._folder / "log")
        self._run("pg_ctl", "-D", data, "-l", log, "-o", settings, "-w", *action)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        log = subprocess.DEVNULL  # a server would keep a pipe open
        subprocess.run(command, check=True, stdout=log, stderr=log, timeout=60, **self._user)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server; skips where there is none to start, or no driver for it."""
    need_extra("postgres")
    places = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if (found := shutil.which("initdb")) is not None:
        places.append(Path(found).resolve().parent)
    if not places:
        pytest.skip("needs a program on the PATH: initdb (PostgreSQL)")
    server = PostgresServer(places[0])
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """Address of an empty database of this test's own, password included."""
    return postgres_server.new_database()
