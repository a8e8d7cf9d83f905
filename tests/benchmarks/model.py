"""Compare speed and memory of GPT-1 with transformers' OpenAIGPT and GPT-2 of the same size.

    python tests/benchmarks/model.py [train classify generate] [--dtype bf16 fp32] [--dropout 0.1] [--rounds 3]

All models run in turn, round after round, in one process. The script prints the median of the rounds and the ratio to
ours. `train` is an update (forward, backward, clipping, fused AdamW) on rows of 512 tokens. `classify` is an update on
a batch of short sequences of different lengths. `generate` is greedy decoding. Our model trains as in `GPT1Trainer`:
without materialising logits and, on a CPU, with `cpu_kernels.py`. The share of peak is relative to the fastest matrix
product measured before, between and after the rounds, or to training if that is faster. It counts 6 operations per
weight and token, plus those of attention. Peak memory is that of training updates in a separate process. Weights are
random. bf16 means autocast over fp32 weights in training, and bf16 weights in generation.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from measure import DTYPES, number_types, peak_gib
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    OpenAIGPTConfig,
    OpenAIGPTForSequenceClassification,
    OpenAIGPTLMHeadModel,
)

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1ForSequenceClassification
from gpt1_hf.hardware import device_name
from gpt1_hf.training.cpu_kernels import speed_up
from gpt1_hf.training.throughput import matmul_peak, product_shapes, seconds


CONTENDERS = ("ours", "OpenAIGPT", "GPT-2")
VOCAB, SPAN, WIDTH, LAYERS = 40478, 512, 768, 12


def build(name: str, task: str, dropout: float = 0.0) -> torch.nn.Module:
    """A model of the paper's size with the fastest attention that it supports."""
    sizes = {"vocab_size": VOCAB, "embd_pdrop": dropout, "attn_pdrop": dropout, "resid_pdrop": dropout}
    sizes["pad_token_id"] = 0
    classify = task == "classify"
    torch.manual_seed(0)
    if name == "ours":
        config = GPT1Config(**sizes, lm_coef=0.0)
        return (GPT1ForSequenceClassification if classify else GPT1ForCausalLM)(config)
    if name == "OpenAIGPT":
        config = OpenAIGPTConfig(**sizes)
        return (OpenAIGPTForSequenceClassification if classify else OpenAIGPTLMHeadModel)(config)
    config = GPT2Config(**sizes, n_positions=SPAN, attn_implementation="sdpa", bos_token_id=0, eos_token_id=0)
    return (GPT2ForSequenceClassification if classify else GPT2LMHeadModel)(config)


def training_batch(name: str, task: str, batch_size: int, device: str) -> tuple[dict[str, torch.Tensor], int]:
    """Inputs of an update and their number of tokens without padding."""
    generator = torch.Generator().manual_seed(1)
    length = SPAN if task == "train" else 48
    ids = torch.randint(1, VOCAB, (batch_size, length), generator=generator)
    if task == "train":
        inputs = {"input_ids": ids, "labels": ids}
        if name == "ours":
            inputs["skip_logits"] = True  # as GPT1Trainer does
        n_tokens = ids.numel()
    else:
        lengths = torch.randint(8, length + 1, (batch_size, 1), generator=generator)
        mask = (torch.arange(length) < lengths).long()
        inputs = {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.arange(batch_size) % 2}
        n_tokens = int(mask.sum())
    return {key: value.to(device) if torch.is_tensor(value) else value for key, value in inputs.items()}, n_tokens


