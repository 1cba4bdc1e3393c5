"""Trains concierge: a qwen3-shaped decoder of about 6 million parameters.

    python train.py WORK --shards 0-39 [--minutes 60] [--resume]

Reads WORK/shard-*.npz, writes WORK/checkpoint.pt every few minutes. Matrix
products run in bfloat16 (AMX where the CPU has it), the rest in float32.
"""

import argparse
import math
import pathlib
import time

import numpy
import torch
import torch.nn as nn
import torch.nn.functional as F

SHAPE = dict(vocab=4096, width=256, layers=6, heads=4, kv_heads=2, head=64, ffn=768, context=1024, theta=10000.0, eps=1e-6)


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, SHAPE["eps"])


def rope_tables(length):
    half = SHAPE["head"] // 2
    freq = SHAPE["theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), freq)
    return angles.cos().float(), angles.sin().float()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        s = SHAPE
        self.attn_norm, self.ffn_norm = RmsNorm(s["width"]), RmsNorm(s["width"])
        self.q = nn.Linear(s["width"], s["heads"] * s["head"], bias=False)
        self.k = nn.Linear(s["width"], s["kv_heads"] * s["head"], bias=False)
        self.v = nn.Linear(s["width"], s["kv_heads"] * s["head"], bias=False)
        self.o = nn.Linear(s["heads"] * s["head"], s["width"], bias=False)
        self.q_norm, self.k_norm = RmsNorm(s["head"]), RmsNorm(s["head"])
        self.gate = nn.Linear(s["width"], s["ffn"], bias=False)
        self.up = nn.Linear(s["width"], s["ffn"], bias=False)
        self.down = nn.Linear(s["ffn"], s["width"], bias=False)

    def forward(self, x, cos, sin):
        s, (batch, length, _) = SHAPE, x.shape
        h = self.attn_norm(x)
        split = lambda y, heads: y.view(batch, length, heads, s["head"]).transpose(1, 2)
        q = rotate(self.q_norm(split(self.q(h), s["heads"])), cos, sin)
        k = rotate(self.k_norm(split(self.k(h), s["kv_heads"])), cos, sin)
        v = split(self.v(h), s["kv_heads"])
        group = s["heads"] // s["kv_heads"]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        attended = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        x = x + self.o(attended.transpose(1, 2).reshape(batch, length, -1))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Concierge(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(SHAPE["vocab"], SHAPE["width"])
        self.layers = nn.ModuleList([Layer() for _ in range(SHAPE["layers"])])
        self.norm = RmsNorm(SHAPE["width"])
        for name, p in self.named_parameters():
            if p.dim() == 2:
                scale = 0.02 / math.sqrt(2 * SHAPE["layers"]) if name.endswith(("o.weight", "down.weight")) else 0.02
                nn.init.normal_(p, std=scale)
        cos, sin = rope_tables(SHAPE["context"])
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def hidden(self, ids):
        x = self.embed(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)

    def forward(self, ids):
        return F.linear(self.hidden(ids), self.embed.weight)


def load(work, shards):
    ids, weights, starts, base = [], [], [numpy.zeros(1, numpy.int64)], 0
    for seed in shards:
        data = numpy.load(work / f"shard-{seed}.npz")
        ids.append(data["ids"])
        weights.append(data["weights"])
        starts.append(data["starts"][1:] + base)
        base += len(data["ids"])
    return numpy.concatenate(ids), numpy.concatenate(weights), numpy.concatenate(starts)


def batches(starts, tokens, rng):
    """Conversations of like length together, so that little is padding; batches in random order."""
    length = numpy.minimum(numpy.diff(starts), SHAPE["context"])
    order = rng.permutation(len(length))
    out = []
    for at in range(0, len(order), 4096):
        pool = order[at : at + 4096]
        pool = pool[numpy.argsort(length[pool], kind="stable")]
        batch, longest = [], 0
        for index in pool:
            longest_now = max(longest, length[index])
            if batch and longest_now * (len(batch) + 1) > tokens:
                out.append(batch)
                batch, longest_now = [], length[index]
            batch.append(index)
            longest = longest_now
        out.append(batch)
    rng.shuffle(out)
    return out


def collate(batch, ids, weights, starts):
    longest = min(max(int(starts[i + 1] - starts[i]) for i in batch), SHAPE["context"])
    x = numpy.zeros((len(batch), longest), numpy.int64)
    w = numpy.full((len(batch), longest), 255, numpy.uint8)
    for row, i in enumerate(batch):
        n = min(int(starts[i + 1] - starts[i]), longest)
        x[row, :n] = ids[starts[i] : starts[i] + n]
        w[row, :n] = weights[starts[i] : starts[i] + n]
    return torch.from_numpy(x), torch.from_numpy(w)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--shards", default="0-0", help="first-last")
    parser.add_argument("--minutes", type=float, default=60.0, help="the learning rate falls to its end at this time")
    parser.add_argument("--steps", type=int, default=0, help="end after this many steps instead: the same on every machine")
    parser.add_argument("--tokens", type=int, default=6144, help="tokens per step")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--listen", type=float, default=0.05, help="weight of the loss on what the assistant does not say")
    parser.add_argument("--fuse", action=argparse.BooleanOptionalAction, default=True, help="compile the layers (needs a C++ compiler)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--start-from", type=pathlib.Path, help="begin with another checkpoint's weights, and a schedule of its own")
    args = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    first, last = map(int, args.shards.split("-"))
    ids, weights, starts = load(args.work, range(first, last + 1))
    print(f"{len(starts) - 1} conversations, {len(ids) / 1e6:.1f} M tokens", flush=True)
    model = Concierge()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    # Muon (Jordan et al. 2024) for the matrices: about half the tokens to the same loss as AdamW alone.
    optimisers = [torch.optim.Muon(matrices, lr=args.rate, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
                  torch.optim.AdamW(others, lr=args.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]
    step, seen, spent = 0, 0, 0.0
    path = args.work / "checkpoint.pt"
    if args.start_from:
        model.load_state_dict(torch.load(args.start_from)["model"])
    if args.resume and path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        [o.load_state_dict(saved) for o, saved in zip(optimisers, state["optimisers"])]
        step, seen, spent = state["step"], state["seen"], state["spent"]
    began, saved, shown, losses = time.time() - spent, time.time(), time.time(), []
    if args.fuse:
        # Fusing the element-wise parts makes a step 1.6 times as fast.
        fused = torch.compile(Layer.forward, dynamic=True)
        for layer in model.layers:
            layer.forward = fused.__get__(layer)
    epoch = 0
    while True:
        for batch in batches(starts, args.tokens, numpy.random.default_rng(1000 * epoch + step)):
            spent = time.time() - began
            progress = step / args.steps if args.steps else spent / (60 * args.minutes)
            if progress >= 1:
                torch.save({"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "step": step, "seen": seen, "spent": spent}, path)
                print(f"done: step {step}, {seen / 1e6:.1f} M tokens, {spent / 60:.1f} min", flush=True)
                return
            warm = min(1.0, (step + 1) / 100)
            rate = args.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
            for group in optimisers[0].param_groups + optimisers[1].param_groups:
                group["lr"] = rate
            x, w = collate(batch, ids, weights, starts)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                hidden = model.hidden(x[:, :-1])
                target, kind = x[:, 1:], w[:, 1:]
                # The head is a fifth of the work: only where something is learned.
                spoken = kind == 1
                heard = (kind == 0) & (torch.rand(kind.shape) < 0.15)
                logits = lambda mask: F.linear(hidden[mask].to(torch.bfloat16), model.embed.weight.to(torch.bfloat16)).float()
                loss = F.cross_entropy(logits(spoken), target[spoken])
                total = loss + args.listen * F.cross_entropy(logits(heard), target[heard])
            model.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in optimisers:
                optimiser.step()
            step += 1
            seen += int((w != 255).sum())
            losses.append(loss.item())
            now = time.time()
            if now - shown > 15:
                tail = losses[-100:]
                print(f"step {step} loss {sum(tail) / len(tail):.4f} rate {rate:.1e} {seen / 1e6:.1f} M tokens "
                      f"{seen / (now - began):.0f} tok/s {100 * progress:.0f} %", flush=True)
                shown = now
            if now - saved > 180:
                torch.save({"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "step": step, "seen": seen, "spent": now - began}, path)
                saved = now
        epoch += 1


if __name__ == "__main__":
    main()
