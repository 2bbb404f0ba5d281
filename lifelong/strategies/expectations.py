"""What is to be expected where the literature, or our own table, has seen a method fail: the band, and who found it.

One line, said before a run. Where we know of no published band it is our own, from docs/methods.md, and says so. Here is what
methods share; what one alone must say stands in its file. Of fine-tuning nothing is said: it is the mark that these
lines name, and who compares with it would read the same twice.
"""

from __future__ import annotations

from scenarios.stream import Stream

WITHOUT_OLD_DATA = {
    "class": "{} in class-incremental streams: expect about 1 / T of the classes, unless another part brings old rows, as"
    " Replay(size=200) does. On Split-MNIST: EWC 20.64 %, SI 21.20, LwF 21.89, fine-tuning 19.89 (van de Ven et al.,"
    " 2022), published and not a fault. Or try --setting task.",
    "domain": "{} in domain-incremental streams: expect little more than of fine-tuning, unless another part brings old"
    " rows. On Split-MNIST: EWC 63.03 %, SI 66.94, fine-tuning 60.13, replay 93.75 (van de Ven et al., 2022), published"
    " and not a fault.",
}
NOTHING_OF_OLD_TASKS = {
    "class": "{} holds nothing of old tasks: in class-incremental streams expect what fine-tuning gives, unless another"
    " part brings old rows, as Replay(size=200) does. On Split-MNIST: 19.9 %, fine-tuning 19.9 (our own table,"
    " docs/methods.md).",
    "domain": "{} holds nothing of old tasks: in domain-incremental streams expect what fine-tuning gives, unless another"
    " part brings old rows. On permuted-digits: within 1 point of fine-tuning's 50.9 %, replay 83.7 (our own table,"
    " docs/methods.md).",
}


def expected(words: dict[str, str], name: str, stream: Stream) -> list[str]:
    """What is said of a method on a stream, by the stream's setting; nothing where numbers are asked for, not classes."""
    return [words[stream.setting].format(name)] if stream.setting in words and not stream.asks_numbers else []
