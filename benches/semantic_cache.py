"""How often the semantic cache would be right, on questions that people wrote.

Reads CLINC150 (Larson et al. 2019, CC BY 3.0: {"train": [[text, intent], ...], ...}),
has a running nearfar make the vectors, and plays the questions in a random order
through a cache like nearfar's: a question whose nearest earlier one is at least as
near as the threshold, and has the same figures, is a hit. A hit on another intent
is wrong. A hit on the same intent may be wrong, too ("how do i make chili", "how do
i make a curry"): `--sample N` prints pairs of each band to be judged by a person,
and `--judged FILE` counts a file of such judgements (1 or 0, the band's lower edge,
the kept question, the asked one). The cache's rule about the order of words is not
played here.

    nearfar model add all-minilm-l6-v2   # or a folder of it
    python benches/semantic_cache.py clinc150_train_val.json --url http://127.0.0.1:4141
"""

import argparse
import json
import re
import urllib.request

import numpy as np

THRESHOLDS = [0.80, 0.85, 0.90, 0.93, 0.95, 0.97, 0.99]


def vectors(texts, url, model):
    made = []
    for start in range(0, len(texts), 128):
        body = json.dumps({"model": model, "input": texts[start : start + 128]}).encode()
        request = urllib.request.Request(
            url + "/v1/embeddings", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as reply:
            made += [item["embedding"] for item in json.load(reply)["data"]]
    made = np.array(made, dtype=np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def as_bytes(made):
    """As nearfar keeps them: one byte a number."""
    small = np.round(made / np.abs(made).max(axis=1, keepdims=True) * 127)
    return small / np.linalg.norm(small, axis=1, keepdims=True)


def figures(text):
    words = re.split(r"[^\w]|_", text)
    return tuple(word.lower() for word in words if any(c.isdigit() for c in word))


def play(rows, made, threshold, rule):
    """Hits as (cosine, earlier, question)."""
    hits, shelves = [], {}
    for at, (text, _) in enumerate(rows):
        mark = figures(text) if rule else ()
        places, shelf = shelves.setdefault(mark, ([], np.empty((4, made.shape[1]), np.float32)))
        if places:
            cosines = shelf[: len(places)] @ made[at]
            best = int(np.argmax(cosines))
            if cosines[best] >= threshold:
                hits.append((float(cosines[best]), places[best], at))
                continue
        if len(places) == len(shelf):
            shelf = np.concatenate([shelf, np.empty_like(shelf)])
            shelves[mark] = (places, shelf)
        shelf[len(places)] = made[at]
        places.append(at)
    return hits


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--url", default="http://127.0.0.1:4141")
    parser.add_argument("--model", default="local/all-minilm-l6-v2")
    parser.add_argument("--split", default="train")
    parser.add_argument("--vectors", help="a .npy file to keep the vectors in")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--judged")
    args = parser.parse_args()
    rows = json.load(open(args.data))[args.split]
    np.random.default_rng(1).shuffle(rows)
    rows = [(text, intent) for text, intent in rows]
    try:
        made = np.load(args.vectors)
    except (OSError, TypeError):
        made = vectors([text for text, _ in rows], args.url, args.model)
        if args.vectors:
            np.save(args.vectors, made)
    made = as_bytes(made)
    print(f"{len(rows)} questions, {len({i for _, i in rows})} intents")
    print("threshold  hits  hit rate  other intent  right intent  (without the rule of figures)")
    for threshold in THRESHOLDS:
        hits = play(rows, made, threshold, True)
        wrong = sum(rows[a][1] != rows[b][1] for _, a, b in hits)
        bare = play(rows, made, threshold, False)
        bare_wrong = sum(rows[a][1] != rows[b][1] for _, a, b in bare)
        figured = sum(figures(rows[a][0]) != figures(rows[b][0]) for _, a, b in bare)
        print(
            f"{threshold:9.2f} {len(hits):5d} {len(hits) / len(rows):9.2%} {wrong:13d}"
            f" {1 - wrong / max(1, len(hits)):13.2%}"
            f"  ({len(bare)} hits, {bare_wrong} other intent, {figured} other figures)"
        )
    if args.sample:
        hits = play(rows, made, THRESHOLDS[0], True)
        draw = np.random.default_rng(2)
        for low, high in zip(THRESHOLDS, THRESHOLDS[1:] + [1.01]):
            band = [hit for hit in hits if low <= hit[0] < high]
            for at in draw.permutation(len(band))[: args.sample]:
                cosine, one, other = band[at]
                print(f"{cosine:.3f}\t{rows[one][0]}\t{rows[other][0]}")
    if args.judged:
        judge(rows, made, args.judged)


def judge(rows, made, path):
    bands = {}
    for line in open(path):
        if not line.startswith("#"):
            same, band, _kept, _asked = line.rstrip("\n").split("\t")
            bands.setdefault(float(band), []).append(int(same))
    edges = sorted(bands)
    hits = [hit[0] for hit in play(rows, made, edges[0], True)]
    sizes = np.histogram(hits, edges + [1.01])[0]
    right = sizes * [sum(bands[band]) / len(bands[band]) for band in edges]
    print("threshold  hits  judged to be the same question")
    for at, band in enumerate(edges):
        print(f"{band:9.2f} {sizes[at:].sum():5d} {right[at:].sum() / sizes[at:].sum():31.1%}")


main()
