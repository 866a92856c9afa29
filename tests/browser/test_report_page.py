"""The report in a browser: what a reader can do with it, and who can read it."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from autocompress.report.findings import measured
from autocompress.report.hover import hover_text
from autocompress.report.page import render_update, write_report
from autocompress.run_record import RunRecord

if TYPE_CHECKING:
    from playwright.sync_api import Page

NewPage = Callable[..., "Page"]
Until = Callable[["Page", str], None]
EVIL = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
SIZE = '[data-figure="size"]'
# Numbers of the trials that the traces with such names draw
DRAWN = """([figure, names]) => document.querySelector(`[data-figure="${figure}"]`).data
  .filter(trace => names.some(name => (trace.name || '').startsWith(name)))
  .flatMap(trace => trace.customdata)"""
MARKS = ["on the front", "dominated", "control", "baseline", "breaks"]


def go(page: "Page", address: str) -> None:
    page.goto(address)
    page.wait_for_selector("html[data-drawn=all]", state="attached")


def drawn(page: "Page", *names: str, figure: str = "size") -> list[int]:
    return sorted(page.evaluate(DRAWN, [figure, list(names)]))


def set_slider(page: "Page", key: str, step: int) -> None:
    """Step 0 is the smallest value of all trials."""
    slider = page.locator(f"#filter-{key}")
    slider.fill(str(int(slider.get_attribute("min") or 0) + step))
    page.wait_for_selector("html[data-drawn=all]", state="attached")
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def visit_all(page: "Page", figure: str) -> list[str]:
    """What a screen reader hears at every point of a chart, from left to right."""
    page.locator(f'[data-figure="{figure}"]').focus()
    page.keyboard.press("Home")
    status = page.locator("#status")
    spoken = [status.text_content() or ""]
    for _ in range(int(spoken[0].split(":")[0].removeprefix("1 of ")) - 1):
        page.keyboard.press("ArrowRight")
        spoken.append(status.text_content() or "")
    return spoken


def serious(page: "Page") -> list[str]:
    """What axe-core finds serious or worse: rule and the first element."""
    from axe_playwright_python.sync_playwright import Axe

    found: dict[str, Any] = Axe().run(page).response
    assert len(found["passes"]) > 20  # it has looked
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:160]}"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]


@pytest.fixture(scope="module")
def shared(new_page: NewPage, report_address: str) -> "Page":
    opened = new_page()
    opened.requests = []  # type: ignore[attr-defined]
    opened.on("request", lambda request: opened.requests.append(request.url))  # type: ignore[attr-defined]
    go(opened, report_address)
    return opened


@pytest.fixture
def report(shared: "Page") -> "Page":
    """The report of `full_run`, as it is when it was just opened."""
    if shared.locator("dialog[open]").count():
        shared.keyboard.press("Escape")
    shared.locator("#filter-reset").click()
    shared.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    return shared


def test_report_asks_for_nothing_but_itself(report: "Page", report_address: str) -> None:
    asked = [url for url in report.requests if url.startswith(("file:", "http"))]  # type: ignore[attr-defined]
    assert asked == [report_address]


def test_report_draws_the_members_of_the_front_and_every_other_trial(
    report: "Page", full_run: RunRecord
) -> None:
    front = sorted(t.number for t in full_run.front() if t.role == "search")
    for figure in ("size", "latency"):
        assert drawn(report, "on the front", figure=figure) == front
        everything = sorted(t.number for t in full_run.complete)
        assert drawn(report, *MARKS, figure=figure) == everything
        refined = sorted(t.number for t in full_run.refined)
        assert drawn(report, "refined", figure=figure) == refined


def test_report_shows_at_a_point_what_python_says_of_it(
    report: "Page", full_run: RunRecord
) -> None:
    texts = report.evaluate(
        """() => document.querySelector('[data-figure="size"]').data
          .filter(trace => trace.meta === 'trials' && trace.hoverinfo !== 'skip')
          .flatMap(trace => trace.customdata.map((n, i) => [n, trace.hovertext[i]]))"""
    )
    assert dict(texts) == {t.number: hover_text(full_run, t) for t in full_run.complete}


def test_report_opens_a_card_when_a_point_is_clicked(report: "Page", full_run: RunRecord) -> None:
    number = drawn(report, "on the front")[0]
    place = report.evaluate(
        """([name, n]) => {
          const plot = document.querySelector(`[data-figure="${name}"]`);
          const trace = plot.data.find(t => (t.name || '').startsWith('on the front'));
          const i = trace.customdata.indexOf(n);
          plot.scrollIntoView({block: 'center'});
          const box = plot.getBoundingClientRect();
          const {xaxis, yaxis} = plot._fullLayout;
          return [box.left + xaxis._offset + xaxis.d2p(trace.x[i]),
            box.top + yaxis._offset + yaxis.d2p(trace.y[i])];
        }""",
        ["size", number],
    )
    report.mouse.move(*place)
    report.mouse.click(*place)
    card = report.locator("dialog[open]")
    card.wait_for()
    trial = next(t for t in full_run.trials if t.number == number)
    assert card.locator("h2").inner_text() == trial.label
    assert re.search(f"#trial-{number}$", report.url)
    text = card.inner_text()
    assert f"{100 * measured(trial).accuracy:.2f} %" in text
    assert f"autocompress refine resnet20 --trial {number}" in text
    assert f"autocompress export resnet20 --trial {number}" in text
    n_parts = len({target for knob in full_run.knobs for target in knob.targets})
    rows = card.locator(".strip tbody tr")
    assert rows.count() == n_parts + 1
    rest = measured(trial).size_bytes - sum(measured(trial).layer_bytes.values())
    assert rows.last.inner_text().split("\t") == [
        "graph and the rest", "", "", "", "", f"{rest:,}",
    ]  # fmt: skip


def test_report_opens_the_card_that_the_address_names(
    report: "Page", full_run: RunRecord, until: Until
) -> None:
    number = full_run.refined[0].number
    report.evaluate("n => { location.hash = `trial-${n}`; }", number)
    card = report.locator("dialog[open]")
    card.wait_for()
    heads = card.locator(".card-figures thead th").all_inner_texts()
    assert heads == ["figure", "this trial", "refined", "baseline"]
    report.keyboard.press("Escape")
    until(report, "location.hash === ''")
    assert report.locator("dialog[open]").count() == 0


def test_report_says_in_the_card_why_a_trial_failed(report: "Page", full_run: RunRecord) -> None:
    failed = next(t for t in full_run.trials if t.state == "failed")
    report.locator(f'#failed a[href="#trial-{failed.number}"]').click()
    card = report.locator("dialog[open]")
    card.wait_for()
    assert f"Reason: {failed.reason}" in card.inner_text()
    assert card.locator(".card-figures").count() == 0


def test_report_copies_a_command(report: "Page") -> None:
    report.context.grant_permissions(["clipboard-read", "clipboard-write"])
    report.evaluate("location.hash = 'trial-9'")
    button = report.locator("dialog button", has_text="Copy").first
    button.click()
    report.locator("dialog button", has_text="Copied").wait_for()
    copied = report.evaluate("navigator.clipboard.readText()")
    assert copied == "autocompress refine resnet20 --trial 9"


def test_report_visits_points_by_keyboard_and_opens_their_cards(
    report: "Page", full_run: RunRecord
) -> None:
    chart = report.locator(SIZE)
    chart.focus()
    report.keyboard.press("Home")
    status = report.locator("#status")
    smallest = min(full_run.complete, key=lambda t: measured(t).size_bytes)
    assert status.inner_text().startswith("1 of ")
    assert smallest.label in status.text_content()
    report.keyboard.press("ArrowRight")
    assert status.text_content().startswith("2 of ")
    report.keyboard.press("ArrowLeft")
    report.keyboard.press("Enter")
    report.locator("dialog[open]").wait_for()
    assert report.url.endswith(f"#trial-{smallest.number}")


def test_report_says_what_a_mark_of_longer_training_shows(
    report: "Page", full_run: RunRecord
) -> None:
    spoken = visit_all(report, "size")
    for trial in full_run.refined:
        said = next(words for words in spoken if trial.label in words)
        assert f"accuracy {100 * measured(trial).accuracy:.2f} %" in said
        assert "weights:" not in said


def test_report_says_the_hypervolume_that_a_point_shows(report: "Page") -> None:
    history = report.evaluate("document.querySelector('[data-figure=hypervolume]').data[0].y")
    spoken = visit_all(report, "hypervolume")
    assert len(spoken) == len(history)
    assert all(f", {value:.3f} (" in said for value, said in zip(history, spoken, strict=True))


def test_report_filter_narrows_figures_and_tables(
    report: "Page", full_run: RunRecord, until: Until
) -> None:
    sizes = sorted({measured(t).size_bytes for t in full_run.complete})
    limit = sizes[9]
    kept = sorted(t.number for t in full_run.complete if measured(t).size_bytes <= limit)
    table = report.locator("#size details")
    table.locator("summary").click()
    set_slider(report, "size", 9)
    assert drawn(report, *MARKS) == kept
    assert drawn(report, *MARKS, figure="latency") == kept
    rows = table.locator("tbody tr:visible")
    assert sorted(int(r.get_attribute("data-trial") or -1) for r in rows.all()) == kept
    columns = report.evaluate(
        "document.querySelector('[data-figure=choices]').data[0].meta.columns"
    )
    front = {t.number for t in full_run.front() if t.role != "baseline"}
    assert sorted(columns) == sorted(front & set(kept))
    words = f"{len(kept)} of {len(full_run.complete)} measured trials shown"
    assert report.locator("#filter-count").inner_text() == words
    report.locator("#filter-reset").click()
    until(report, "document.getElementById('filter-count').textContent.startsWith('All')")


def test_report_filters_what_was_trained_longer_by_its_own_figures(
    report: "Page", full_run: RunRecord
) -> None:
    assert full_run.baseline is not None
    base = measured(full_run.baseline).accuracy
    proxies = {t.number: t for t in full_run.complete}
    drops = sorted({base - measured(t).accuracy for t in full_run.complete})
    best = max(full_run.refined, key=lambda t: measured(t).accuracy)
    own = base - measured(best).accuracy
    step = next(i for i, drop in enumerate(drops) if drop >= own - 1e-12)
    assert drops[step] < base - measured(proxies[best.number]).accuracy
    set_slider(report, "drop", step)
    kept = {
        t.number
        for t in (*full_run.refined, *full_run.validated)
        if base - measured(t).accuracy <= drops[step] + 1e-12
    }
    assert set(drawn(report, "refined", "trained longer")) == kept
    assert best.number not in drawn(report, *MARKS)
    rows = report.locator("tr:is([data-of=refined], [data-of=validated]):visible")
    assert {int(r.get_attribute("data-trial") or -1) for r in rows.all()} == kept


def test_report_filters_leave_the_progress_alone(report: "Page", full_run: RunRecord) -> None:
    details = report.locator("#hypervolume details")
    details.locator("summary").click()
    set_slider(report, "size", 2)
    assert details.locator("tbody tr:visible").count() == len(full_run.comparable)
    assert details.locator('a[href="#trial-9"]').count() == 1
    details.locator("summary").click()


def test_report_filter_is_moved_by_keyboard(report: "Page") -> None:
    report.locator("#filter-drop").focus()
    report.keyboard.press("Home")
    report.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    assert len(drawn(report, *MARKS)) < 5
    words = report.locator("#filter-drop").get_attribute("aria-valuetext")
    assert words is not None
    assert words.endswith("pt")


def test_report_turns_three_objectives_when_asked(
    report: "Page", full_run: RunRecord, until: Until
) -> None:
    assert not report.evaluate("Boolean(document.querySelector('[data-figure=cube]').data)")
    report.locator("#cube summary").first.click()
    until(report, "document.querySelector('[data-figure=cube]').data")
    names = ["on the front", "dominated", "control", "baseline"]
    assert drawn(report, *names, figure="cube") == sorted(t.number for t in full_run.complete)
    report.locator("#cube summary").first.click()


def test_report_takes_newer_data_and_keeps_filter_and_card(
    new_page: NewPage, make_run: Callable[..., RunRecord], tmp_path: Path
) -> None:
    path = tmp_path / "r.html"
    before, after = make_run(8), make_run(16)
    write_report(before, path)
    page = new_page()
    go(page, path.as_uri() + "#trial-7")
    page.locator("dialog[open]").wait_for()
    page.locator("#filter-size").evaluate(
        "e => { e.value = -1; e.dispatchEvent(new Event('input')); }"
    )
    n_before = len(drawn(page, *MARKS))
    page.evaluate("payload => autocompressReport.update(payload)", json.loads(render_update(after)))
    page.wait_for_selector("html[data-drawn=all]", state="attached")
    assert page.locator("dialog[open] h2").inner_text() == "trial 7"
    assert "23 trials measured" in page.locator("header").inner_text()
    assert n_before < len(drawn(page, *MARKS)) < len(after.complete)


PLACE = """() => {
  const card = document.getElementById('card');
  const {activeElement} = document;
  return [card.scrollTop, card.querySelectorAll('.scroll')[1].scrollTop,
    activeElement.getAttribute('aria-label') ?? activeElement.textContent];
}"""


def test_report_keeps_the_place_in_an_open_card_when_newer_data_comes(
    new_page: NewPage, full_run: RunRecord, report_address: str
) -> None:
    number = full_run.validated[0].number
    page = new_page(height=700)
    go(page, f"{report_address}#trial-{number}")
    page.locator("dialog[open] .command button").last.focus()
    page.evaluate(
        """() => {
          document.querySelectorAll('#card .scroll')[1].scrollTop = 50;
          document.getElementById('card').scrollTop = 300;
        }"""
    )
    before = page.evaluate(PLACE)
    assert before == [300, 50, "Copy the command to export this trial"]
    title = page.locator("#card-title").element_handle()
    update = "payload => autocompressReport.update(payload)"
    page.evaluate(update, json.loads(render_update(full_run)))
    assert page.evaluate(PLACE) == before
    assert title.evaluate("e => e.isConnected")  # it said the same already
    twice = dataclasses.replace(full_run, refined=full_run.validated)
    page.evaluate(update, json.loads(render_update(twice)))
    assert "refined" in page.locator("#card .card-figures").inner_text()
    assert page.evaluate(PLACE) == before


def test_report_keeps_the_keyboard_on_the_way_along_the_front(
    report: "Page", full_run: RunRecord
) -> None:
    front = sorted(full_run.front(), key=lambda t: measured(t).size_bytes)
    report.evaluate("n => { location.hash = `trial-${n}`; }", front[-3].number)
    report.locator("dialog[open]").wait_for()
    focused = "document.activeElement.textContent"
    assert report.evaluate(focused) == "Close"
    report.locator(".card-ways button").last.focus()
    report.keyboard.press("Enter")
    report.locator("#card-title", has_text=front[-2].label).wait_for()
    assert report.evaluate(focused) == "Larger on the front"
    report.keyboard.press("Enter")
    report.locator("#card-title", has_text=front[-1].label).wait_for()
    assert report.evaluate("document.activeElement.id") == "card-title"  # there is none larger


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_report_has_no_serious_barrier(
    new_page: NewPage, report_address: str, dark: bool, until: Until
) -> None:
    page = new_page(dark=dark)
    go(page, report_address)
    for details in page.locator("details:not(#cube details)").all():
        details.evaluate("details => { details.open = true; }")
    until(page, "document.querySelectorAll('#front [data-table] tr').length > 1")
    assert serious(page) == []
    page.evaluate("location.hash = 'trial-9'")
    page.locator("dialog[open]").wait_for()
    assert serious(page) == []


def test_report_fits_a_phone(new_page: NewPage, report_address: str) -> None:
    page = new_page(width=390, height=844)
    go(page, report_address)
    wide = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(wide) == 0
    assert page.locator(SIZE).bounding_box()["width"] <= 390
    page.evaluate("location.hash = 'trial-9'")
    page.locator("dialog[open]").wait_for()
    assert page.evaluate(wide) == 0
    assert (
        page.evaluate("(d => d.scrollWidth - d.clientWidth)(document.querySelector('dialog'))") == 0
    )


def test_report_leaves_room_beside_the_names_of_knobs_on_a_phone(
    new_page: NewPage, report_address: str
) -> None:
    page = new_page(width=390, height=844)
    go(page, report_address)
    room, names = page.evaluate(
        """() => {
          const {_size, yaxis} = document.querySelector('[data-figure=importance]')._fullLayout;
          return [_size.w, yaxis.ticktext];
        }"""
    )
    assert room > 140
    assert all(len(name) <= 20 for name in names)
    assert len(set(names)) == len(names)


def test_report_runs_nothing_that_a_name_says(
    new_page: NewPage, make_run: Callable[..., RunRecord], tmp_path: Path
) -> None:
    names = tuple(f"{EVIL}{'long' * 60}{i}" for i in range(5))
    run = make_run(8, name=EVIL, layers=names, label=EVIL + " {}", reason=EVIL)
    path = tmp_path / "evil.html"
    write_report(run, path)
    page = new_page(width=390)
    go(page, path.as_uri() + "#trial-8")
    card = page.locator("dialog[open]")
    card.wait_for()
    assert EVIL in card.inner_text()
    page.keyboard.press("Escape")
    page.locator(SIZE).focus()
    page.keyboard.press("Home")
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"n_failed": 0}, "No trial has been started yet"),
        ({"n_failed": 3}, "All 3 trials failed"),
        ({"with_baseline": True}, "Only the baseline is measured so far"),
        (
            {"n_search": 3, "with_baseline": True, "objectives": "accuracy,size"},
            "Latency is not an",
        ),
    ],
)
def test_report_says_so_when_there_is_little_to_show(
    page: "Page",
    make_run: Callable[..., RunRecord],
    tmp_path: Path,
    shape: dict[str, Any],
    words: str,
) -> None:
    path = tmp_path / "little.html"
    usual = {"n_search": 0, "with_baseline": False, "with_controls": False}
    write_report(make_run(**(usual | shape)), path)
    go(page, path.as_uri())
    assert words in page.locator("main").inner_text()
