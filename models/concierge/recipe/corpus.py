"""Renders conversations with the model's own chat template and turns them into tokens.

    python corpus.py tokenizer WORK            trains WORK/tokenizer.json (4,096 tokens)
    python corpus.py shard WORK SEED COUNT     writes WORK/shard-SEED.npz: COUNT conversations
    python corpus.py heldout FILE              writes the evaluation cases as JSON lines

A shard holds `ids` (uint16, all conversations after one another), `weights`
(uint8: 1 where the assistant speaks) and `starts` (int64, one per conversation
and the end).
"""

import json
import pathlib
import random
import re
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

import dialogues

HERE = pathlib.Path(__file__).parent
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
VOCAB = 4096
# The pre-tokenizer that GGUF calls "qwen2": single digits, English contractions.
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def template():
    """The chat template in an environment like Hugging Face's."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return env.from_string((HERE.parent / "chat_template.jinja").read_text())


def pieces(text):
    """(text, whether the assistant speaks) in order; each end-of-turn token belongs to its turn."""
    out, at = [], 0
    for match in re.finditer(r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", text, re.S):
        out.append((text[at:match.start(1)], False))
        out.append((match.group(1), True))
        at = match.end()
    return out + [(text[at:], False)]


def train_tokenizer(work):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    render = template()
    rng = random.Random("tokenizer")

    def texts():
        for _ in range(30000):
            messages, tools = dialogues.conversation(rng)
            yield re.sub(r"<\|im_(start|end)\|>|</?tool_(call|response)>", "\n", render.render(messages=messages, tools=tools))

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.save(str(work / "tokenizer.json"))
    print("tokens:", tokenizer.get_vocab_size())


def shard(work, seed, count):
    import numpy
    from tokenizers import Tokenizer

    tokenizer, render = Tokenizer.from_file(str(work / "tokenizer.json")), template()
    rng = random.Random(f"train {seed}")
    ids, weights, starts = [], [], [0]
    for _ in range(count):
        messages, tools = dialogues.conversation(rng)
        text = render.render(messages=messages, tools=tools)
        for piece, spoken in pieces(text):
            if piece:
                encoded = tokenizer.encode(piece).ids
                ids += encoded
                weights += [int(spoken)] * len(encoded)
        starts.append(len(ids))
    numpy.savez(work / f"shard-{seed}.npz", ids=numpy.array(ids, numpy.uint16), weights=numpy.array(weights, numpy.uint8), starts=numpy.array(starts))
    print(f"shard {seed}: {count} conversations, {len(ids)} tokens, {sum(weights) / len(weights):.2f} spoken", flush=True)


if __name__ == "__main__":
    verb = sys.argv[1]
    if verb == "tokenizer":
        path = pathlib.Path(sys.argv[2])
        path.mkdir(parents=True, exist_ok=True)
        train_tokenizer(path)
    elif verb == "shard":
        shard(pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    elif verb == "heldout":
        with open(sys.argv[2], "w") as out:
            for case in dialogues.evaluation():
                out.write(json.dumps(case, ensure_ascii=False) + "\n")
    else:
        sys.exit(__doc__)
