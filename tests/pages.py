"""Pages in a real browser: measured at several widths and as paper, in one start of it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

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
PAPER = 688  # pixels between the margins of A4
WIDTHS = {"400": 400, "720": 720, "1000": 1000, "1400": 1400, "paper": PAPER}

# of each frame: boxes past its edge, letters past their drawing's or over other letters, where the first screen's parts end
MEASURE = """
function scrolls(e){for(let p=e.parentElement;p&&p!==e.ownerDocument.body;p=p.parentElement)if(['auto','scroll'].includes(getComputedStyle(p).overflowX))return true;return false}
function measured(w){const d=w.document,width=d.documentElement.clientWidth,cut=[],outside=[],over=[];
for(const e of d.body.querySelectorAll('*')){if(e.closest('svg')&&!['svg','text'].includes(e.tagName))continue;const r=e.getBoundingClientRect();if(!r.width&&!r.height)continue;
if((r.right>width+1||r.left<-1)&&!scrolls(e))cut.push([e.tagName,e.textContent.slice(0,60),Math.round(r.left),Math.round(r.right)])}
for(const s of d.querySelectorAll('svg')){const b=s.getBoundingClientRect(),letters=[...s.querySelectorAll('text')].map(t=>[t.textContent,t.getBoundingClientRect()]).filter(x=>x[1].width);
for(const [t,r] of letters)if(r.right>b.right+2||r.left<b.left-2||r.top<b.top-2||r.bottom>b.bottom+2)outside.push(t);
for(let i=0;i<letters.length&&letters.length<150;i++)for(let j=0;j<i;j++){const a=letters[i][1],c=letters[j][1];if(Math.min(a.right,c.right)-Math.max(a.left,c.left)>2&&Math.min(a.bottom,c.bottom)-Math.max(a.top,c.top)>.35*a.height)over.push([letters[i][0],letters[j][0]])}}
const ends=q=>[...d.querySelectorAll(q)].map(e=>e.getBoundingClientRect().bottom);
return {width,cut,outside,over,ends:{title:ends('h1'),answer:ends('.answer'),how:ends('.how'),figures:ends('.two figure')},errors:w.errors,requests:w.performance.getEntriesByType('resource').map(e=>e.name),drawn:[...d.querySelectorAll('svg')].filter(s=>s.getBoundingClientRect().height>20).length,ids:[...d.querySelectorAll('[id]')].map(e=>e.id)}}
addEventListener('load',()=>{const found={};for(const f of document.querySelectorAll('iframe'))found[f.dataset.name]=measured(f.contentWindow);const e=document.createElement('pre');e.id='found';e.textContent=JSON.stringify(found);document.body.replaceChildren(e)})
"""


def as_paper(text: str) -> str:
    """The page with the rules of paper in force on the screen."""
    return text.replace("@media print", "@media all").replace("@media screen", "@media print")


def measure(pages: dict[str, str], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What a browser finds of each page at each width, details open, as "name 400"; and what its console said."""
    frames = []
    for name, text in pages.items():
        watched = text.replace("<head>", "<head><script>errors=[];onerror=m=>errors.push(m)</script>", 1)
        opened = watched.replace("<details>", "<details open>")
        shown = {size: opened for size in WIDTHS} | {"paper": as_paper(opened)}
        frames += [(f"{name} {size}", WIDTHS[size], shown[size]) for size in WIDTHS]
        frames.append((f"{name} first", 1400, watched))
    body = "".join(
        f'<iframe data-name="{html.escape(name)}" style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(text)}"></iframe>'
        for name, width, text in frames
    )
    page = folder / "frames.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body>{body}<script>{MEASURE}</script>")
    logged = ["--enable-logging=stderr", f"--user-data-dir={folder}/profile", "--virtual-time-budget=20000"]
    assert BROWSER
    done = subprocess.run([BROWSER, *FLAGS, *logged, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=170)  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def printed(text: str, folder: Path) -> bytes:
    """The page as a PDF."""
    source, target = folder / "page.html", folder / "page.pdf"
    source.write_text(text)
    flags = [f"--user-data-dir={folder}/profile", "--no-pdf-header-footer", f"--print-to-pdf={target}"]
    assert BROWSER
    subprocess.run([BROWSER, *FLAGS, *flags, source.as_uri()], capture_output=True, timeout=170, check=True)
    return target.read_bytes()
