"""The status page in a real browser, with real agents behind it."""

from __future__ import annotations

import re
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from raft_agent.api import protocol
from tests.e2e.agents import LocalCluster, free_ports, local_cluster, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)
# The browser itself talks to nobody but the agent.
FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
PHONE = {"width": 360, "height": 740}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"
)


@dataclass
class Site:
    """Three agents that serve their pages, and a browser."""

    cluster: LocalCluster
    ports: dict[str, int]
    browser: Browser

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield running
        running.close()


@contextmanager
def running(browser: Browser) -> Iterator[Site]:
    # A browser beside three agents keeps them from two cores for longer than 150 ms.
    slow = "[timing]\nelection_timeout_min_ms = 1000\nelection_timeout_max_ms = 2000\n"
    with local_cluster(start=False, extra=slow) as cluster:
        ports = dict(zip(cluster.agents, free_ports(3), strict=True))
        for agent in cluster:
            agent.environment["RAFT_SERVER_HTTP_ADDR"] = f"127.0.0.1:{ports[agent.name]}"
        cluster.start()
        cluster.leader()
        yield Site(cluster, ports, browser)


@pytest.fixture(scope="module")
def site(browser: Browser) -> Iterator[Site]:
    """For tests that leave all members alive."""
    with running(browser) as shared:
        yield shared


@contextmanager
def opened(site: Site, name: str, **options: object) -> Iterator[Page]:
    """The page of an agent. Whatever the page complains of fails the test, but for a connection
    that an agent's end cut."""
    page = site.browser.new_page(**options)  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    asked: set[str] = set()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: None if "net::ERR_" in message.text else complaints.append(message.text),
    )
    page.on("request", lambda request: asked.add(re.sub(r"(?<=\d)/.*", "/", request.url)))
    page.goto(site.url(name))
    try:
        yield page
        assert complaints == []
        assert asked == {site.url(name)}
    finally:
        page.close()


def transfer(site: Site) -> str:
    """Have another member lead; its name."""
    before = site.cluster.leader()
    answer = before.ask(protocol.LeaderTransfer(1), timeout_s=10)
    assert isinstance(answer, protocol.TransferResult)
    wait_for("the new leader", lambda: site.cluster.leader() is not before or None)
    return site.cluster.leader().name


def shows_leader(page: Page, name: str) -> None:
    expect(page.locator("#verdict")).to_have_text(f"{name} leads")
    expect(page.locator(f'[data-member="{name}"]')).to_have_attribute("data-role", "leader")


@pytest.mark.parametrize("at", ["leader", "follower"])
def test_it_shows_three_nodes_at_every_node(site: Site, at: str) -> None:
    leader = site.cluster.leader()
    name = leader.name if at == "leader" else site.cluster.followers()[0].name
    leader.ask(protocol.Put(1, "key", b"value"))
    with opened(site, name) as page:
        shows_leader(page, leader.name)
        expect(page.locator("[data-member]")).to_have_count(3)
        for member in site.cluster.agents:
            card = page.locator(f'[data-member="{member}"]')
            expect(card).to_have_attribute("data-state", "healthy")
            facts = card.locator("dl")
            expect(facts).to_contain_text(f"Term{leader.status().term}")
            expect(facts).to_contain_text("Lag0")
        expect(page.locator("#detail")).to_contain_text("3 of 3 voters answer")
        expect(page.locator("#events")).to_contain_text(
            "leads from now on" if at == "leader" else f"follows {leader.name}"
        )
        expect(page.locator("#indexes")).to_contain_text(
            f"Committed{site.cluster.leader().status().commit_index}"
        )
        expect(page.locator("#timeline .reign")).not_to_have_count(0)
        expect(page.locator("canvas")).to_have_count(5)


