"""A real port, and a real browser."""

import shutil

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.http import QueryDict


def test_real_port(live_websocket):
    with live_websocket.websocket("/echo/") as ws:
        ws.send("hello")
        assert ws.receive() == "hello"


def test_refusal_on_a_real_port(live_websocket):
    with live_websocket.websocket("/echo/", headers={"origin": "https://evil.example"}) as ws:
        assert ws.response.status_code == 403


def test_user_on_a_real_port(live_websocket):
    live_websocket.force_login(User.objects.create_user("ada"))
    with live_websocket.websocket("/me/?q=x") as ws:
        assert ws.receive_json() == {"user": "ada", "term": "x"}


@pytest.mark.parametrize(
    ("path", "data", "term"),
    [
        ("/me/?q=ü ☃", None, "ü ☃"),
        ("/me/?q=a%20%26", None, "a &"),
        ("/me/?q=x", {"q": "ü"}, "ü"),
        ("/me/", QueryDict("q=a&q=b"), "b"),
        ("/räume/☃ ü/", None, "☃ ü"),
    ],
)
def test_addresses(live_websocket, websocket_client, path, data, term):
    """As the test client writes them."""
    for client in (live_websocket, websocket_client):
        with client.websocket(path, data) as ws:
            assert ws.receive_json()["term"] == term


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("Chromium is missing")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.mark.browser
@pytest.mark.timeout(120)
def test_browser(live_server, live_websocket, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    live_websocket.force_login(User.objects.create_user("ada"))
    name = settings.SESSION_COOKIE_NAME
    browser.get(live_server.url)
    browser.add_cookie({"name": name, "value": live_websocket.cookies[name].value})
    browser.get(live_server.url)
    log = browser.find_element(By.ID, "log")
    WebDriverWait(browser, 30).until(lambda _: log.text == '{"user": "ada", "term": ""}')
