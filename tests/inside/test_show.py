"""`gpt1 show`: its numbers against computations by hand, and its pages and pictures."""

import json
import math
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from gpt1_hf import (
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1LSTMConfig,
    GPT1LSTMForCausalLM,
    GPT1Processor,
)
from gpt1_hf.checkpoints.loading import open_causal_lm
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.inside.attention import attention_weights, shown_tokens
from gpt1_hf.inside.input_formats import format_row, row_of_texts
from gpt1_hf.inside.page import page
from gpt1_hf.inside.pictures import draw, write_pictures
from gpt1_hf.inside.show import show
from gpt1_hf.inside.view import MAX_TOKENS, look
from gpt1_hf.processing_gpt1 import INPUT_FORMATS


TEXT = "The old captain was alone in his cabin."
ROWS = {
    "classification": ["a good day"],
    "entailment": ["a man walks", "a man moves"],
    "similarity": ["a man walks", "a man moves"],
    "multiple_choice": ["tom slept", "why?", "he was tired", "he was old", "it was night"],
    "token_classification": ["tom slept well"],
}
SEQUENCES = {
    "classification": ["start text extract"],
    "entailment": ["start premise delimiter hypothesis extract"],
    "similarity": ["start text_a delimiter text_b extract", "start text_b delimiter text_a extract"],
    "multiple_choice": ["start document delimiter question delimiter choice extract"] * 3,
    "token_classification": ["start words extract"],
}


@pytest.fixture(scope="module")
def fine_tuned(base_model, tmp_path_factory):
    """Folder of a model with an untrained head for a format."""

    def write(input_format: str) -> str:
        folder = tmp_path_factory.mktemp(input_format)
        several = input_format == "multiple_choice"
        processor = GPT1Processor(AutoTokenizer.from_pretrained(base_model), input_format)
        model = (GPT1ForMultipleChoice if several else GPT1ForSequenceClassification).from_pretrained(base_model)
        model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return str(folder)

    return write


@pytest.fixture(scope="module")
def lstm(base_model, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("lstm")
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    GPT1LSTMForCausalLM(GPT1LSTMConfig(vocab_size=len(tokenizer), hidden_size=8, lstm_size=8)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_attention_equals_the_softmax_of_the_products_of_queries_and_keys(base_model):
    model = GPT1ForCausalLM.from_pretrained(base_model)
    kernel = model.config._attn_implementation
    ids = [5, 9, 7, 7, 12]
    states: dict[tuple, torch.Tensor] = {}
    for number, block in enumerate(model.transformer.h):
        for name, layer in block.named_modules():
            if name.endswith(("q_proj", "k_proj")):
                key = (number, name[-6])
                layer.register_forward_hook(lambda module, inputs, output, key=key: states.update({key: output[0]}))
    weights = attention_weights(model, ids)
    config = model.config
    size = config.hidden_size // config.num_attention_heads
    assert weights.shape == (config.num_hidden_layers, config.num_attention_heads, 5, 5)
    for layer in range(config.num_hidden_layers):
        for head in range(config.num_attention_heads):
            part = slice(head * size, (head + 1) * size)
            scores = states[layer, "q"][:, part] @ states[layer, "k"][:, part].T / math.sqrt(size)
            expected = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf).softmax(-1)
            np.testing.assert_allclose(weights[layer, head], expected.detach().numpy(), atol=1e-5)
    assert model.config._attn_implementation == kernel


def test_probabilities_and_alternatives_are_the_models_own(base_model):
    view = look([TEXT], base_model)
    tokenizer, model = AutoTokenizer.from_pretrained(base_model), open_causal_lm(base_model)
    ids = tokenizer(TEXT)["input_ids"]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].softmax(-1)
    assert len(view.probabilities) == len(ids) and view.probabilities[0].probability is None
    for index, token in enumerate(view.probabilities[1:]):
        assert token.probability == pytest.approx(expected[index, ids[index + 1]].item(), rel=1e-4)
        values = expected[index].topk(5).values.tolist()
        assert [value for _, value in token.alternatives] == pytest.approx(values, rel=1e-4)
    assert view.attention[0].tokens == [token.text.strip() for token in view.probabilities]
    assert view.formats == []


@pytest.mark.parametrize("question_delimiter", [True, False])
@pytest.mark.parametrize("input_format", INPUT_FORMATS)
def test_formats_are_the_processors_sequences_with_roles(base_model, input_format, question_delimiter):
    processor = GPT1Processor(AutoTokenizer.from_pretrained(base_model), input_format, question_delimiter)
    row = row_of_texts(input_format, ROWS[input_format])
    sequences, is_cut = format_row(processor, row)
    ids = processor(row)["input_ids"]
    assert [sequence.ids for sequence in sequences] == (ids if processor.has_several_sequences else [ids])
    assert not is_cut
    expected = SEQUENCES[input_format]
    if input_format == "multiple_choice" and not question_delimiter:
        expected = ["start document and question delimiter choice extract"] * 3
    for sequence, roles in zip(sequences, expected, strict=True):
        found = [token.role for token in sequence.tokens]
        assert " ".join(role for i, role in enumerate(found) if i == 0 or role != found[i - 1]) == roles
        text = "".join(token.text for token in sequence.tokens if token.role in ("choice", "hypothesis", "words"))
        assert text in ("", "he was tired", "he was old", "it was night", "a man moves", "tom slept well")