def test_the_latency_pictures_show_what_was_measured(site: Site) -> None:
    leader = site.cluster.leader()
    with opened(site, leader.name) as page:
        shows_leader(page, leader.name)
        for picture in ("commit", "fsync", "wire", "loop_lag"):
            shown = page.locator(f'[data-latency="{picture}"] .median')
            wait_for(f"the median of {picture}", lambda s=shown: written(leader, s))
            assert re.fullmatch(r"[\d.]+ (µs|ms|s)", shown.text_content() or "")


def written(leader: object, shown: object) -> bool | None:
    """Write something; whether the picture has numbers by now."""
    leader.ask(protocol.Put(1, "key", b"value"))  # type: ignore[attr-defined]
    shown.page.wait_for_timeout(50)  # type: ignore[attr-defined]  # lets the browser's events in
    return shown.is_visible() or None  # type: ignore[attr-defined]


def test_it_follows_a_change_of_the_leader_within_two_seconds(site: Site) -> None:
    """Measured by the one clock of this machine: from the event at the agent until the page has
    its new words. The median of three, because others use this machine too."""
    watched = site.cluster.followers()[0]
    delays_ms = []
    with opened(site, watched.name) as page:
        shows_leader(page, site.cluster.leader().name)
        page.evaluate(
            """() => {
              window.changes = [];
              new MutationObserver(() => window.changes.push(
                [document.getElementById("verdict").textContent, Date.now()],
              )).observe(document.getElementById("verdict"), {childList: true, subtree: true});
            }"""
        )
        for _ in range(3):
            seen = len(page.evaluate("window.changes"))
            name = transfer(site)
            shows_leader(page, name)
            changes = page.evaluate("window.changes")[seen:]
            at_ms = next(at for text, at in changes if text == f"{name} leads")
            found = [
                event
                for event in watched.events()
                if event.kind in ("leader_found", "leader_elected")
            ][-1]
            delays_ms.append(at_ms - page.evaluate("text => Date.parse(text)", found.time))
    assert statistics.median(delays_ms) < 2000


def test_it_survives_the_restart_of_its_agent(site: Site) -> None:
    watched = site.cluster.followers()[0]
    with opened(site, watched.name) as page:
        shows_leader(page, site.cluster.leader().name)
        page.evaluate("window.isTheSamePage = true")
        watched.kill()
        expect(page.locator("body")).to_have_attribute("data-connection", "lost")
        expect(page.locator("#connection")).to_contain_text("no contact since")
        expect(page.locator("[data-member]")).to_have_count(3)
        watched.start()
        expect(page.locator("body")).to_have_attribute("data-connection", "live")
        shows_leader(page, site.cluster.leader().name)
        starts = page.locator('#events [data-kind="started"]')
        expect(starts).to_have_count(2)
        assert page.evaluate("window.isTheSamePage")


def test_a_dead_member_and_a_lost_quorum_are_said(browser: Browser) -> None:
    with running(browser) as own, opened(own, own.cluster.leader().name) as page:
        first, second = own.cluster.followers()
        first.kill()
        card = page.locator(f'[data-member="{first.name}"]')
        expect(card).to_have_attribute("data-state", "unreachable")
        expect(page.locator("#detail")).to_contain_text("2 of 3 voters answer")
        second.kill()
        expect(page.locator(".hero")).to_have_attribute("data-state", "bad")
        expect(page.locator("#note")).to_contain_text("no leader is known")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(site: Site, scheme: str) -> None:
    name = site.cluster.leader().name
    with opened(site, name, viewport=PHONE, color_scheme=scheme, has_touch=True) as page:
        shows_leader(page, name)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"]
        paper, ink = page.evaluate(
            """() => {
              const style = getComputedStyle(document.body);
              return [style.backgroundColor, style.color].map((color) => {
                const [red, green, blue] = color.match(/[\\d.]+/g).map(Number);
                return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
              });
            }"""
        )
        assert (paper < 40 and ink > 200) if scheme == "dark" else (paper > 200 and ink < 60)
