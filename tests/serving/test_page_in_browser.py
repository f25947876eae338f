"""The page in a browser: places are selected, things found, errors shown."""

import dataclasses
import os
import shutil

import pytest
import served

from locvlm_jax.serving import examples

pytest.importorskip("starlette", reason="the extra [serve] is not installed")
playwright = pytest.importorskip(
  "playwright.sync_api", reason="playwright is not installed"
)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
needs_browser = pytest.mark.skipif(not BROWSER, reason="no Chromium is here")

LIMITS = dataclasses.replace(
  served.SMALL, body_bytes=1 << 20, pixels=10**6, prompt_tokens=60
)


@pytest.fixture(scope="module")
def client():
  with served.running(LIMITS, examples=examples.micro_world()) as client:
    client.rules.answers = {
      "Where is the red cup?": "It is at [24,24,71,71].",
      "Where is the dog?": "There is no dog.",
    }
    yield client


@pytest.fixture(scope="module")
def browser():
  with playwright.sync_playwright() as started:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = started.chromium.launch(executable_path=BROWSER, args=arguments)
    yield browser
    browser.close()


@pytest.fixture
def page(client, browser):
  """The page with its first example; nothing may be asked of elsewhere."""
  context = browser.new_context(viewport={"width": 1280, "height": 800})
  page, origin = context.new_page(), f"http://127.0.0.1:{client.port}"
  wrong = []
  page.on("pageerror", lambda error: wrong.append(str(error)))
  page.on("console", lambda m: m.type == "error" and wrong.append(m.text))

  def only_here(route):
    url = route.request.url
    if url.startswith((origin, "data:", "blob:")):
      route.continue_()
    else:
      wrong.append(url)
      route.abort()

  context.route("**/*", only_here)
  page.goto(origin)
  page.wait_for_selector("#stage:not([hidden])")
  page.wrong = wrong
  yield page
  context.close()


def _ask(page, text):
  page.fill("#question", text)
  page.press("#question", "Enter")
  page.wait_for_selector("#send:not([disabled])")


def _drag(page, start, end):
  """Drags from one place of the picture to another, in shares of it."""
  box = page.locator("#stage").bounding_box()
  at = [
    (box["x"] + x * box["width"], box["y"] + y * box["height"])
    for x, y in (start, end)
  ]
  page.mouse.move(*at[0])
  page.mouse.down()
  page.mouse.move(*at[1], steps=3)
  page.mouse.up()


def _question(client):
  return client.rules.batches[-1][0].question


@needs_browser
def test_a_dragged_box_is_asked_about_in_pixels(page, client):
  _drag(page, (0.25, 0.25), (0.75, 0.5))
  assert page.is_visible("#chip")
  _ask(page, "")
  question = _question(client)
  numbers = question.question.removeprefix("What is at [").removesuffix("]?")
  x1, y1, x2, y2 = map(int, numbers.split(","))
  assert abs(x1 - 24) <= 2 and abs(x2 - 72) <= 2 and y1 < y2
  assert page.is_hidden("#chip") and not page.wrong


@needs_browser
def test_a_click_and_the_keyboard_select_a_place_too(page, client):
  _drag(page, (0.5, 0.5), (0.5, 0.5))
  assert page.locator("#overlay .selected").count() == 1
  page.press("#stage", "Escape")
  assert page.locator("#overlay .selected").count() == 0
  page.press("#stage", "ArrowRight")
  page.press("#stage", "Shift+ArrowDown")
  page.press("#stage", "Enter")
  page.wait_for_selector(".answered")
  page.wait_for_selector("#send:not([disabled])")
  assert _question(client).question.startswith("What is at [")
  assert not page.wrong


@needs_browser
def test_what_is_found_is_drawn_and_what_is_not_there_is_denied(page):
  _ask(page, "find the red cup")
  assert page.locator("#overlay .found").count() == 1
  mark = page.locator(".answered .mark")
  assert mark.text_content() == "red cup"
  mark.hover()
  assert page.locator("#overlay .strong").count() == 1
  _ask(page, "find a dog")
  assert page.locator(".answered").last.text_content() == "There is no dog."
  assert page.locator("#overlay .found").count() == 1 and not page.wrong


@needs_browser
def test_every_object_is_drawn_and_what_there_is_none_of_is_said(page, client):
  _ask(page, "find every cup and the plate")
  assert _question(client).question == "Find every cup, plate."
  assert page.locator("#overlay .found").count() == 2
  marks = page.locator(".answered .mark").all_text_contents()
  assert marks == ["cup · 0.25", "cup · 0.75"]
  assert "no plate" in page.locator(".answered").last.text_content()
  assert not page.wrong


@needs_browser
def test_a_second_turn_knows_the_first(page, client):
  _ask(page, "what is it")
  _ask(page, "and now")
  question = _question(client)
  assert question.history == (("what is it", "what is it"),)
  assert question.question == "and now" and len(question.pictures) == 1
  page.click("#fresh")
  assert page.locator("#talk li").count() == 0
  _ask(page, "anew")
  assert _question(client).history == () and not page.wrong


@needs_browser
def test_an_error_is_shown_and_the_page_goes_on(page):
  _ask(page, "word " * 61)
  assert "tokens" in page.text_content("#error")
  # What was typed can be changed and asked again.
  assert page.locator("#talk li").count() == 0
  assert page.input_value("#question").startswith("word word")
  page.wrong.clear()  # the browser names the refused request itself
  _ask(page, "shorter")
  assert page.is_hidden("#error")
  assert page.locator(".answered").last.text_content() == "shorter"


@needs_browser
def test_turns_that_there_is_no_room_for_are_left_out(page, client):
  _ask(page, "first " * 20)
  _ask(page, "second")
  assert len(_question(client).history) == 1
  _ask(page, "third " * 30)
  assert page.is_hidden("#error")
  assert [q for q, _ in _question(client).history] == ["second"]


@needs_browser
def test_the_picture_is_shown_as_the_model_sees_it(page):
  page.click("#as-seen")
  page.wait_for_selector("#seen:not([hidden])")
  assert "96 × 96" in page.text_content("#seen figcaption")
  page.click("#as-seen")
  assert page.is_visible("#stage") and not page.wrong


@needs_browser
def test_a_phone_needs_no_scrolling_to_the_side(client, browser):
  context = browser.new_context(
    viewport={"width": 390, "height": 844}, color_scheme="dark"
  )
  page = context.new_page()
  page.goto(f"http://127.0.0.1:{client.port}")
  page.wait_for_selector("#stage:not([hidden])")
  assert page.evaluate("document.documentElement.scrollWidth") <= 390
  context.close()
