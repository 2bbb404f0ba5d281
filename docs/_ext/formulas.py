"""Formulas as docstrings write them, `sum_i F_i (p_i - c_i)^2`, set with subscripts, powers and Greek letters in HTML.

No script does it in the reader's browser, and nothing is fetched. What is no formula stays as it is.
"""

from __future__ import annotations

import html
import re

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η", "theta": "θ", "lambda": "λ",
    "mu": "μ", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "psi": "ψ", "omega": "ω",
}  # fmt: skip
NO_FACTOR = "of|and|is|in|the|a|as|at|on|to|by|from|for|with|are|or|that|where|goes|alone|flat"
LETTERS = rf"(?<![\w.])(?:[A-Za-z]|{'|'.join(GREEK)})'?"
NAMES = r"(?<![\w.])(?:sum|max|min|mean|argmin|argmax|rate|gate)"  # which are words of names, too, as in min_accuracy
BRACED = r"\{[^}]*\}|\([^()]*\)"
SUBSCRIPT = re.compile(rf"(?:({LETTERS})_({BRACED}|[A-Za-z0-9]+(?!\w))|({NAMES})_({BRACED}|[a-z](?!\w)))")
POWER = re.compile(r"(?<=[\w)\]|'>])\^(\{[^}]*\}|\([^()]*\)|-?\w+)")
LETTER = re.compile(rf"(?<![\w.])({'|'.join(GREEK)})(?![\w=])")
SIGNS = (("&lt;-", "←"), ("&lt;=", "≤"), ("&gt;=", "≥"), (" ... ", " … "))


def is_formula(sentence: str) -> bool:
    """Whether a sentence begins with what it defines, as in `penalty = strength x sum_i ...` or `g <- ...`."""
    return bool(re.match(r"\S{1,24}(?: \[[^\]]*\]| of a row)? (?:=|<-) \S", sentence))


def typeset(text: str, factors: str = "") -> str:
    """Plain text as HTML. factors: names, joined by |, that may stand before ` x ` as a factor, such as a method's fields."""
    said = html.escape(text, quote=False)
    left = rf"(?:(?<![\w])(?:[A-Za-z]'?|\d[\d.]*{'|' + factors if factors else ''})|[)\]|]|\w\^\d|_\w+)"
    said = re.sub(rf"({left}) x (?!(?:{NO_FACTOR})\b)(?=[\w(|&])", r"\1 × ", said)
    said = POWER.sub(lambda found: f"<sup>{found[1].strip('{}()')}</sup>", said)
    said = SUBSCRIPT.sub(lambda f: f"{f[1] or f[3]}<sub>{(f[2] or f[4]).strip('{}()')}</sub>", said)
    said = re.sub(r"\bsum<sub>", "Σ<sub>", said)
    said = LETTER.sub(lambda found: GREEK[found[1]], said)
    for plain, sign in SIGNS:
        said = said.replace(plain, sign)
    return said
