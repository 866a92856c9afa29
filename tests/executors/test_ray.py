"""A Ray cluster: what it must not be, and what becomes of trials when a node is lost."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from autocompress.errors import InputError
from autocompress.executors import ray_cluster
from autocompress.executors.ray_cluster import check_address
from tests.needs import need_extra

LOSE_A_NODE = """
import sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from autocompress.tasks.fingerprint import model_fingerprint
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.executors.job import EvaluationJob
from autocompress.executors.ray_cluster import RayExecutor
from autocompress.executors.retrying import RetryingExecutor
from autocompress.executors.worker import WorkerSpec
from autocompress.tasks.factory import load_task

task, folder = sys.argv[1], Path(sys.argv[2])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
if not cluster.address.startswith("127."):
    print(cluster.address)
    cluster.shutdown()
    sys.exit()
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
spec = WorkerSpec(
    task=task, arguments={}, settings=EvaluationSettings(threads=1, has_latency=False),
    model=model_fingerprint(load_task(task, {}).model.eval()),
)
executor = RetryingExecutor(
    RayExecutor(spec, address=cluster.address, n_slots=2, timeout_s=200.0)
)
(folder / "augment_does").write_text("wait for another")  # until both are at work
plan = CompressionPlan(layers={"0": LayerPlan(weight_bits=4)})
for number in range(2):
    keep = folder / f"{number}.safetensors"
    executor.submit(number, EvaluationJob(plan=plan, seed=1, fidelity=1, keep=keep))
while len(list(folder.glob("here.*"))) < 2:
    time.sleep(0.05)
cluster.remove_node(nodes[1], allow_graceful=False)
(folder / "augment_does").write_text("")
began = time.monotonic()
outcomes = [executor.wait(lambda number, stage, share: None) for _ in range(2)]
losses = {outcome.measurement().loss for outcome in outcomes}
print(sorted(o.number for o in outcomes), len(losses), round(time.monotonic() - began, 1))
executor.close()
cluster.shutdown()
"""


@pytest.mark.timeout(300)
def test_trials_of_a_lost_node_are_evaluated_on_another(task_path: Path, tmp_path: Path) -> None:
    need_extra("ray")
    done = subprocess.run(
        [sys.executable, "-c", LOSE_A_NODE, str(task_path), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if "[0, 1]" not in done.stdout and done.stdout.strip().split()[-1].count(":") == 1:
        pytest.skip(f"Ray's cluster is not on the loopback device here: {done.stdout.split()[-1]}")
    assert "\n[0, 1] 1 " in f"\n{done.stdout}", done.stdout  # both, with the same result
    assert all((tmp_path / f"{number}.safetensors").is_file() for number in range(2))


def test_a_cluster_that_others_can_reach_must_be_protected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    check_address(None)
    check_address("127.0.0.1:6379")
    check_address("[::1]:6379")
    with pytest.raises(InputError, match="must have token authentication") as caught:
        check_address("10.0.0.5:6379")
    assert "RAY_AUTH_MODE=token" in caught.value.hint
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    check_address("10.0.0.5:6379")
    for address in ("10.0.0.5", "ray://10.0.0.5", ":6379", "auto"):
        with pytest.raises(InputError, match="host:port"):
            check_address(address)


def test_a_cluster_that_is_not_there_is_one_line_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"127.0.0.1:{port}", "127.0.0.1:123456789"):
        with pytest.raises(InputError, match="cannot be reached"):
            ray_cluster._connect(None, address, n_cpus=1)


def test_a_missing_ray_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(ray_cluster.importlib, "import_module", missing)
    with pytest.raises(InputError, match="needs Ray") as caught:
        ray_cluster._import_ray()
    assert caught.value.hint == "pip install 'autocompress[ray]'"
