"""GPT-1 and its peers, transformers' OpenAIGPT and GPT-2 of the same size: updates, scores and generation."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from accelerate.utils import compile_regions
from measure import COMPILED, DTYPES, OURS, PEERS
from torch import nn
from transformers import (
    CompileConfig,
    GPT2Config,
    GPT2DoubleHeadsModel,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    OpenAIGPTConfig,
    OpenAIGPTDoubleHeadsModel,
    OpenAIGPTForSequenceClassification,
    OpenAIGPTLMHeadModel,
)
from transformers.loss.loss_utils import ForCausalLMLoss

from gpt1_hf import (
    GPT1Config,
    GPT1DataCollator,
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1Processor,
    GPT1Tokenizer,
)
from gpt1_hf.checkpoints.loading import open_causal_lm, open_tokenizer
from gpt1_hf.data.loading import open_dataset
from gpt1_hf.evaluation.precision import full_precision
from gpt1_hf.modeling_gpt1_cpu import fast_training
from gpt1_hf.training.cpu_kernels import speed_up
from gpt1_hf.training.trainer import training_collator


CONTENDERS = (OURS, *PEERS)
LM_COEF = 0.5  # of the tasks (paper §4.1)


@dataclass(frozen=True)
class Sizes:
    """Sizes of the models and of their inputs. The defaults of the model are the paper's."""

    layers: int = 12
    width: int = 768
    head_width: int = 64
    vocab: int = 40478
    span: int = 512  # tokens of a row in pre-training, and positions of the model
    rows: int = 4
    short_rows: int = 32  # in classification, of 8 to 48 tokens
    questions: int = 2  # in multiple choice, of 4 choices
    prompt: int = 32
    new_tokens: int = 128
    dropout: float = 0.1
    data_dir: str = ""  # for multiple choice on RACE instead of random tokens


CLASSES = {
    "train": (GPT1ForCausalLM, OpenAIGPTLMHeadModel, GPT2LMHeadModel),
    "classify": (GPT1ForSequenceClassification, OpenAIGPTForSequenceClassification, GPT2ForSequenceClassification),
    "choice": (GPT1ForMultipleChoice, OpenAIGPTDoubleHeadsModel, GPT2DoubleHeadsModel),
}


