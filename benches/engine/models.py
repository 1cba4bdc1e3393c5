"""Synthetic models in the shapes of real ones, for speed alone.

    python models.py DIR [NAME ...]

Writes DIR/NAME-TYPE.gguf for the shapes of Qwen3-0.6B and Llama-3.2-1B in
Q4_K_M, Q8_0 and Q4_0. Weights are seeded noise, quantised by llama.cpp, so that
both engines read the very same file. What comes out of them is nonsense; how
fast it comes does not depend on that. Needs numpy, gguf and llama-cpp-python.
"""

import ctypes
import pathlib
import string
import sys

import gguf
import llama_cpp
import numpy

SHAPES = {
    "qwen3-0.6b": dict(arch="qwen3", width=1024, layers=28, heads=16, head=128, kv=8, ffn=3072, vocab=151936, theta=1e6, pre="qwen2"),
    "llama-1b": dict(arch="llama", width=2048, layers=16, heads=32, head=64, kv=8, ffn=8192, vocab=128256, theta=5e5, pre="llama-bpe"),
}
TYPES = {"Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}
CONTEXT = 8192
END = "<|end|>"


def byte_letters():
    """GPT-2's letters for the 256 bytes."""
    kept = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    rest = [b for b in range(256) if b not in kept]
    return {**{b: chr(b) for b in kept}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def vocabulary(count):
    """Bytes, pairs of letters, words (a space and three letters) with their merges, then fillers,
    then the end token. A space joins the next letter first and the other two join each other, so
    that an answer, which is mostly such words, becomes the same tokens when it is read again."""
    letters = string.ascii_lowercase + string.ascii_uppercase
    space = "Ġ"
    tokens, merges = list(byte_letters().values()), []
    pairs = [(space, x) for x in letters] + [(x, y) for x in letters for y in letters]
    words = [(space + x, y + z) for x in letters for y in letters for z in letters]
    room = count - len(tokens) - 1
    for left, right in (pairs + words)[:room]:
        tokens.append(left + right)
        merges.append(f"{left} {right}")
    tokens += [f"<filler {i}>" for i in range(count - len(tokens) - 1)]
    return tokens + [END], [1] * (count - 1) + [3], merges


def write(path, name, shape):
    rng = numpy.random.default_rng(1)
    out = gguf.GGUFWriter(path, shape["arch"])
    out.add_name(f"noise in the shape of {name}")
    out.add_block_count(shape["layers"])
    out.add_context_length(CONTEXT)
    out.add_embedding_length(shape["width"])
    out.add_feed_forward_length(shape["ffn"])
    out.add_head_count(shape["heads"])
    out.add_head_count_kv(shape["kv"])
    out.add_key_length(shape["head"])
    out.add_value_length(shape["head"])
    out.add_rope_dimension_count(shape["head"])
    out.add_rope_freq_base(shape["theta"])
    out.add_layer_norm_rms_eps(1e-6)
    out.add_vocab_size(shape["vocab"])
    out.add_file_type(llama_cpp.LLAMA_FTYPE_MOSTLY_F16)
    tokens, kinds, merges = vocabulary(shape["vocab"])
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(shape["pre"])
    out.add_token_list(tokens)
    out.add_token_types(kinds)
    out.add_token_merges(merges)
    out.add_bos_token_id(shape["vocab"] - 1)
    out.add_eos_token_id(shape["vocab"] - 1)
    out.add_add_bos_token(False)
    out.add_chat_template("{% for m in messages %}{{ m['content'] }}" + END + "{% endfor %}")
    noise = lambda tensor, rows, columns: out.add_tensor(tensor, (0.02 * rng.standard_normal((rows, columns), dtype=numpy.float32)).astype(numpy.float16))
    ones = lambda tensor, length: out.add_tensor(tensor, numpy.ones(length, numpy.float32))
    width, ffn, query, kv = shape["width"], shape["ffn"], shape["heads"] * shape["head"], shape["kv"] * shape["head"]
    noise("token_embd.weight", shape["vocab"], width)
    ones("output_norm.weight", width)
    for layer in range(shape["layers"]):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight", width)
        ones(block + "ffn_norm.weight", width)
        if shape["arch"] == "qwen3":
            ones(block + "attn_q_norm.weight", shape["head"])
            ones(block + "attn_k_norm.weight", shape["head"])
        for tensor, rows, columns in [("attn_q", query, width), ("attn_k", kv, width), ("attn_v", kv, width), ("attn_output", width, query),
                                      ("ffn_gate", ffn, width), ("ffn_up", ffn, width), ("ffn_down", width, ffn)]:
            noise(f"{block}{tensor}.weight", rows, columns)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def make(folder, names=tuple(SHAPES), types=tuple(TYPES)):
    """The paths of the models, made where they are missing."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        wanted = {kind: folder / f"{name}-{kind}.gguf" for kind in types}
        if not all(path.exists() for path in wanted.values()):
            full = folder / f"{name}-F16.gguf"
            print(f"making {name} ...", file=sys.stderr, flush=True)
            write(full, name, SHAPES[name])
            for kind, path in wanted.items():
                if path.exists():
                    continue
                options = llama_cpp.llama_model_quantize_default_params()
                options.ftype = TYPES[kind]
                part = path.with_suffix(".part")
                if llama_cpp.llama_model_quantize(str(full).encode(), str(part).encode(), ctypes.byref(options)):
                    sys.exit(f"llama.cpp could not quantise {full} to {kind}")
                part.rename(path)
            full.unlink()
        yield from ((name, kind, path) for kind, path in wanted.items())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for name, kind, path in make(sys.argv[1], sys.argv[2:] or tuple(SHAPES)):
        print(path, f"{path.stat().st_size / 1e6:.0f} MB")