def test_a_text_that_spells_a_special_token_stays_text(base_model):
    processor = GPT1Processor(AutoTokenizer.from_pretrained(base_model), "entailment")
    ((sequence,), _) = format_row(processor, {"premise": "a _delimiter_ b", "hypothesis": "_start_"})
    roles = [token.role for token in sequence.tokens]
    assert [roles.count(role) for role in ("start", "delimiter", "extract")] == [1, 1, 1]


def test_a_story_without_question_has_one_delimiter(base_model):
    processor = GPT1Processor(AutoTokenizer.from_pretrained(base_model), "multiple_choice")
    sequences, _ = format_row(processor, row_of_texts("multiple_choice", ["tom slept", "", "he woke", "he ran"]))
    for sequence in sequences:
        roles = dict.fromkeys(token.role for token in sequence.tokens)
        assert [*roles] == ["start", "document", "delimiter", "choice", "extract"]


@pytest.mark.parametrize("input_format", ["entailment", "similarity", "multiple_choice"])
def test_a_fine_tuned_model_shows_its_format(fine_tuned, input_format, tmp_path):
    model = fine_tuned(input_format)
    view = look(ROWS[input_format], model)
    assert view.input_format == input_format and not view.probabilities
    assert len(view.attention) == len(view.formats) == len(SEQUENCES[input_format])
    assert view.attention[0].tokens[0] == "_start_" and view.attention[0].tokens[-1] == "_classify_"
    assert "fine-tuned" in view.notes["probabilities"]
    files = show(ROWS[input_format], model, str(tmp_path / "out"))
    assert [file.name for file in files] == ["show.html", "attention.png", "formats.png"]
    with pytest.raises(GPT1Error, match="drop --input_format"):
        look(["x"], model, "classification")


def data_of(text: str) -> list[dict]:
    return [json.loads(each) for each in re.findall(r'class="weights">(.*?)</script>', text, re.DOTALL)]


def test_the_page_holds_the_numbers_and_needs_nothing_else(base_model):
    view = look([TEXT], base_model)
    text = page(view)
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]  # the name of SVG
    assert not re.search(r"<(link|img|iframe)\b|src=|url\(|@import", text)
    assert "prefers-color-scheme: dark" in text and 'content="light dark"' in text
    (data,) = data_of(text)
    weights = view.attention[0].weights
    assert data["tokens"] == view.attention[0].tokens
    for layer, head in np.ndindex(weights.shape[:2]):
        for index, row in enumerate(data["weights"][layer][head]):
            np.testing.assert_allclose(np.array(row) / 1000, weights[layer, head, index, : index + 1], atol=6e-4)
    assert text.count('class="head"') == weights.shape[0] * weights.shape[1]
    assert text.count("data-tip=") >= len(view.probabilities) - 1


def test_the_page_says_where_the_answer_is_read(base_model):
    for input_format, place in (
        ("classification", "the extract token"),
        ("token_classification", "The tag of a word"),
    ):
        assert place in page(look(["a film"], base_model, input_format))


def test_markup_in_a_text_is_only_text(base_model):
    text = page(look(["<b>a</b> </script><script>x</script> & \u202e"], base_model))
    assert text.count("<script") == 2 and "<b>" not in text and "\u202e" not in text


