"""The page in a real browser: Debian's chromium, driven by Playwright. Skipped where either is missing."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import TOY_NEWS, write_jsonl
from serving import Running, running

from fenlei import train
from fenlei.serving.keys import Keys

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")

KEY = "the-key-of-the-page"
PHONE = {"width": 375, "height": 720}
OPTIONS: dict[str, Any] = {"max_steps": 4, "batch_size": 8, "device": "cpu", "baseline": False}


@pytest.fixture(scope="module")
def service(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A generate run behind a key."""
    folder = tmp_path_factory.mktemp("page")
    train(TOY_NEWS, model=str(tiny_qwen), out=folder / "asked", method="generate", tuning="full", max_length=200, **OPTIONS)
    with running(folder / "asked", keys=Keys((KEY,))) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, service: Running) -> Iterator[Page]:
    """On a phone, the key given; an error of a script, or a call to anywhere else, fails the test."""
    context = browser.new_context(viewport=PHONE, locale="en-GB", accept_downloads=True)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: None if request.url.startswith((service.url, "data:", "blob:")) else wrong.append(request.url))
    opened.goto(service.url)
    opened.fill("#key", KEY)
    opened.click("#unlock button")
    playwright.expect(opened.locator("#run")).to_have_text("asked")
    yield opened
    context.close()
    assert wrong == []


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def saved_rows(page: Page, folder: Path) -> list[dict[str, str]]:
    """What the page saves of news.csv."""
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "news.predicted.csv"
    download.value.save_as(folder / "saved.csv")
    with (folder / "saved.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_text_gets_its_label_bars_and_verdict(page: Page) -> None:
    assert page.is_hidden("#locked")
    page.fill("#text", "<b>央行</b>下调利率")
    page.click("#send")
    page.wait_for_selector("#answer:not([hidden])")
    shares = [float(text.rstrip(" %")) for text in page.locator("#bars b").all_inner_texts()]
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert page.inner_text("#label") == page.locator("#bars span").first.inner_text()
    assert page.inner_text("#verdict") in ("sure", "review", "unknown")
    assert page.inner_text("#why")
    assert fits(page)


def test_candidates_are_asked_among(page: Page) -> None:
    page.fill("#text", "央行下调利率")
    page.fill("#labels", "天气，财经, 军事、科技")
    page.click("#send")
    page.wait_for_selector("#answer:not([hidden])")
    assert set(page.locator("#bars span").all_inner_texts()) == {"天气", "财经", "军事", "科技"}
    assert page.inner_text("#verdict") == "review", "nothing was calibrated on these labels"


def test_it_speaks_chinese_and_remembers(page: Page) -> None:
    page.click("#language")
    assert page.inner_text("#send") == "分类"
    assert page.get_attribute("html", "lang") == "zh"
    page.reload()
    assert page.inner_text("#send") == "分类"
    assert fits(page)


def test_a_file_is_classified_and_saved(page: Page, tmp_path: Path) -> None:
    rows = [("国足, 取胜", "a"), ('说 "好"\n两行', "b"), ("=1+1", "c")] * 15
    with (tmp_path / "news.csv").open("w", encoding="gb18030", newline="") as file:
        csv.writer(file).writerows([("标题", "id"), *rows])
    page.set_input_files("#file", tmp_path / "news.csv")
    page.wait_for_selector("#bulk:not([hidden])")
    assert page.input_value("#which") == "标题"
    page.click("#start")
    page.wait_for_selector("#save:not([hidden])")
    playwright.expect(page.locator("#told")).to_contain_text("45 rows done")
    saved = saved_rows(page, tmp_path)
    assert [(row["标题"].removeprefix("'"), row["id"]) for row in saved] == rows
    assert saved[2]["标题"] == "'=1+1", "a spreadsheet would compute it"
    assert all(0 < float(row["confidence"]) <= 1 for row in saved)
    assert fits(page)


def told(page: Page, **info: Any) -> None:
    """The page loaded anew, with a run of which /info says so."""
    page.route("**/info", lambda route: route.fulfill(json={**route.fetch().json(), **info}))
    page.reload()
    playwright.expect(page.locator("#run")).to_have_text("asked")


def test_a_run_on_pairs_is_not_asked_here(page: Page) -> None:
    assert page.is_hidden("#pairs")
    told(page, pair_column="hypothesis")
    assert "pairs of texts" in page.inner_text("#pairs")
    assert page.is_hidden("#send")


@pytest.mark.parametrize("info", [{"text_column": "title, body"}, {"read_from": ["title", "body"]}], ids=["named", "found"])
def test_all_columns_that_the_run_was_trained_on_are_read(info: dict[str, Any], page: Page, tmp_path: Path) -> None:
    told(page, **info)
    (tmp_path / "news.csv").write_text("title,body,other\n一,二,三\n四,,五\n", encoding="utf-8")
    page.set_input_files("#file", tmp_path / "news.csv")
    page.wait_for_selector("#bulk:not([hidden])")
    assert page.input_value("#which") == info.get("text_column", "title,body")
    with page.expect_request("**/v1/classify") as asked:
        page.click("#start")
    assert asked.value.post_data_json == {"texts": ["一\n二", "四"]}


def test_the_column_that_the_run_was_trained_on_is_proposed(page: Page, tmp_path: Path) -> None:
    told(page, text_column="body")
    (tmp_path / "news.csv").write_text("text,body\n一,二\n", encoding="utf-8")
    page.set_input_files("#file", tmp_path / "news.csv")
    page.wait_for_selector("#bulk:not([hidden])")
    assert page.input_value("#which") == "body"


def test_a_file_chosen_while_another_is_classified_gets_its_own_answers_only(page: Page, tmp_path: Path) -> None:
    for name, rows in (("first", 70), ("second", 40)):
        write_jsonl(tmp_path / f"{name}.jsonl", ({"text": f"{name} {at}"} for at in range(rows)))
    held: list[Route] = []
    page.route("**/v1/classify", lambda route: held.append(route))
    page.set_input_files("#file", tmp_path / "first.jsonl")
    with page.expect_request("**/v1/classify"):
        page.click("#start")
    page.set_input_files("#file", tmp_path / "second.jsonl")
    playwright.expect(page.locator("#name")).to_have_text("second.jsonl")
    with page.expect_response("**/v1/classify"):
        held.pop().continue_()
    page.wait_for_timeout(300)
    assert held == [], "it goes on with a file that is there no more"
    assert page.is_hidden("#save")
    page.unroute("**/v1/classify")
    page.click("#start")
    playwright.expect(page.locator("#told")).to_contain_text("40 rows done")
    assert page.locator("#rows td:first-child").all_inner_texts() == [f"second {at}" for at in range(20)]


def test_a_file_without_rows_leaves_the_one_before(page: Page, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "empty.jsonl").write_text("{}\n")
    page.set_input_files("#file", tmp_path / "good.jsonl")
    page.click("#start")
    page.wait_for_selector("#save:not([hidden])")
    page.set_input_files("#file", tmp_path / "empty.jsonl")
    page.wait_for_selector("#problem:not([hidden])")
    page.click("#language")
    assert page.locator("#rows td:first-child").all_inner_texts() == ["one"]


def test_what_is_wrong_with_a_file_is_said(page: Page, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps({"text": "a"}) + "\n[1]\n")
    page.set_input_files("#file", tmp_path / "bad.jsonl")
    page.wait_for_selector("#problem:not([hidden])")
    assert "Line 2" in page.inner_text("#problem")
    assert page.is_hidden("#bulk")


def test_a_quote_that_is_never_closed_is_said(page: Page, tmp_path: Path) -> None:
    (tmp_path / "open.csv").write_text('text,label\n一,a\n"二,b\n三,c\n', encoding="utf-8")
    page.set_input_files("#file", tmp_path / "open.csv")
    page.wait_for_selector("#problem:not([hidden])")
    assert "line 3" in page.inner_text("#problem")
    assert page.is_hidden("#bulk")


@pytest.mark.parametrize("name", ["large.jsonl", "large.json"])
def test_large_numbers_come_back_as_they_were(name: str, page: Page) -> None:
    row = '{"text": "一", "id": 1234567890123456789, "below": -1234567890123456789, "n": 7}'
    saved = page.evaluate("([name, content]) => toCsv(readRows(name, content))", [name, row])
    assert saved.removeprefix("\ufeff").splitlines() == ["text,id,below,n", "一,1234567890123456789,-1234567890123456789,7"]


def test_columns_of_the_file_are_not_overwritten(page: Page, tmp_path: Path) -> None:
    (tmp_path / "news.csv").write_text("text,confidence,novelty,fenlei_prediction\n一,high,0.2,old\n", encoding="utf-8")
    page.set_input_files("#file", tmp_path / "news.csv")
    page.click("#start")
    page.wait_for_selector("#save:not([hidden])")
    (row,) = saved_rows(page, tmp_path)
    assert (row["confidence"], row["novelty"], row["fenlei_prediction"]) == ("high", "0.2", "old")
    assert 0 < float(row["fenlei_fenlei_confidence"]) <= 1


def test_what_is_too_much_at_once_is_asked_in_smaller_parts(page: Page, tmp_path: Path) -> None:
    def slow(route: Route) -> None:
        if len(json.loads(route.request.post_data or "")["texts"]) > 8:
            route.fulfill(status=504, json={"error": {"message": "not answered in time"}})
        else:
            route.continue_()

    write_jsonl(tmp_path / "many.jsonl", ({"text": f"text {at}"} for at in range(40)))
    page.route("**/v1/classify", slow)
    page.set_input_files("#file", tmp_path / "many.jsonl")
    page.click("#start")
    playwright.expect(page.locator("#told")).to_contain_text("40 rows done")
    assert page.locator("#rows td:first-child").all_inner_texts() == [f"text {at}" for at in range(20)]


def test_waiting_for_a_busy_service_is_told_where_one_text_is_asked(page: Page) -> None:
    asked: list[Route] = []

    def busy_once(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:
            route.fulfill(status=429, headers={"Retry-After": "1"}, json={})
        else:
            route.continue_()

    page.route("**/v1/classify", busy_once)
    page.fill("#text", "央行下调利率")
    page.click("#send")
    page.wait_for_selector("#busy:not([hidden])")
    page.wait_for_selector("#answer:not([hidden])")
    assert page.is_hidden("#busy")


def test_a_model_that_loads_for_long_is_met_in_the_end(page: Page) -> None:
    asked: list[Route] = []

    def loading(route: Route) -> None:
        asked.append(route)
        if len(asked) < 10:
            route.fulfill(status=503, headers={"Retry-After": "0.01"}, json={"error": {"message": "the model is still loading"}})
        else:
            route.continue_()

    page.route("**/info", loading)
    page.reload()
    playwright.expect(page.locator("#run")).to_have_text("asked", timeout=15_000)
    assert page.is_hidden("#problem")


def test_only_a_file_that_is_dropped_is_taken(page: Page) -> None:
    drop = "document.dispatchEvent(new DragEvent('drop', {cancelable: true, dataTransfer: new DataTransfer()}))"
    assert page.evaluate(drop), "text that was dropped belongs to the field"


def test_names_and_texts_may_run_from_right_to_left(page: Page) -> None:
    assert page.evaluate("make('td', 'شركة Apple.').dir") == "auto"


def test_what_is_not_certain_is_not_shown_as_certain(page: Page) -> None:
    shown = page.evaluate("[1, 0.9997, 0.5, 0.0001, 0].map((share) => percent(share))")
    assert shown == ["100.0 %", "> 99.9 %", "50.0 %", "< 0.1 %", "0.0 %"]


def test_the_routes_are_listed(page: Page, service: Running) -> None:
    page.goto(service.url + "/docs")
    page.wait_for_selector("section")
    shown = page.inner_text("#routes")
    for path in json.loads(service.get("/openapi.json").body)["paths"]:
        assert path in shown
    assert f"curl -X POST {service.url}/v1/classify" in shown
    assert fits(page)
