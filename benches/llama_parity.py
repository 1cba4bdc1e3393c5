"""Compares nearfar's engine with llama.cpp on the same model file.

    python benches/llama_parity.py [MODEL.gguf] [--kv bf16|int8]

Needs llama-cpp-python (it is built from source by pip) and cargo. 100 prompts
are drawn from concierge's held-out cases. Prints how many greedy continuations
are the same token for token, the lead of the best logit where they part, and
the difference in perplexity. Exits with 1 unless at least 95 are the same, all
others part at a near-tie, and perplexity differs by at most 0.5 %.
"""

import json
import math
import pathlib
import subprocess
import sys
import tempfile

import numpy
from llama_cpp import Llama

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models/concierge/recipe"))
import dialogues

COUNT, TOKENS = 100, 64
# Both engines round weights and activations to 8 bits, each in its own order;
# logits differ by about this much, so a smaller lead decides nothing.
NEAR_TIE = 0.25


def requests():
    cases = [c for c in dialogues.evaluation() if not any(m.get("tool_calls") or m["role"] == "tool" for m in c["messages"])]
    step = len(cases) // COUNT
    return [{"messages": c["messages"], "tools": c["tools"]} for c in cases[::step]][:COUNT]


def ours(model, options):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for request in requests():
            file.write(json.dumps(request, ensure_ascii=False) + "\n")
        file.flush()
        # The engine is optimised in the development profile too.
        command = ["cargo", "run", "--locked", "--quiet", "-p", "nearfar-engine", "--example", "parity", "--", model, file.name, "--tokens", str(TOKENS), *options]
        out = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def main():
    arguments, options = sys.argv[1:], []
    if "--kv" in arguments:
        at = arguments.index("--kv")
        options, arguments[at : at + 2] = arguments[at : at + 2], []
    model = str(pathlib.Path(arguments[0]).resolve()) if arguments else str(ROOT / "models/concierge/concierge.gguf")
    llama = Llama(model, n_ctx=1024, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
    ends = {llama.token_eos(), *llama.tokenize(b"<|endoftext|>", add_bos=False, special=True)}
    same, parted, tokens_differ = 0, [], 0
    nll_ours = nll_theirs = count = 0.0
    results = ours(model, options)
    for index, mine in enumerate(results):
        theirs = llama.tokenize(mine["prompt"].encode(), add_bos=False, special=True)
        tokens_differ += theirs != mine["prompt_ids"]
        llama.reset()
        llama.eval(mine["prompt_ids"])
        scores = numpy.array(llama.scores[: len(mine["prompt_ids"])], numpy.float64)
        top = scores.max(-1, keepdims=True)
        log_z = (top + numpy.log(numpy.exp(scores - top).sum(-1, keepdims=True)))[:, 0]
        following = mine["prompt_ids"][1:]
        nll_theirs += float(sum(log_z[i] - scores[i, t] for i, t in enumerate(following)))
        nll_ours += mine["nll"]
        count += mine["nll_tokens"]
        written = []
        while len(written) < TOKENS:
            best = int(numpy.argmax(llama.scores[llama.n_tokens - 1]))
            written.append(best)
            if best in ends:
                break
            llama.eval([best])
        if written == mine["ids"]:
            same += 1
        else:
            at = next((i for i, (a, b) in enumerate(zip(written, mine["ids"])) if a != b), min(len(written), len(mine["ids"])))
            lead = mine["gaps"][at] if at < len(mine["gaps"]) else math.inf
            parted.append(lead)
            print(f"prompt {index}: parts at token {at}, where our best logit leads by {lead:.4f}")
    perplexity = [math.exp(n / count) for n in (nll_ours, nll_theirs)]
    difference = abs(perplexity[0] / perplexity[1] - 1)
    print(f"same prompt tokens        {len(results) - tokens_differ} of {len(results)}")
    print(f"same greedy continuation  {same} of {len(results)}")
    print(f"perplexity                nearfar {perplexity[0]:.4f}, llama.cpp {perplexity[1]:.4f}, difference {100 * difference:.3f} %")
    good = same >= 0.95 * len(results) and all(lead < NEAR_TIE for lead in parted) and difference <= 0.005 and not tokens_differ
    print("good" if good else "NOT GOOD")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
