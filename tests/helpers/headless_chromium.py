"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

# Without these it asks its maker's servers for updates.
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-sync", "--no-first-run", "--disable-quic"]


def why_not() -> str | None:
    """Why no Chromium can run here; None when it can. As root on Debian it is installed when it is missing."""
    if shutil.which("chromium"):
        return None
    if os.geteuid() or not shutil.which("apt-get"):
        return "Chromium is not installed, and only root with apt-get can install it"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update"], env=environment, check=False, **quiet)
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
    subprocess.run(install, env=environment, check=False, **quiet)
    return None if shutil.which("chromium") else "Chromium cannot be installed here"


@contextmanager
def chromium() -> Iterator:
    """A browser, as Playwright gives it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        yield browser
        browser.close()
