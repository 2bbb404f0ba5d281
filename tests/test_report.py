"""The report in a real browser: no error, no request, every plot drawn."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_report_in_a_browser(cli, tmp_path):
    flags = [
        "--seeds",
        "2",
        "--iterations",
        "10",
        "--eval-every",
        "5",
        "--baselines",
        "joint",
        "--report",
        "report.html",
    ]
    code, _, errors = cli(
        "compare", "split-blobs", "--strategy", "FineTuning()", "--strategy", "Replay(size=20)", *flags
    )
    assert code == 0, errors
    page = tmp_path / "report.html"
    text = page.read_text()
    outside = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=", outside), "the page loads something"
    probe = "<script>window.onerror=(m)=>document.body.setAttribute('data-error',m);const e=console.error;console.error=(...a)=>{document.body.setAttribute('data-error',a.join(' '));e(...a)}</script>"
    watched = tmp_path / "watched.html"
    ending = "<script>window.addEventListener('load',()=>document.body.setAttribute('data-requests',performance.getEntriesByType('resource').length))</script></body>"
    watched.write_text(text.replace("<body>", f"<body>{probe}", 1).replace("</body>", ending))
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=20000", "--dump-dom", watched.as_uri()],
        capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    dom = done.stdout
    body = re.search(r"<body[^>]*>", dom)
    assert body and "data-error" not in body[0], body
    assert 'data-requests="0"' in body[0], body
    wanted = len(re.findall(r"class=plot", text))
    assert wanted == 9 and len(re.findall(r'class="main-svg"[^>]*', dom)) >= wanted
    assert len(re.findall(r"js-plotly-plot", re.sub(r"<script>.*?</script>", "", dom, flags=re.DOTALL))) >= wanted
