"""Makes logits.json: llama.cpp's logits for the tiny models of tiny.rs.

    cargo run -p nearfar-engine --example write_tiny_models -- DIRECTORY
    pip install llama-cpp-python numpy
    python crates/engine/golden/make_logits.py DIRECTORY

Keys and values are kept as f32 and flash attention is off, so that nothing
but the order of additions (and activations' quantisation) is rounded.
"""

import ctypes
import json
import pathlib
import sys

import llama_cpp
import numpy as np

POSITIONS = [0, 5, 11, 17, 23]


@llama_cpp.llama_log_callback
def quiet(_level, _text, _data):
    """llama.cpp writes some hundred lines per model."""


def logits(path: pathlib.Path, context: int, tokens: list[int]) -> np.ndarray:
    """The logits after each token, `tokens x vocabulary`."""
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model_params.use_extra_bufts = False  # no repacked weights: they quantise activations otherwise
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
    if not model:
        raise SystemExit(f"llama.cpp does not load {path}")
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = context
    params.n_batch = params.n_ubatch = max(256, len(tokens))
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = 0  # GGML_TYPE_F32
    params.flash_attn_type = 0  # disabled
    ctx = llama_cpp.llama_init_from_model(model, params)
    if not ctx:
        raise SystemExit(f"llama.cpp makes no context for {path}")
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for index, token in enumerate(tokens):
        batch.token[index] = token
        batch.pos[index] = index
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = 0
        batch.logits[index] = 1
    if llama_cpp.llama_decode(ctx, batch) != 0:
        raise SystemExit(f"llama.cpp does not compute {path}")
    rows = [
        np.ctypeslib.as_array(
            ctypes.cast(llama_cpp.llama_get_logits_ith(ctx, index), ctypes.POINTER(ctypes.c_float)),
            shape=(vocab,),
        ).copy()
        for index in range(len(tokens))
    ]
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(ctx)
    llama_cpp.llama_model_free(model)
    return np.stack(rows)


def main() -> None:
    directory = pathlib.Path(sys.argv[1])
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    lines = []
    for model in json.loads((directory / "models.json").read_text()):
        rows = logits(directory / f"{model['name']}.gguf", model["context"], model["tokens"])
        kept = [[float(f"{x:.5g}") for x in rows[position]] for position in POSITIONS]
        lines.append(json.dumps({"name": model["name"], "positions": POSITIONS, "logits": kept}))
        print(f"{model['name']:28} first {kept[0][:3]} spread {rows.std():.3f}")
    out = pathlib.Path(__file__).with_name("logits.json")
    out.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{out}: {out.stat().st_size} bytes, llama-cpp-python {llama_cpp.__version__}")


if __name__ == "__main__":
    main()
