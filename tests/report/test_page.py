import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from autocompress.report.page import render_page, render_update, write_report
from autocompress.run_record import RunRecord, TrialRecord

Factory = Callable[..., RunRecord]
EVIL = "<script>alert(1)</script>\"'&amp;<img src=x onerror=alert(2)>`</style>"
VOID = {"meta", "br", "img", "link"}


class Outline(HTMLParser):
    """Checks that tags close in order, and collects what was opened and the visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page.replace(get_plotlyjs(), ""))
    parser.close()
    assert parser.open == []
    return parser


def text_of(page: str) -> str:
    return " ".join(" ".join(outline(page).text).split())


@pytest.mark.parametrize(
    "shape",
    [
        {"n_search": 5},
        {"n_search": 5, "objectives": "accuracy,size"},
        {"n_search": 5, "objectives": "accuracy,latency"},
        {"n_search": 5, "with_baseline": False},
        {"n_search": 0, "with_controls": False},
        {"n_search": 0, "with_controls": False, "with_baseline": False},
        {"n_search": 0, "with_controls": False, "with_baseline": False, "n_failed": 0},
    ],
)
def test_render_page_is_well_formed_and_asks_for_nothing_from_outside(
    make_run: Factory, shape: dict[str, object]
) -> None:
    page = render_page(make_run(**shape))
    parser = outline(page)
    for tag, attributes in parser.tags:
        assert tag not in ("link", "img", "iframe", "base")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(a["content"] for t, a in parser.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-") or "'none'" in policy


def test_render_page_inlines_plotly_exactly_once(make_run: Factory) -> None:
    assert render_page(make_run(5)).count(get_plotlyjs()) == 1


def test_render_page_leaves_plotly_out_when_there_is_no_figure(make_run: Factory) -> None:
    page = render_page(make_run(0, with_controls=False, with_baseline=False))
    assert len(page) < 60_000


def test_render_page_escapes_every_name(make_run: Factory) -> None:
    run = make_run(
        6,
        name=EVIL,
        layers=tuple(f"{EVIL}{i}" for i in range(5)),
        reason=EVIL,
        label=EVIL + " {}",
    )
    info = {EVIL: EVIL, "nested": {EVIL: [EVIL, {EVIL: EVIL}]}}
    page = render_page(dataclasses.replace(run, info=info))
    parser = outline(page)
    assert not any(tag == "img" for tag, _ in parser.tags)
    n_executed = sum(tag == "script" and "type" not in a for tag, a in parser.tags)
    assert n_executed == 2
    assert "<script>alert" not in page
    assert "<script>alert(1)</script>" in "".join(parser.text)


def payload_of(page: str) -> dict[str, Any]:
    """The one JSON block that the page's script reads."""
    blocks = re.findall(r'<script type="application/json" id="report-data">(.*?)</script>', page)
    assert len(blocks) == 1
    return dict(json.loads(blocks[0]))


def test_render_page_has_one_block_of_data_whatever_the_names(make_run: Factory) -> None:
    payload = payload_of(render_page(make_run(6, label="</script>{}")))
    assert list(payload["figures"]) == [
        "size", "latency", "cube", "hypervolume", "choices", "gain-size", "gain-latency",
    ]  # fmt: skip
    assert all(figure["data"] for figure in payload["figures"].values())
    assert payload["data"]["trials"][-3]["name"] == "</script>12 (12)"


def test_render_page_says_what_each_point_shows_once_only(make_run: Factory) -> None:
    figures = payload_of(render_page(make_run(6)))["figures"]
    for name in ("size", "latency", "cube"):
        drawn = [t for t in figures[name]["data"] if t.get("meta") == "trials"]
        assert drawn
        assert not any("hovertext" in trace for trace in drawn)


def test_render_page_is_a_pure_function_of_the_run(make_run: Factory) -> None:
    assert render_page(make_run(6)) == render_page(make_run(6))


def test_render_page_lets_a_server_add_a_script_that_may_fetch(make_run: Factory) -> None:
    page = render_page(make_run(0, with_baseline=False, with_controls=False), extra_script="go()")
    digest = base64.b64encode(hashlib.sha256(b"go()").digest()).decode()
    assert f"'sha256-{digest}'" in page
    assert "connect-src 'self';" in page
    assert get_plotlyjs() in page  # figures may come later
    assert "connect-src" not in render_page(make_run(3))


def test_render_update_holds_what_the_page_was_made_of(make_run: Factory) -> None:
    run = make_run(6)
    update, page = json.loads(render_update(run)), render_page(run)
    assert payload_of(page) == {"data": update["data"], "figures": update["figures"]}
    for name, part in update["parts"].items():
        assert f'<div id="part-{name}">{part}</div>' in page