def test_long_texts_show_their_first_and_last_tokens(base_model, tmp_path):
    assert shown_tokens(5, 5) == [0, 1, 2, 3, 4] and shown_tokens(9, 5) == [0, 1, 2, 7, 8]
    model = open_causal_lm(base_model)
    text = "the old captain " * (model.config.max_position_embeddings // 12)
    view = look([text], base_model, max_tokens=6)
    (attention,) = view.attention
    n_tokens = attention.n_tokens
    assert attention.positions == [0, 1, 2, n_tokens - 3, n_tokens - 2, n_tokens - 1]
    ids = AutoTokenizer.from_pretrained(base_model)(text)["input_ids"]
    whole = attention_weights(model, ids)
    kept = np.ix_(range(whole.shape[0]), range(whole.shape[1]), attention.positions, attention.positions)
    np.testing.assert_allclose(attention.weights, whole[kept], atol=1e-6)
    assert attention.note in page(view) and str(n_tokens) in attention.note
    write_pictures(view, tmp_path / "long.png")


def test_layers_and_heads_are_chosen(base_model):
    whole, some = (
        look([TEXT], base_model).attention[0],
        look([TEXT], base_model, layers=[2], heads=[2, 1]).attention[0],
    )
    assert (some.layers, some.heads) == ([2], [1, 2])
    np.testing.assert_array_equal(some.weights, whole.weights[1:2, :2])
    for name in ("layers", "heads"):
        with pytest.raises(GPT1Error, match=f"no {name[:-1]} 99"):
            look([TEXT], base_model, **{name: [99]})


def test_an_lstm_has_no_attention_and_says_so(lstm, tmp_path):
    view = look([TEXT], lstm)
    assert view.attention == [] and view.probabilities
    assert "GPT1LSTMForCausalLM has no attention" in page(view)
    (file,) = show([TEXT], lstm, str(tmp_path / "x.png"))
    assert file.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(GPT1Error, match="has no attention"):
        draw(view, ["attention"])
    with pytest.raises(GPT1Error, match="has no attention"):
        attention_weights(open_causal_lm(lstm), [1, 2])


def test_an_adapter_is_drawn_as_the_model_that_it_makes(fine_tuned, tmp_path):
    pytest.importorskip("peft")
    from gpt1_hf.checkpoints.lora import add_lora, save_adapter

    base = fine_tuned("entailment")
    processor = GPT1Processor.from_pretrained(base)
    model = add_lora(GPT1ForSequenceClassification.from_pretrained(base), processor.tokenizer, base, r=2)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    save_adapter(model, str(tmp_path))
    processor.save_pretrained(tmp_path)
    view, plain = look(ROWS["entailment"], str(tmp_path)), look(ROWS["entailment"], base)
    merged = attention_weights(model.merge_and_unload(), view.formats[0].ids)
    np.testing.assert_allclose(view.attention[0].weights, merged, atol=1e-5)
    assert not np.allclose(view.attention[0].weights, plain.attention[0].weights, atol=1e-3)


def test_pictures_have_the_size_of_their_content(base_model, tmp_path):
    sizes = []
    for text in ("The captain", TEXT * 3):
        (file,) = show([text], base_model, str(tmp_path / "x.png"))
        sizes.append(struct.unpack(">II", file.read_bytes()[16:24]))
    assert sizes[0][1] < sizes[1][1] and sizes[1][0] < 4000
    figure = draw(look([TEXT], base_model))
    titles = [axes.get_title() for area in figure.subfigs for axes in area.axes]
    assert titles.count("layer 1, head 1") == 1


def test_a_token_that_spells_a_formula_stays_text(base_model, tmp_path):
    view = look(["one two three"], base_model)
    odd = ["$$", "$\\frac$", "$x$"][: len(view.probabilities)]
    attention = replace(view.attention[0], tokens=(odd * len(view.attention[0].tokens))[: view.attention[0].n_tokens])
    tokens = [replace(token, text=odd[number % len(odd)]) for number, token in enumerate(view.probabilities)]
    write_pictures(replace(view, attention=[attention], probabilities=tokens), tmp_path / "x.png")


def test_without_matplotlib_a_page_is_still_written(base_model, tmp_path, monkeypatch):
    monkeypatch.setattr("gpt1_hf.inside.pictures.importlib.util.find_spec", lambda name: None)
    show([TEXT], base_model, str(tmp_path / "x.html"))
    for output in ("x.png", "folder"):
        with pytest.raises(GPT1Error, match=r"gpt1_hf\[plots\]"):
            show([TEXT], base_model, str(tmp_path / output))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", " "], "the text is empty"),
        (["--text", "a " * 600], "tokens long"),
        (["--text", "a" * 20_001], "20,001 characters long"),
        (["--text", "a", "--model", "no/where/x"], "cannot load"),
        (["--text", "a", "b"], "reads one text"),
        (["--text", "a", "--input_format", "entailment"], r"two texts \(premise and hypothesis\), not 1"),
        (["--text", "a", "b", "c", "--input_format", "multiple_choice"], "at least two choices"),
        (["--text", "a", " ", "--input_format", "similarity"], "text 2 is empty"),
        (["--text", "a", "--output", "x.pdf"], "must end in .html or .png"),
        (["--text", "a", "--max_tokens", "1"], "max_tokens"),
        (["--text", "a", "--layers", "0"], "no layer 0"),
    ],
)
def test_mistakes_are_one_sentence(words, message, base_model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = words if "--model" in words else [*words, "--model", base_model]
    assert main(["show", *words]) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert re.search(message, error) and len(error.splitlines()) == 1, error
    assert not [*tmp_path.rglob("*.html")]


def test_the_command_writes_a_page_by_default(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["show", "--text", TEXT, "--input_format", "classification"]) == 0
    assert capsys.readouterr().out == "written to runs/show/gpt1-tiny/show.html\n"
    text = (tmp_path / "runs" / "show" / "gpt1-tiny" / "show.html").read_text(encoding="utf-8")
    assert "Token probabilities" in text and "Input format: classification" in text
    assert f"default: {MAX_TOKENS}" in help_text(capsys).lower()


def help_text(capsys) -> str:
    with pytest.raises(SystemExit):
        main(["show", "--help"])
    return capsys.readouterr().out