def build(name: str, task: str, sizes: Sizes) -> nn.Module:
    """A model with random weights and the fastest attention that it supports."""
    is_real = task == "choice" and sizes.data_dir  # its rows have special tokens beside the vocabulary
    vocab = len(encoded_rows(task, sizes)[0].tokenizer) if is_real else sizes.vocab
    options = {"vocab_size": vocab, "n_embd": sizes.width, "n_layer": sizes.layers, "n_positions": sizes.span}
    options |= {"n_head": sizes.width // sizes.head_width, "pad_token_id": 0, "num_labels": 1 + (task != "choice")}
    options |= dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop", "summary_first_dropout"), sizes.dropout)
    model = CLASSES[task][CONTENDERS.index(name)]
    torch.manual_seed(0)
    if name == OURS:
        options["classifier_dropout"] = options.pop("summary_first_dropout")
        del options["num_labels"]
        return model(GPT1Config(**options, lm_coef=LM_COEF))
    if name == "OpenAIGPT":
        return model(OpenAIGPTConfig(**options))
    return model(GPT2Config(**options, attn_implementation="sdpa", bos_token_id=0, eos_token_id=0))


@cache
def encoded_rows(task: str, sizes: Sizes) -> tuple[GPT1Processor, list[dict]]:
    """Rows of a task, the same for all contenders."""
    generator = torch.Generator().manual_seed(1)

    def ids(least: int, most: int) -> list[int]:
        length = int(torch.randint(least, most + 1, (), generator=generator))
        return torch.randint(1, sizes.vocab, (length,), generator=generator).tolist()

    if task == "classify":
        processor = GPT1Processor(open_tokenizer("gpt1-tiny"))
        return processor, [
            {"input_ids": ids(8, min(48, sizes.span)), "label": row % 2} for row in range(sizes.short_rows)
        ]
    if sizes.data_dir:
        vocabulary = Path(sizes.data_dir) / "openai-community" / "openai-gpt"
        processor = GPT1Processor(GPT1Tokenizer.from_original(vocabulary), "multiple_choice")
        rows = (
            open_dataset("ehovy/race", "train", "all", sizes.data_dir).shuffle(seed=0).select(range(sizes.questions))
        )
        columns = {"document": rows["article"], "question": rows["question"], "choices": rows["options"]}
        questions = processor({name: list(column) for name, column in columns.items()})["input_ids"]
    else:
        processor = GPT1Processor(open_tokenizer("gpt1-tiny"), "multiple_choice")
        # RACE's lengths: an article of about 350 tokens, then a question and an answer.
        least = sizes.span // 2
        texts = [ids(least, max(least, sizes.span - 64)) for _ in range(sizes.questions)]
        questions = [[text + ids(4, min(20, sizes.span // 4)) for _ in range(4)] for text in texts]
    return processor, [{"input_ids": choices, "label": row % 4} for row, choices in enumerate(questions)]


def batch_of(
    name: str, task: str, sizes: Sizes, model: nn.Module | None = None, shared_prefix: bool = True
) -> tuple[dict, int]:
    """
    Inputs of an update, and their number of tokens without padding.

    Ours are packed as in [`GPT1Trainer`], if `model` is passed and its attention skips masked tokens.
    """
    if task == "train":
        shape = (sizes.rows, sizes.span)
        ids = torch.randint(1, sizes.vocab, shape, generator=torch.Generator().manual_seed(1))
        # GPT1Trainer needs no logits either.
        return {"input_ids": ids, "labels": ids, **({"skip_logits": True} if name == OURS else {})}, ids.numel()
    processor, rows = encoded_rows(task, sizes)
    collator = GPT1DataCollator(processor, shared_prefix=shared_prefix and name == OURS)
    if name == OURS and model is not None:
        collator = training_collator(collator, model)
    batch = collator(rows)
    sequences = [ids for row in rows for ids in (row["input_ids"] if task == "choice" else [row["input_ids"]])]
    if name != OURS and task == "choice":  # padding is on the right, where causal attention ignores it
        mask = batch["attention_mask"]
        batch = {
            "input_ids": batch["input_ids"],
            "mc_token_ids": mask.sum(-1) - 1,
            "labels": batch["input_ids"].masked_fill(mask == 0, -100),
            "mc_labels": batch["labels"],
        }
    return batch, sum(map(len, sequences))


def loss_of(name: str, task: str, model: Callable, embeddings: nn.Embedding, inputs: dict) -> torch.Tensor:
    """
    Loss of an update. That of a task includes the language-model term.

    The peers compute it as their users do: from the logits of all positions, with the mean over all tokens. Ours is
    the mean over rows of each row's mean.

    Args:
        name (`str`), task (`str`):
            Contender and task.
        model (`Callable`), embeddings (`nn.Embedding`):
            The model, and its token embeddings.
        inputs (`dict`):
            Inputs from [`batch_of`].
    """
    if name == OURS or task == "train":
        return model(**inputs).loss
    if task == "choice":
        outputs = model(**inputs)
        return outputs.mc_loss + LM_COEF * outputs.loss
    outputs = model(**inputs, output_hidden_states=True)
    logits = nn.functional.linear(outputs.hidden_states[-1], embeddings.weight)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    return outputs.loss + LM_COEF * ForCausalLMLoss(logits, labels, len(embeddings.weight))


def update(name: str, task: str, dtype: str, sizes: Sizes, device: str, shared_prefix: bool = True):
    """A function that runs one training update, and the number of tokens that it processes."""
    compiled, name = name == COMPILED, OURS if name == COMPILED else name
    model = build(name, task, sizes).to(device).train()
    if name == OURS and device == "cpu":
        speed_up(model, bf16=dtype == "bf16")  # as GPT1Trainer does
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    inputs, n_tokens = batch_of(name, task, sizes, model, shared_prefix)
    inputs = {key: value.to(device) if torch.is_tensor(value) else value for key, value in inputs.items()}
    forward, embeddings = compile_regions(model) if compiled else model, model.get_input_embeddings()

    def step():
        with fast_training(torch.device(device)) if name == OURS else nullcontext():  # as GPT1Trainer does
            with torch.autocast(device, torch.bfloat16, enabled=dtype == "bf16"):
                loss = loss_of(name, task, forward, embeddings, inputs)
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()  # warm-up
    return step, n_tokens


def scoring(name: str, sizes: Sizes, device: str) -> tuple[Callable[[], object], int]:
    """A function that computes the logits of rows in fp32, without gradients, and the number of their tokens."""
    model = build(name, "train", sizes).to(device).eval()
    ids = torch.randint(1, sizes.vocab, (sizes.rows, sizes.span), generator=torch.Generator().manual_seed(1)).to(
        device
    )

    @torch.no_grad()
    def step():
        with full_precision(model) if name == OURS else nullcontext():  # as `gpt1 evaluate` does
            model(input_ids=ids)

    step()  # warm-up
    return step, ids.numel()


def training_operations(sizes: Sizes, n_tokens: int, span: int, n_predicted: int) -> float:
    """
    Operations of an update: 6 per weight and token, plus causal attention, which is half of full attention.

    The weights of the output layer count for `n_predicted` tokens.
    """
    weights = n_tokens * sizes.layers * (12 * sizes.width**2 + span * sizes.width)
    return 6 * (weights + n_predicted * sizes.vocab * sizes.width)


def tiny_sizes(sizes: Sizes) -> Sizes:
    """Sizes of gpt1-tiny."""
    config = open_causal_lm("gpt1-tiny").config
    tiny = {"layers": config.num_hidden_layers, "width": config.hidden_size, "vocab": config.vocab_size}
    head_width = config.hidden_size // config.num_attention_heads
    return replace(sizes, **tiny, head_width=head_width, span=config.max_position_embeddings)


def generation(
    name: str, dtype: str, sizes: Sizes, batch_size: int, device: str, tiny: bool = False
) -> tuple[Callable[[], object], float]:
    """
    A function that generates text by greedy search, and the bytes that it has to read.

    The first token needs one pass over the weights, like every other; each also reads the cache of the text so far.
    Token embeddings are read whole as the output layer. Positions are not counted.
    """
    compiled, name = name == COMPILED, OURS if name == COMPILED else name
    model = open_causal_lm("gpt1-tiny") if tiny and name == OURS else build(name, "train", sizes)
    model = model.to(device, DTYPES[dtype]).eval()
    generator = torch.Generator().manual_seed(2)
    prompt = torch.randint(1, sizes.vocab, (batch_size, sizes.prompt), generator=generator).to(device)
    options = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "pad_token_id": 0, "use_cache": True}
    if compiled:
        # All calls share one length of the cache, because another would compile anew.
        options |= {"cache_implementation": "static", "max_cache_len": sizes.prompt + sizes.new_tokens}
        options["compile_config"] = CompileConfig(fullgraph=True)
        options["compile_config"]._compile_all_devices = True  # also on a CPU

    def step(n_tokens: int = sizes.new_tokens):
        model.generate(prompt, max_new_tokens=n_tokens, min_new_tokens=n_tokens, **options)

    step(2)  # warm-up
    weights = sizes.layers * 12 * sizes.width**2 + sizes.vocab * sizes.width
    cached = sum(range(sizes.prompt, sizes.prompt + sizes.new_tokens)) * batch_size * 2 * sizes.layers * sizes.width
    return step, DTYPES[dtype].itemsize * (sizes.new_tokens * weights + cached)
