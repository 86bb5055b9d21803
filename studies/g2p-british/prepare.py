"""British pronunciations as a table for peftsearch: word, pronunciation; split by seed.

Usage: prepare.py gb_gold.tsv OUT. The data are Misaki's gold lexicon (word, tab, phonemes). The
model writes the symbols of American English. Of the four that British English has besides, two
stand for American ones (a for æ, Q for O), and two take the place of American ones that British
English has not (ɒ that of ᵻ, ː that of ʔ). The map is one to one: nothing is lost.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

SYMBOLS = str.maketrans({"a": "æ", "Q": "O", "ɒ": "ᵻ", "ː": "ʔ"})
SPLITS = {"validation": 1000, "test": 2000, "train": 20000}


def main(source: Path, out: Path) -> None:
    lines = source.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line.count("\t") == 1]
    random.Random(0).shuffle(rows)
    for name, count in SPLITS.items():
        part, rows = rows[:count], rows[count:]
        table = "".join(f"{word}\t{phonemes.translate(SYMBOLS)}\n" for word, phonemes in part)
        (out / f"{name}.tsv").write_text(f"word\tpronunciation\n{table}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
