"""The page in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
USE = """
<script>
  const lanes = document.getElementById("lanes");
  const said = [];
  const time = document.getElementById("at-time");
  const note = () => said.push(lanes.getAttribute("aria-valuenow") + " " + time.textContent);
  const key = (name) => { lanes.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true })); note(); };
  key("Home"); key("ArrowRight"); key("PageUp"); key("End");
  const box = lanes.querySelector(".overlay").getBoundingClientRect();
  lanes.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, bubbles: true })); note();
  document.body.dataset.said = said.join("; ");
</script>
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on this machine")


def rendered(html: str, folder: Path) -> tuple[str, str]:
    """The document after its scripts ran, and what the browser complained of."""
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=2000"]
    ran = subprocess.run(
        [str(CHROMIUM), *words, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ran.stdout, "\n".join(line for line in ran.stderr.splitlines() if "CONSOLE" in line)


def test_it_loads_under_its_policy_without_a_complaint(report: str, tmp_path: Path) -> None:
    document, complaints = rendered(report, tmp_path)
    assert not complaints
    assert re.search(r'id="at-hardness">0\.\d\d<', document)
    assert re.search(r'id="at-reasons"><span class="reason">\w+ 0\.\d\d', document)


def test_pointer_and_keys_move_the_readout(report: str, tmp_path: Path) -> None:
    open_to_tests = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report)
    document, complaints = rendered(open_to_tests.replace("</body>", USE + "</body>"), tmp_path)
    assert not complaints
    said = re.search(r'data-said="([^"]*)"', document)
    assert said is not None
    assert said[1] == "0 0:00.0; 0.05 0:00.1; 1.05 0:01.1; 3.95 0:04.0; 2 0:02.0"
