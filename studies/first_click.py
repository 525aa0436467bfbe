"""How long a visitor of `mage serve` waits: `python studies/first_click.py` writes results/serve.json.

Starts the server anew in every round, opens its page in a headless Chromium, and clicks Generate with the settings that
the page has: seconds until images of the first step are seen, of the first click and of later ones. Needs the extra
web, Playwright, and the system's Chromium.
"""

import argparse
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from choices import RESULTS

from mage.runs.record import Record, write_record

LATER = 5
"""Clicks after the first one."""


def measure(model: str, chromium: str) -> dict[str, list[float]]:
    """Seconds of one start: until the server answers, of the first click, and of later ones."""
    from playwright.sync_api import sync_playwright  # not everybody has it

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [sys.executable, "-m", "mage", "serve", "--model", model, "--port", port, "--json"]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(words, stdout=subprocess.PIPE, cwd=folder) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            started = time.perf_counter() - start
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page()
                page.goto(url)
                clicks = [click(page) for _ in range(1 + LATER)]
                browser.close()
        finally:
            server.send_signal(signal.SIGINT)
    return {"start": [started], "first": clicks[:1], "later": clicks[1:]}


SEEN = """before => {
    const image = document.querySelector('img[alt="The generated images"]');
    const told = [...document.querySelectorAll('.said')].map(said => said.textContent).join(' ');
    const source = image && image.getAttribute('src');
    if (told.includes('Every token is unknown')) before.grey.push(source);
    const step = /[1-9]\\d* of \\d+ steps/.test(told);
    return step && image.complete && image.naturalWidth > 0 && ![...before.sources, ...before.grey].includes(source);
}"""
"""Whether the page shows a picture of a step, which is none of those before and not the grey one."""


def click(page: Any) -> float:
    """Seconds from a click on Generate until images of the first step, or of a later one, are seen.

    Before it a grey picture is shown, in which no token is known yet.
    """
    button = page.get_by_role("button", name="Generate", exact=True)
    button.wait_for()
    shown = page.get_by_alt_text("The generated images", exact=True).all()
    before = page.evaluate_handle("sources => ({sources, grey: []})", [image.get_attribute("src") for image in shown])
    start = time.perf_counter()
    button.click()
    page.wait_for_function(SEEN, arg=before, polling=20)
    seconds = time.perf_counter() - start
    page.get_by_text("4 images of").or_(page.get_by_text("16 images of")).first.wait_for()
    return seconds


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits", help="model that is served")
    parser.add_argument("--rounds", type=int, default=5, help="starts of the server")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="program of the browser")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    start, rounds = time.perf_counter(), []
    for _ in range(options.rounds):
        rounds.append(measure(options.model, options.chromium))
        print(rounds[-1], flush=True)
    all_of = {name: [value for one in rounds for value in one[name]] for name in rounds[0]}
    metrics = {f"{name}_seconds": statistics.median(values) for name, values in all_of.items()}
    metrics |= {f"{name}_seconds_most": max(values) for name, values in all_of.items()}
    protocol = {
        "first_seconds": "from the first click on Generate after the server's start until images of the first step are "
        f"seen, in headless Chromium on the same machine; median of {options.rounds} starts; most: the largest",
        "later_seconds": f"the same of the {LATER} clicks that follow",
        "start_seconds": "from the command `mage serve` until its page can be opened",
    }
    command = f"python studies/first_click.py --model {options.model} --rounds {options.rounds}"
    write_record(
        options.results / "serve.json", Record(command, 0, protocol, {"total": time.perf_counter() - start}, metrics)
    )


if __name__ == "__main__":
    main()
