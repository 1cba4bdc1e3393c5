"""Writes a trained checkpoint as a GGUF file.

    python export.py WORK OUT.gguf

Matrices become Q8_0, norms stay F32. The file carries the tokenizer and the
chat template, so that nearfar and llama.cpp read the same model from it.
"""

import json
import pathlib
import sys

import gguf
import numpy
import torch

from corpus import HERE, SPECIALS
from train import SHAPE

NAMES = {"attn_norm": "attn_norm", "ffn_norm": "ffn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
         "q_norm": "attn_q_norm", "k_norm": "attn_k_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}


def tensor_name(name):
    """The name that GGUF gives a parameter of train.py's model."""
    if name == "embed.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    _, layer, part, _ = name.split(".")
    return f"blk.{layer}.{NAMES[part]}.weight"


def main():
    work, out = pathlib.Path(sys.argv[1]), sys.argv[2]
    state = torch.load(work / "checkpoint.pt")
    writer = gguf.GGUFWriter(out, "qwen3")
    writer.add_name("concierge")
    writer.add_description("A front-desk assistant that answers from the facts in its prompt")
    writer.add_license("apache-2.0")
    writer.add_context_length(SHAPE["context"])
    writer.add_embedding_length(SHAPE["width"])
    writer.add_block_count(SHAPE["layers"])
    writer.add_feed_forward_length(SHAPE["ffn"])
    writer.add_head_count(SHAPE["heads"])
    writer.add_head_count_kv(SHAPE["kv_heads"])
    writer.add_key_length(SHAPE["head"])
    writer.add_value_length(SHAPE["head"])
    writer.add_rope_freq_base(SHAPE["theta"])
    writer.add_layer_norm_rms_eps(SHAPE["eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)

    tokenizer = json.loads((work / "tokenizer.json").read_text())
    ids = dict(tokenizer["model"]["vocab"])
    ids.update({added["content"]: added["id"] for added in tokenizer["added_tokens"]})
    tokens = sorted(ids, key=ids.get)
    assert [ids[t] for t in tokens] == list(range(SHAPE["vocab"])), "ids without gaps"
    # Tool and thinking marks are text to the client, so they are user-defined rather than control tokens.
    control = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    kind = lambda t: gguf.TokenType.CONTROL if t in control else gguf.TokenType.USER_DEFINED if t in SPECIALS else gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([kind(t) for t in tokens])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((HERE.parent / "chat_template.jinja").read_text())

    for name, value in state["model"].items():
        array = value.float().numpy()
        if array.ndim == 2:
            data = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(tensor_name(name), data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(tensor_name(name), numpy.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{out}: step {state['step']}, {state['seen'] / 1e6:.1f} M tokens seen")


if __name__ == "__main__":
    main()