def update(name: str, task: str, dtype: torch.dtype, dropout: float, batch_size: int, device: str, compiled: bool):
    """A function that runs one training update, and the number of tokens that it processes."""
    model = build(name, task, dropout).to(device).train()
    if name == "ours" and device == "cpu":
        speed_up(model, bf16=dtype == torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    inputs, n_tokens = training_batch(name, task, batch_size, device)
    forward = torch.compile(model) if compiled else model

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = forward(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()  # warm-up
    return step, n_tokens


def generation(name: str, dtype: torch.dtype, batch_size: int, new_tokens: int, device: str):
    """A function that generates text, and the number of tokens that it generates."""
    model = build(name, "generate").to(device, dtype).eval()
    prompt = torch.randint(1, VOCAB, (batch_size, 32), generator=torch.Generator().manual_seed(2)).to(device)
    mask = torch.ones_like(prompt)

    def step(n_tokens: int = new_tokens):
        model.generate(
            prompt,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=n_tokens,
            min_new_tokens=n_tokens,
            pad_token_id=0,
        )

    step(2)  # warm-up
    return step, batch_size * new_tokens


def training_operations(task: str, n_tokens: int) -> float:
    """Operations of an update: 6 per weight and token, plus causal attention, which is half of full attention."""
    weights = LAYERS * 12 * WIDTH**2 + (VOCAB * WIDTH if task == "train" else 0)
    attention = LAYERS * SPAN * WIDTH if task == "train" else 0  # 2 products x 2 operations / 4, forward only
    return n_tokens * (6 * weights + 6 * attention)


def peak_memory(name: str, task: str, dtype: str, dropout: float, batch_size: int, device: str) -> float:
    """Peak memory of two updates in a separate process, in GiB."""
    command = [sys.executable, __file__, "memory", name, task, dtype, str(dropout), str(batch_size), device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure_memory(name: str, task: str, dtype: str, dropout: str, batch_size: str, device: str):
    step, _ = update(name, task, DTYPES[dtype], float(dropout), int(batch_size), device, compiled=False)
    step()
    print(peak_gib(device))


def compare(
    title: str,
    steps: dict[str, tuple[Callable, int]],
    rounds: int,
    device: str,
    measure_peak: Callable[[], float] | None = None,
    task="",
    memory=None,
) -> float:
    """Run the models in turn and print a row for each. Returns the peak, if it is measured."""
    times = {name: [] for name in steps}
    peaks = [measure_peak()] if measure_peak else [0.0]
    for _ in range(rounds):
        for name, (step, _) in steps.items():
            times[name].append(seconds(step, torch.device(device)))
        peaks += [measure_peak()] if measure_peak else []
    median = {name: statistics.median(values) for name, values in times.items()}
    reached = {name: training_operations(task, n_tokens) / median[name] for name, (_, n_tokens) in steps.items()}
    peak = max(*peaks, *reached.values())
    for name, (_, n_tokens) in steps.items():
        share = f"{100 * reached[name] / peak:.0f} %" if measure_peak else "–"
        gib = f"{memory[name]:.1f}" if memory else "–"
        ratio = median[name] / median["ours"]
        row = [title, name, f"{n_tokens / median[name]:,.0f}", f"{ratio:.2f}", share, gib]
        print("| " + " | ".join(row) + " |", flush=True)
    return peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["train", "classify", "generate"], help="Comparisons to run.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    types = number_types(device)
    parser.add_argument("--dtype", nargs="+", default=types, choices=types, help="Number types. Default: %(default)s.")
    parser.add_argument("--dropout", type=float, default=0.1, help="Dropout in training (paper: 0.1).")
    parser.add_argument(
        "--batch_size", type=int, default=None, help="Rows of 512 tokens. Default: 4 on a CPU, 64 on a GPU."
    )
    parser.add_argument("--new_tokens", type=int, nargs="+", default=[128], help="Tokens to generate per row.")
    parser.add_argument("--rounds", type=int, default=3, help="Number of rounds; the script prints their median.")
    parser.add_argument("--compile", action="store_true", help="Use torch.compile in training.")
    args = parser.parse_args()
    rows = args.batch_size or (64 if device == "cuda" else 4)
    print(f"{device_name(torch.device(device))}, torch {torch.__version__}\n")
    print("| | | tokens/s | ours is faster by | share of peak | peak GiB |")
    print("|---|---|---|---|---|---|")
    for dtype_name in args.dtype:
        dtype = DTYPES[dtype_name]
        shapes = product_shapes(GPT1Config(vocab_size=VOCAB, hidden_size=WIDTH), rows * SPAN, torch.device(device))
        measure_peak, peak = partial(matmul_peak, dtype, torch.device(device), shapes), 0.0
        for task, batch_size in (("train", rows), ("classify", 32)):
            if task in args.what:
                settings = (task, dtype_name, args.dropout, batch_size, device)
                memory = {name: peak_memory(name, *settings) for name in CONTENDERS}
                settings = (task, dtype, args.dropout, batch_size, device, args.compile)
                steps = {name: update(name, *settings) for name in CONTENDERS}
                title = f"{task}, {batch_size} × {SPAN if task == 'train' else '8–48'}, {dtype_name}"
                peak = max(peak, compare(title, steps, args.rounds, device, measure_peak, task, memory))
                del steps
        for new_tokens, batch_size in product(args.new_tokens, (1, 8)) if "generate" in args.what else ():
            steps = {name: generation(name, dtype, batch_size, new_tokens, device) for name in CONTENDERS}
            compare(f"generate {new_tokens}, batch {batch_size}, {dtype_name}", steps, args.rounds, device)
            del steps
        if peak:
            print(f"\nmatrix products in {dtype_name}: {peak / 1e9:,.0f} GFLOP/s at best\n", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        measure_memory(*sys.argv[2:])
    else:
        main()
