"""The speed of training and its share of the peak, with clocks that a test sets."""

import json
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from helpers.models import HIDDEN, VOCAB, tiny_config

import gpt1_hf.training.pretrain
from gpt1_hf.cli import main
from gpt1_hf.training import throughput as throughputs
from gpt1_hf.training.throughput import Throughput, matmul_peak, product_shapes


CPU = torch.device("cpu")
SHAPES = [(8, 8, 8), (4, 8, 16)]


class Clock:
    """A clock that passes given times between its readings, two for each measurement."""

    def __init__(self, *passed: float):
        self.now, self.steps = 0.0, [step for time in passed for step in (0.0, time)]

    def __call__(self) -> float:
        self.now += self.steps.pop(0) if self.steps else 0.0
        return self.now


def test_the_fastest_of_all_products_and_repeats_is_the_peak():
    operations = [2 * 8**3, 2 * 4 * 8 * 16]
    assert matmul_peak(torch.float32, CPU, SHAPES, 2, Clock(4, 2, 5, 6)) == operations[0] / 2
    assert matmul_peak(torch.float32, CPU, SHAPES, 2, Clock(4, 2, 5, 1)) == operations[1] / 1
    assert matmul_peak(torch.bfloat16, CPU, SHAPES, 1, Clock(0, 3)) == operations[1] / 3  # a coarse clock


def test_the_products_are_those_of_the_model_and_a_square():
    config = tiny_config()
    assert product_shapes(config, 48, CPU) == [(1536,) * 3, (48, HIDDEN, 4 * HIDDEN), (48, HIDDEN, VOCAB)]
    large = tiny_config(hidden_size=768, num_attention_heads=12, vocab_size=40478)
    square, *others = product_shapes(large, 64 * 512, CPU)
    assert all(m * k * n <= 1536**3 for m, k, n in others) and [shape[1:] for shape in others] == [
        (768, 3072),
        (768, 40478),
    ]


def test_measuring_draws_no_random_numbers_of_training():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    matmul_peak(torch.float32, CPU, SHAPES)
    assert torch.equal(torch.rand(1), expected)


def measure_in(rank: int, file: str, results):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    passed = (4.0, 3.0) if rank == 0 else (2.0, 8.0)
    results[rank] = matmul_peak(torch.float32, CPU, [(8, 8, 8)], 2, Clock(*passed))
    dist.destroy_process_group()


def test_processes_measure_together(tmp_path):
    """Both compute a product; together they are as fast as the slower one: 4 and 8 seconds."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(measure_in, (str(tmp_path / "store"), results), nprocs=2)
        assert dict(results) == {0: 2 * 2 * 8**3 / 4, 1: 2 * 2 * 8**3 / 4}


def train(peaks: list[float], n_updates: int, seconds_per_update: float, seconds_to_measure: float) -> Throughput:
    """A training of updates of 10 tokens and 3 operations a token, with a log line after each."""
    clock, left = Clock(), list(peaks)

    def measure(repeats: int) -> float:
        clock.now += seconds_to_measure
        return left.pop(0)

    throughput = Throughput(10, 3.0, measure, clock)
    throughput.on_train_begin(None, None, None)
    for update in range(1, n_updates + 1):
        clock.now += seconds_per_update
        throughput.on_step_end(None, SimpleNamespace(global_step=update), None)
        throughput.on_log(None, None, None, logs={"loss": 1.0})
        throughput.on_log(None, None, None, logs={"eval_loss": 1.0})
    throughput.on_train_end(None, None, None)
    assert not left
    return throughput


def test_the_best_measurement_counts_and_takes_no_time_of_training():
    """Measured at the start, at the log lines 1, 2, 4 and 8, and at the end."""
    throughput = train([100.0, 90.0, 80.0, 120.0, 90.0, 110.0], 10, 0.5, seconds_to_measure=7.0)
    assert throughput.tokens_per_second == 20
    assert throughput.peak == 120 and throughput.share_of_peak == 0.5


def test_the_share_of_the_peak_is_at_most_one():
    throughput = train([50.0, 50.0, 50.0, 59.0], 3, 0.5, seconds_to_measure=1.0)
    assert throughput.reached == 60 == throughput.peak
    assert throughput.share_of_peak == 1


def test_without_a_second_update_there_is_no_share():
    assert train([50.0, 50.0, 50.0], 1, 0.5, 1.0).share_of_peak == 0
    assert Throughput(10, 3.0, lambda repeats: 0.0).share_of_peak == 0


def test_pre_training_measures_before_during_and_after(base_model, texts, tmp_path, monkeypatch):
    measured = []

    def peak(dtype, device, shapes, repeats):
        measured.append((dtype, shapes[1:], repeats))
        return 1e-3

    monkeypatch.setattr(gpt1_hf.training.pretrain, "matmul_peak", peak)
    (tmp_path / "corpus.txt").write_text("\n".join(texts))
    flags = "--hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --max_position_embeddings 32 --max_steps 3"
    flags += " --per_device_train_batch_size 2 --logging_steps 1 --use_cpu true --disable_tqdm true"
    paths = f"--corpus {tmp_path / 'corpus.txt'} --tokenizer {base_model} --output_dir {tmp_path / 'run'}"
    assert main(f"pretrain {paths} {flags}".split()) == 0
    assert [repeats for _, _, repeats in measured] == [throughputs.REPEATS, 1, 1, throughputs.REPEATS]
    assert {(str(dtype), *shapes) for dtype, shapes, _ in measured} == {("torch.float32", (64, 16, 64), (64, 16, 160))}
    details = json.loads((tmp_path / "run" / "results.json").read_text())[0]["details"]
    assert details["share_of_peak"] == 1
