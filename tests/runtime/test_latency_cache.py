import json
import threading

import pytest

from autocompress.runtime.latency import Latency, LatencyCache


def latency(median_ms=1.0):
    return Latency(
        median_ms=median_ms,
        spread_ms=0.1,
        baseline_median_ms=2.0,
        ratio=0.5,
        ratio_low=0.4,
        ratio_high=0.6,
        n_runs=10,
        peak_memory_bytes=None,
    )


def test_latency_cache_returns_what_was_put(tmp_path):
    cache = LatencyCache(tmp_path / "deep" / "latency.jsonl")
    assert cache.get("a") is None
    assert cache.put("a", latency()) == latency()
    assert LatencyCache(cache.path).get("a") == latency()
    assert cache.get("b") is None


def test_latency_cache_keeps_the_first_entry_of_a_key(tmp_path):
    cache = LatencyCache(tmp_path / "latency.jsonl")
    cache.put("a", latency(1.0))
    assert cache.put("a", latency(3.0)) == latency(1.0)
    assert cache.get("a") == latency(1.0)


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00\xff\xfe not json",
        b'{"key": "a", "median_ms": 1.0',
        b'{"key": "a", "median_ms": NaN, "spread_ms": 0, "baseline_median_ms": 1, "n_runs": 1}',
        b'{"key": "a", "median_ms": "x", "spread_ms": 0, "baseline_median_ms": 1, "n_runs": 1}',
        b'{"key": "a"}',
        b'["a"]',
    ],
)
def test_latency_cache_skips_damage_and_goes_on(damage, tmp_path):
    path = tmp_path / "latency.jsonl"
    path.write_bytes(damage)
    cache = LatencyCache(path)
    assert cache.get("a") is None
    assert cache.put("a", latency()) == latency()
    assert cache.get("a") == latency()


def test_latency_cache_goes_on_without_a_file_when_it_cannot_write(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = LatencyCache(tmp_path / "file" / "latency.jsonl")
    assert cache.put("a", latency()) == latency()
    assert cache.get("a") is None
    assert "cannot be written" in caplog.text


def test_latency_cache_is_whole_after_many_writers(tmp_path):
    cache = LatencyCache(tmp_path / "latency.jsonl")

    def write(i):
        for j in range(20):
            cache.put(f"{i}-{j}", latency(1.0 + i))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in cache.path.read_text().splitlines() if line]
    assert len({line["key"] for line in lines}) == len(lines) == 80


def test_latency_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "elsewhere"))
    assert LatencyCache().path == tmp_path / "elsewhere" / "latency.jsonl"
