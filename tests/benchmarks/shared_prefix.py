"""Compare training updates on RACE with and without a shared prefix, and with transformers' OpenAIGPTDoubleHeadsModel.

    python tests/benchmarks/shared_prefix.py --data_dir DIR [--rounds 3] [--batch_size 2] [--dropout 0.1]

With a shared prefix, the common beginning of a question's choices is computed once. Models have the paper's size and
random weights. An update is forward, backward, clipping and AdamW, with the auxiliary language-model loss. Every round
uses new questions, the same for all contenders. The script prints the means of the rounds and the ratio to ours. On a
CPU it measures processor time, which excludes other work on the machine. Peak memory is that of two updates in a
separate process.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measure import number_types, peak_gib
from transformers import OpenAIGPTConfig, OpenAIGPTDoubleHeadsModel

from gpt1_hf import GPT1Config, GPT1DataCollator, GPT1ForMultipleChoice, GPT1Processor, GPT1Tokenizer
from gpt1_hf.data.loading import open_dataset
from gpt1_hf.hardware import device_name
from gpt1_hf.training.cpu_kernels import speed_up
from gpt1_hf.training.throughput import seconds


CONTENDERS = ("shared prefix", "plain", "OpenAIGPT double heads")
LM_COEF = 0.5


def batches(data_dir: str, batch_size: int, rounds: int) -> tuple[GPT1Processor, list[list[dict]]]:
    """Encoded questions, one list per round."""
    vocabulary = Path(data_dir) / "openai-community" / "openai-gpt"
    processor = GPT1Processor(GPT1Tokenizer.from_original(vocabulary), "multiple_choice")
    rows = open_dataset("ehovy/race", "train", "all", data_dir).shuffle(seed=0).select(range(batch_size * rounds))
    columns = {"document": rows["article"], "question": rows["question"], "choices": rows["options"]}
    encoded = processor({name: list(column) for name, column in columns.items()})["input_ids"]
    labels = ["ABCD".index(answer) for answer in rows["answer"]]
    rows = [{"input_ids": ids, "label": label} for ids, label in zip(encoded, labels, strict=True)]
    return processor, [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]


def build(name: str, layers: int, width: int, dropout: float, n_tokens: int) -> torch.nn.Module:
    sizes = {"n_layer": layers, "n_embd": width, "n_head": width // 64, "vocab_size": n_tokens}
    sizes |= {"embd_pdrop": dropout, "attn_pdrop": dropout, "resid_pdrop": dropout}
    torch.manual_seed(0)
    if name == "OpenAIGPT double heads":
        return OpenAIGPTDoubleHeadsModel(OpenAIGPTConfig(**sizes, summary_first_dropout=dropout, num_labels=1))
    return GPT1ForMultipleChoice(GPT1Config(**sizes, lm_coef=LM_COEF, pad_token_id=0))


def updater(name: str, processor: GPT1Processor, args: argparse.Namespace):
    """Return a function that runs one training update on given rows."""
    device = args.device
    model = build(name, args.layers, args.hidden_size, args.dropout, len(processor.tokenizer)).to(device).train()
    if device == "cpu" and isinstance(model, GPT1ForMultipleChoice):
        speed_up(model, bf16=args.dtype == "bf16")  # as GPT1Trainer does
    collator = GPT1DataCollator(processor, shared_prefix=name == "shared prefix")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def loss_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if name != "OpenAIGPT double heads":
            return model(**batch).loss
        mask = batch["attention_mask"]
        outputs = model(
            batch["input_ids"],  # padded on the right, where causal attention ignores it
            mc_token_ids=mask.sum(-1) - 1,
            labels=batch["input_ids"].masked_fill(mask == 0, -100),
            mc_labels=batch["labels"],
        )
        return outputs.mc_loss + LM_COEF * outputs.loss

    def update(rows: list[dict]):
        batch = {key: value.to(device) for key, value in collator(rows).items()}
        with torch.autocast(device, torch.bfloat16, enabled=args.dtype == "bf16"):
            loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return update


def duration(work: Callable[[], object], device: str) -> float:
    if device != "cpu":
        return seconds(work, torch.device(device))
    begin = time.process_time()
    work()
    return time.process_time() - begin


def peak_memory(name: str, args: argparse.Namespace) -> str:
    """Peak memory of two updates in a separate process, in GiB."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory_of", name]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode == -signal.SIGKILL:
        return "killed: out of memory"
    result.check_returncode()
    return f"{float(result.stdout.split()[-1]):.1f}"


def measure_memory(args: argparse.Namespace):
    processor, questions = batches(args.data_dir, args.batch_size, 2)
    update = updater(args.memory_of, processor, args)
    for rows in questions:
        update(rows)
    print(peak_gib(args.device))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="Local copies laid out as on the Hub.")
    parser.add_argument("--rounds", type=int, default=3, help="Number of batches to time.")
    parser.add_argument("--batch_size", type=int, default=2, help="Questions per update.")
    parser.add_argument("--layers", type=int, default=12, help="Transformer blocks (paper: 12).")
    parser.add_argument("--hidden_size", type=int, default=768, help="Hidden size (paper: 768).")
    parser.add_argument("--dropout", type=float, default=0.1, help="Dropout everywhere (paper: 0.1).")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    types = number_types(device)
    parser.add_argument("--dtype", default="fp32", choices=types, help="Number type; bf16 is autocast.")
    parser.add_argument("--memory_of", choices=CONTENDERS, help=argparse.SUPPRESS)  # runs in a separate process
    args = parser.parse_args()
    args.device = device
    if args.memory_of:
        return measure_memory(args)
    name = device_name(torch.device(device))
    processor, questions = batches(args.data_dir, args.batch_size, args.rounds + 1)
    collators = {shared: GPT1DataCollator(processor, shared_prefix=shared) for shared in (True, False)}
    shared, plain = (
        sum(collator(rows)["input_ids"].numel() for rows in questions[1:]) for collator in collators.values()
    )
    print(
        f"{name}, torch {torch.__version__}, {args.dtype}, {args.layers} × {args.hidden_size}, "
        f"dropout {args.dropout}, {args.batch_size} questions per update"
    )
    print(f"tokens with padding: {shared:,} shared, {plain:,} plain ({plain / shared:.2f} times)\n")
    updates = {contender: updater(contender, processor, args) for contender in CONTENDERS}
    times = dict.fromkeys(CONTENDERS, 0.0)
    for index, rows in enumerate(questions):
        for contender, update in updates.items():
            spent = duration(lambda update=update, rows=rows: update(rows), args.device)
            times[contender] += spent if index else 0.0  # the first batch is a warm-up
    del updates, update
    print("| | seconds per update | ours is faster by | peak GiB |")
    print("|---|---|---|---|")
    for contender, spent in times.items():
        memory = peak_memory(contender, args)
        ratio = spent / times["shared prefix"]
        print(f"| {contender} | {spent / args.rounds:.2f} | {ratio:.2f} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