def test_render_page_of_many_trials_stays_small(make_run: Factory) -> None:
    page = render_page(make_run(500, n_failed=30))
    assert len(page.encode()) < 6_000_000


def test_render_page_says_what_is_not_shown_and_why(make_run: Factory) -> None:
    text = text_of(render_page(make_run(5)))
    assert "this run has no sensitivity table" in text
    assert "takes 20 tuned trials" in text


def test_render_page_keeps_refined_trials_apart(
    make_run: Factory, train_longer: Callable[[RunRecord], RunRecord]
) -> None:
    run = train_longer(make_run(6))
    page = render_page(run)
    assert "2 refined" in page.split("</header>")[0]
    assert "Refined and validated" in text_of(page)
    again = payload_of(page)["data"]["refined"]
    assert sorted(map(int, again)) == sorted(t.number for t in run.refined)
    names = [t.get("name") for t in payload_of(page)["figures"]["size"]["data"]]
    assert "refined: trained in full" in names
    assert "trained longer by validate" in names


def test_render_page_says_what_the_search_found(make_run: Factory) -> None:
    text = text_of(render_page(make_run(0)))
    assert "By size: the search did not beat the controls." in text
    assert "untuned control int8 post-training" in text
    assert "autocompress export resnet20 --trial" in text


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"n_failed": 0}, "No trial has been started yet"),
        ({"n_failed": 4}, "All 4 trials failed"),
        ({"n_failed": 0, "with_baseline": True}, "Only the baseline is measured so far"),
    ],
)
def test_render_page_says_so_when_there_is_no_front(
    make_run: Factory, shape: dict[str, object], words: str
) -> None:
    defaults = {"n_search": 0, "with_controls": False, "with_baseline": False}
    assert words in text_of(render_page(make_run(**(defaults | shape))))


def test_render_page_counts_unfinished_trials(make_run: Factory) -> None:
    run = make_run(0, with_controls=False, with_baseline=False, n_failed=2)
    running = dataclasses.replace(run.trials[0], state="running", reason=None)
    text = text_of(render_page(dataclasses.replace(run, trials=(running, run.trials[1]))))
    assert "(1 failed, 1 unfinished)" in text
    assert "not finished: still running, or interrupted" in text


def without_latency(trial: TrialRecord) -> TrialRecord:
    figures = trial.measurement and dataclasses.replace(trial.measurement, latency_ms=None)
    return dataclasses.replace(trial, measurement=figures)


def test_render_page_names_the_objective_that_finished_trials_lack(make_run: Factory) -> None:
    run = make_run(20, n_failed=2)
    untimed = dataclasses.replace(run, trials=tuple(without_latency(t) for t in run.trials))
    text = text_of(render_page(untimed))
    assert "27 trials finished without a measured latency (2 failed beside them), so" in text
    assert "2 failed, 27 without a measured latency." in text
    assert ", 27 unfinished" not in text
    one = dataclasses.replace(run, trials=(*run.trials[:9], without_latency(run.trials[9])))
    assert "9 trials measured" in text_of(render_page(one))
    assert "1 without a measured latency." in text_of(render_page(one))


def test_render_page_of_stopped_and_failed_trials_does_not_wait_for_more(make_run: Factory) -> None:
    run = make_run(0, with_controls=False, with_baseline=False, n_failed=2)
    stopped = dataclasses.replace(run.trials[0], state="stopped")
    text = text_of(render_page(dataclasses.replace(run, trials=(stopped, run.trials[1]))))
    assert "No trial was measured (1 failed, 1 stopped early), so there is no front." in text
    assert "again later" not in text


def test_render_page_says_why_latency_is_not_shown(make_run: Factory) -> None:
    text = text_of(render_page(make_run(5, objectives="accuracy,size")))
    assert "Latency is not an objective of this run" in text
    assert "--objectives accuracy,size,latency" in text


def test_render_page_lists_failed_trials_with_their_reasons(make_run: Factory) -> None:
    text = text_of(render_page(make_run(3, n_failed=2, reason="export: no kernel for Foo")))
    assert text.count("export: no kernel for Foo") == 2


def test_render_page_shows_how_it_was_measured(make_run: Factory) -> None:
    text = text_of(render_page(make_run(1)))
    for fact in ("x86-64, 2 cores", "2.13.0", "45000", "examples/02_cifar10_resnet20.py"):
        assert fact in text


def test_render_page_quotes_a_run_name_for_the_shell(make_run: Factory) -> None:
    text = text_of(render_page(make_run(3, name="my run; rm -rf x")))
    assert "autocompress export 'my run; rm -rf x' --trial" in text


def test_write_report_writes_the_page(make_run: Factory, tmp_path: Path) -> None:
    run = make_run(0, with_controls=False, with_baseline=False)
    write_report(run, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_page(run)
