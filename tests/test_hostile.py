"""Hostile input: special tokens in text, code in files, names that leave a folder, markup, and secrets that leak.

The page of `gpt1 report` is opened in a browser by the slow test; the demo's is in `test_space.py`.
"""

import dataclasses
import html.parser
import json
import logging
import pickle
import re
import shutil
import zipfile
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from helpers.data import WORDS, write_jsonl
from helpers.models import CODE
from helpers.release import release_shapes, write_release
from huggingface_hub.errors import HTTPError
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast

from gpt1_hf import GPT1Config, GPT1DataCollator, GPT1Processor, GPT1Tokenizer
from gpt1_hf.analysis.plan.plan import Plan
from gpt1_hf.analysis.report.report import report
from gpt1_hf.analysis.zero_shot import Scorer
from gpt1_hf.checkpoints.loading import open_causal_lm, open_config, open_model, open_tokenizer
from gpt1_hf.cli import main
from gpt1_hf.data.token_stream import encode_blocks
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.glue_submission import read_submission
from gpt1_hf.hub.upload import explained, upload
from gpt1_hf.inside.generation import sample
from gpt1_hf.pipelines import GPT1TextClassificationPipeline, MultipleChoicePipeline
from gpt1_hf.processing_gpt1 import INPUT_FORMATS, TASK_TOKENS
from gpt1_hf.training.arguments import FinetuneArguments, PretrainArguments
from gpt1_hf.training.finetune import finetune


TOKEN = "hf_" + "SeCrEt" * 5
SPELLINGS = ["_start_", "_delimiter_", "_classify_", "<unk>", "<pad>", "</w>", "<s>", "[CLS]", "<|endoftext|>"]


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def traces(tmp_path):
    """A file that code creates if it is run. Afterwards, checks that it does not exist."""
    path = tmp_path / "code_was_run"
    yield path
    assert not path.exists()


class TestSpecialTokens:
    @pytest.fixture
    def spelling(self, texts):
        """A tokenizer that has all letters of the spellings, so that none becomes `<unk>` for lack of a letter."""
        more = [" ".join(SPELLINGS), " ".join(WORDS)]
        return GPT1Tokenizer.train([*texts, *more], vocab_size=260, model_max_length=64, show_progress=False)

    @pytest.fixture
    def foreign(self, spelling, tmp_path_factory):
        """The same vocabulary in the library's own tokenizer class, which finds special tokens in texts."""
        folder = tmp_path_factory.mktemp("foreign")
        spelling.save_pretrained(folder)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), unk_token="<unk>")
        tokenizer.add_special_tokens({"pad_token": "<pad>", "eos_token": "<|endoftext|>", **TASK_TOKENS})
        assert tokenizer.convert_tokens_to_ids("_start_") in tokenizer("a _start_ b")["input_ids"]
        return tokenizer

    @pytest.fixture(params=["ours", "foreign"])
    def source(self, request, spelling, foreign):
        return spelling if request.param == "ours" else foreign

    def specials(self, tokenizer) -> set[int]:
        return set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())

    @pytest.mark.parametrize("input_format", INPUT_FORMATS)
    @pytest.mark.parametrize("loader", [None, AutoProcessor, GPT1Processor])
    def test_texts_cannot_inject_special_tokens(self, source, tmp_path, input_format, loader):
        processor = GPT1Processor(source, input_format)
        if loader is not None:
            processor.save_pretrained(tmp_path)
            (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt1"}))
            processor = loader.from_pretrained(tmp_path)
        evil = " ".join(SPELLINGS) + "".join(SPELLINGS)
        row = {name: f"the {evil} lady" for name in processor.columns}
        if input_format == "multiple_choice":
            row["choices"] = [f"the {evil}", f"{evil} lady"]
        if input_format == "token_classification":
            row["words"] = [*SPELLINGS, f"the{''.join(SPELLINGS)}"]
        sequences = processor(row, max_length=1000)["input_ids"]
        sequences = sequences if processor.has_several_sequences else [sequences]
        n_delimiters = {"classification": 0, "token_classification": 0, "multiple_choice": 2}.get(input_format, 1)
        middle = ["_delimiter_"] * n_delimiters
        own = processor.tokenizer.convert_tokens_to_ids(["_start_", *middle, "_classify_"])
        for sequence in sequences:
            assert [token for token in sequence if token in self.specials(processor.tokenizer)] == own
        batch = GPT1DataCollator(processor, shared_prefix=False)([{"input_ids": processor(row)["input_ids"]}])
        n_start = (batch["input_ids"] == processor.tokenizer.bos_token_id).sum()
        assert n_start == len(sequences)

    def test_the_saved_tokenizer_alone_does_the_same(self, source, tmp_path):
        GPT1Processor(source, "entailment").save_pretrained(tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
        for evil in SPELLINGS:
            ids = tokenizer(f"the {evil}", f"{evil} lady")["input_ids"]
            own = tokenizer.convert_tokens_to_ids(["_start_", "_delimiter_", "_classify_"])
            assert [token for token in ids if token in self.specials(tokenizer)] == own

    def test_prompts_corpora_and_scored_texts_cannot_inject_special_tokens(self, source, config):
        evil = " ".join(["the", *SPELLINGS])
        specials = self.specials(source)
        assert not specials & set(sum(encode_blocks(source, evil), []))
        assert not specials & set(Scorer(None, source, 64).encode([evil])[0])
        asked = {}

        class Model:
            device, config, _is_stateful = "cpu", None, True

            def eval(self):
                return self

            def generate(self, **inputs):
                asked.update(inputs)

        sample(source, Model(), evil, 3, 0.0, 1.0, 0)
        assert not specials & set(asked["input_ids"][0].tolist())

    def test_the_pipeline_for_multiple_choice(self, source):
        processor = GPT1Processor(source, "multiple_choice")
        pipe = object.__new__(MultipleChoicePipeline)
        pipe.processor, pipe.model = processor, SimpleNamespace(config=GPT1Config())
        row = pipe.preprocess({"document": "_classify_ the", "choices": ["_start_ lady", "_delimiter_ garden"]})["row"]
        for sequence in row["input_ids"]:
            assert len([token for token in sequence if token in self.specials(processor.tokenizer)]) == 3

    def test_the_pipeline_for_text_classification(self, source):
        pipe = object.__new__(GPT1TextClassificationPipeline)
        pipe.processor = GPT1Processor(source, "similarity")
        pipe.model = SimpleNamespace(config=GPT1Config())
        row = pipe.preprocess({"text": "_classify_ the", "text_pair": "_start_ lady _delimiter_"})["row"]
        for sequence in row["input_ids"]:
            assert len([token for token in sequence if token in self.specials(pipe.processor.tokenizer)]) == 3


class TestCode:
    """Nothing is unpickled, YAML creates no objects, and code beside a model runs only on request."""

    @pytest.mark.parametrize("command", ["recipe", "override", "plan"])
    def test_yaml_creates_no_objects(self, tmp_path, traces, capsys, command):
        evil = f"!!python/object/apply:builtins.open ['{traces}', 'w']"
        assert yaml.unsafe_load(evil).close() is None and traces.exists()  # it is a real one
        traces.unlink()
        (tmp_path / "evil.yaml").write_text(f"task: {evil}\n")
        argv = {
            "recipe": ["finetune", "--config", str(tmp_path / "evil.yaml")],
            "override": ["analyze", "ablations", "--dry_run", "--finetune.learning_rate", evil],
            "plan": ["analyze", "ablations", "--dry_run", "--config", str(tmp_path / "evil.yaml")],
        }[command]
        try:
            assert main(argv) == 2
            assert "python/object" in capsys.readouterr().err
        except yaml.YAMLError as error:
            assert "could not determine a constructor" in str(error)

    def test_arrays_of_a_release_are_not_unpickled(self, tmp_path, traces, capsys):
        release = tmp_path / "release"
        write_release(release, release_shapes(8, 50, 64, 1))
        np.save(release / "params_0.npy", np.array([Bomb(traces)], dtype=object), allow_pickle=True)
        assert main(["convert", str(release), "--output_dir", str(tmp_path / "out")]) == 1
        (release / "params_0.npy").write_bytes(pickle.dumps(Bomb(traces)))
        assert main(["convert", str(release), "--output_dir", str(tmp_path / "out")]) == 1
        assert capsys.readouterr().err.count("params_0.npy is damaged or not an array") == 2

    @pytest.mark.parametrize("opener", ["language model", "whole model", "adapter"])
    def test_weights_are_not_unpickled(self, base_model, tmp_path, traces, opener, monkeypatch):
        folder = shutil.copytree(base_model, tmp_path / "model")
        (folder / "model.safetensors").unlink()
        for name in ("pytorch_model.bin", "adapter_model.bin"):
            with (folder / name).open("wb") as file:
                pickle.dump(Bomb(traces), file)
        loaded = []
        monkeypatch.setattr(torch, "load", lambda *args, **kwargs: loaded.append(args))
        if opener == "adapter":
            pytest.importorskip("peft")
            config = {"base_model_name_or_path": base_model, "peft_type": "LORA", "target_modules": ["q_proj"]}
            (folder / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(GPT1Error, match=r"adapter_model\.safetensors" if opener == "adapter" else "cannot load"):
            if opener == "language model":
                open_causal_lm(str(folder))
            else:
                from gpt1_hf import GPT1ForCausalLM

                open_model(GPT1ForCausalLM, str(folder), open_config(str(folder)))
        assert not loaded

    @pytest.mark.parametrize("model_type", ["gpt1", "evil"])
    def test_code_beside_a_model_is_not_run(self, base_model, tmp_path, traces, monkeypatch, model_type):
        """No command asks for permission to run it either."""
        folder = shutil.copytree(base_model, tmp_path / "model")
        code = f"open({str(traces)!r}, 'w')\nfrom gpt1_hf import *\n"
        for file in CODE["gpt1"] | {"tokenization_gpt1.py"}:
            (folder / file).write_text(code)
        path = folder / "config.json"
        config = json.loads(path.read_text())
        names = {"AutoTokenizer": ["tokenization_gpt1.GPT1Tokenizer", None], **config["auto_map"]}
        path.write_text(json.dumps({**config, "model_type": model_type, "auto_map": names}))
        tokenizer_config = folder / "tokenizer_config.json"
        content = json.loads(tokenizer_config.read_text())
        tokenizer_config.write_text(json.dumps({**content, "auto_map": {"AutoTokenizer": names["AutoTokenizer"]}}))
        monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run code"))
        for command in (
            ["generate", "the lady", "--model", str(folder)],
            ["evaluate", "--model", str(folder), "--task", "sst2", "--sample", "--output_dir", str(tmp_path / "e")],
            ["zero-shot", "--model", str(folder), "--task", "sst2", "--sample", "--output_dir", str(tmp_path / "z")],
            ["push", str(folder), "someone/model"],
        ):
            main(command)
        if model_type == "gpt1":
            assert open_causal_lm(str(folder)) and open_tokenizer(str(folder))

    def test_an_archive_is_read_and_never_unpacked(self, tmp_path):
        path = tmp_path / "inner" / "submission.zip"
        path.parent.mkdir()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../../evil.tsv", "index\tprediction\n0\t1\n")
            archive.writestr("/tmp/evil_gpt1.tsv", "index\tprediction\n0\t1\n")
        assert set(read_submission(path)) == {"evil", "evil_gpt1"}
        assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["submission.zip"]


CLIMBING = ["../x", "../../x", "/tmp/x", "a/../../x", "..", ".", "a\\..\\x", "a\x00b", "", "~x", "-x"]


class TestNames:
    """Names of tasks, recipes, models, repositories and runs stay in their folders."""

    @pytest.mark.parametrize("name", CLIMBING)
    def test_of_tasks(self, tmp_path, capsys, name):
        out = tmp_path / "deep" / "out"
        for command in ("finetune", "evaluate", "zero-shot"):
            assert main([command, f"--task={name}", "--sample", "--output_dir", str(out)]) == 2
        assert capsys.readouterr().err.count("gpt1: error: ") == 3
        assert not list(tmp_path.iterdir())

    def test_of_recipes(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        for name in ("../pyproject.toml", "../README", "finetune/../../pyproject.toml", "pyproject.toml"):
            assert main(["recipes", "show", name]) == 2, name
            assert main(["recipes", "copy", name]) == 2
            assert "there is no recipe" in capsys.readouterr().err
        assert main(["recipes", "copy", "finetune/cola"]) == 0
        assert [path.name for path in tmp_path.iterdir()] == ["cola.yaml"]

    @pytest.mark.parametrize("name", CLIMBING)
    @pytest.mark.parametrize("what", ["variants", "models"])
    def test_of_runs(self, write_plan, tmp_path, name, what):
        """A run deletes the checkpoints of an earlier one in its folder, so the folder must be its own."""
        of_another = tmp_path / "x" / "checkpoint-1"
        of_another.mkdir(parents=True)
        changes = {"models": {name: {}}, "variants": {"full": {"model": name}}}
        plan = write_plan(**changes) if what == "models" else write_plan(variants={name: {}}, models={})
        with pytest.raises(GPT1Error, match="cannot be the name of a run"):
            Plan.read(plan).runs()
        assert of_another.is_dir()

    def test_of_runs_that_plans_have(self, write_plan):
        assert len(Plan.read(write_plan()).runs()) == 8

    def test_of_figures(self, tmp_path):
        runs = tmp_path / "deep" / "runs"
        write_fine_tuned(runs / "run", task="../../../evil")
        report(runs)
        assert [path.name for path in tmp_path.iterdir()] == ["deep"]
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["runs"]

    @pytest.mark.parametrize("name", [*CLIMBING[:7], "a/b/c", "owner/..", "owner/na me"])
    def test_of_repositories(self, base_model, name, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        with pytest.raises(GPT1Error, match="is not a valid repository name"):
            upload(base_model, name)

    @pytest.mark.parametrize("name", ["../../x", "..", ".", "/etc"])
    def test_of_models(self, name, capsys):
        assert main(["generate", "the", "--model", name]) == 1
        assert capsys.readouterr().err.startswith("gpt1: error: ")


EVIL = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "'\"><svg onload=document.title='owned'>",
    "</title></style></textarea><iframe srcdoc='<script>top.document.title=1</script>'>",
    "{{ 7 * 7 }}{% for x in y %}",
    "javascript:document.title='owned'",
    "]]><!--",
]


def write_fine_tuned(folder, task="cola", evil=""):
    """Files of a run, with hostile text in every place that a report shows."""
    folder.mkdir(parents=True)
    details = {"from_scratch": False, "lm_coef": 0.5, "n_train_examples": 10, "device": f"CPU{evil}", "note": evil}
    row = {"task": task, "split": f"validation{evil}", "metric": f"matthews_correlation{evil}", "value": 40.0}
    row |= {"n_examples": 10, "paper": None, "model": f"m{evil}", "seed": 1, "details": details}
    plain = {
        **row,
        "split": "validation",
        "metric": "matthews_correlation",
        "details": {**details, "rows_of_split": 20},
    }
    other = {**row, "details": {"text": evil}}
    (folder / "results.json").write_text(json.dumps([row, plain, other]))
    run = {"name": f"n{evil}", "variant": f"full{evil}", "command": f"gpt1 {evil}", "settings": {f"k{evil}": evil}}
    run |= {"hash": "0", "state": "failed", "error": evil, "seconds": 1, "versions": {"torch": evil}}
    (folder / "run.json").write_text(json.dumps(run))
    state = {"log_history": [{"step": step, "loss": 2.0 / step} for step in (1, 2, 3)]}
    (folder / "trainer_state.json").write_text(json.dumps(state))


SVG_TAGS = {"svg", "style", "defs", "g", "path", "use", "clipPath", "rect", "text", "tspan", "title"}


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


class TestMarkup:
    @pytest.fixture
    def page(self, tmp_path):
        for number, evil in enumerate(EVIL):
            name = evil.replace("/", "")
            write_fine_tuned(tmp_path / "runs" / f"{number}{name}", task=f"t{evil}", evil=evil)
            write_fine_tuned(tmp_path / "runs" / f"cola{number}", evil=evil)
        return report(tmp_path / "runs", tmp_path / f"out {EVIL[0]}".replace("/", ""))

    def test_a_report_has_no_tags_but_its_own(self, page):
        tags = Tags()
        tags.feed(page.read_text(encoding="utf-8"))
        names = {name for name, _ in tags.found}
        assert not names & {"script", "img", "iframe", "textarea", "object", "embed", "link", "base", "form"}
        for name, attributes in tags.found:
            assert not [key for key in attributes if key.startswith("on")], (name, attributes)
            for key in ("href", "src", "xlink:href"):
                assert (attributes.get(key) or "#").startswith("#"), (name, attributes)
        assert "&lt;script&gt;" in page.read_text(encoding="utf-8")
        markdown = page.with_name("report.md").read_text(encoding="utf-8")
        for line in re.sub(r"(?s)\n(`{3,})bash\n.*?\n\1\n", "\n", markdown).splitlines():
            assert not re.search(r"<(script|img|iframe|svg)", line), line
        for figure in page.parent.glob("figures/*.svg"):
            for element in ElementTree.parse(figure).iter():
                assert element.tag.rsplit("}", 1)[-1] in SVG_TAGS, (figure, element.tag)
                assert not [key for key in element.attrib if key.startswith("on")]

    @pytest.mark.slow
    def test_a_browser_runs_nothing_of_it(self, page, browser):  # noqa: F811
        browser.get(page.resolve().as_uri().replace("<", "%3C"))
        title = browser.title
        assert title.startswith("GPT-1 runs in") and "owned" not in title
        assert browser.execute_script("return document.querySelectorAll('script,img,iframe').length") == 0
        assert EVIL[0] in browser.find_element("tag name", "body").get_attribute("textContent")
        assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        for figure in page.parent.glob("figures/*.svg"):
            browser.get(figure.resolve().as_uri().replace("<", "%3C"))
            assert "owned" not in browser.title


def holds_token(folder) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


class TestSecrets:
    """No file or message contains the environment's token or the argument's."""

    @pytest.fixture
    def settings(self, base_model, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        settings = {"model": base_model, "task": "sst2", "sample": True, "max_steps": 2, "max_train_examples": 8}
        settings |= {"output_dir": str(tmp_path / "run"), "disable_tqdm": True, "use_cpu": True, "save_steps": 1}
        return {**settings, "save_strategy": "steps", "hub_token": TOKEN, "report_to": ["tensorboard"]}

    def test_no_file_or_message_of_a_run_contains_it(self, settings, tmp_path, monkeypatch, capsys, caplog):
        pytest.importorskip("tensorboard")
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "boards"))
        finetune(FinetuneArguments(**settings))
        assert (tmp_path / "run" / "checkpoint-2" / "manifest.json").is_file() and list(tmp_path.rglob("events*"))
        assert not holds_token(tmp_path)
        assert not list(tmp_path.rglob("training_args.bin"))  # a pickle that transformers' Trainer leaves
        out = capsys.readouterr()
        assert TOKEN not in out.out + out.err + caplog.text

    def test_a_resumed_run_does_not_need_the_file(self, settings, tmp_path):
        settings["report_to"] = "none"
        finetune(FinetuneArguments(**{**settings, "max_steps": 1, "lr_scheduler_type": "constant"}))
        finetune(
            FinetuneArguments(
                **{**settings, "max_steps": 1, "lr_scheduler_type": "constant", "resume_from_checkpoint": "true"}
            )
        )
        assert not holds_token(tmp_path)

    @pytest.mark.parametrize("arguments", [FinetuneArguments, PretrainArguments])
    def test_settings_that_are_printed_hide_it(self, arguments, tmp_path):
        args = arguments(output_dir=str(tmp_path), hub_token=TOKEN)
        assert TOKEN not in f"{args} {args!r} {args.to_json_string()} {args.to_sanitized_dict()}"
        assert dataclasses.asdict(args)["hub_token"] == TOKEN  # it is there to be used

    def test_a_plan_does_not_record_it(self, write_plan, tmp_path):
        for key in ("hub_token", "push_to_hub_token"):
            with pytest.raises(GPT1Error, match=f"{key} does not belong in a plan, which records its settings"):
                Plan.read(write_plan(finetune={key: TOKEN})).runs()

    @pytest.mark.parametrize("word", [f"--hub_tokn={TOKEN}", f"--hub_tokens={TOKEN}"])
    def test_a_mistyped_flag_is_named_without_its_value(self, word, capsys):
        assert main(["finetune", "--task", "cola", word]) == 2
        error = capsys.readouterr().err
        assert "did you mean --hub_token?" in error and TOKEN not in error

    @pytest.mark.parametrize(
        "error",
        [
            HTTPError(f"Illegal header value b'Bearer {TOKEN}\\x01'"),
            HTTPError(f"cannot reach https://user:{TOKEN}@huggingface.co"),
            ValueError(f"bad token {TOKEN}"),
            RuntimeError(f"Bearer {TOKEN}"),
        ],
    )
    def test_messages_of_the_hubs_client_are_cleaned_of_it(self, error):
        with pytest.raises(GPT1Error) as caught, explained("a/b", "nothing was sent"):
            raise error
        assert TOKEN not in str(caught.value) and "<token>" in str(caught.value)


def test_rows_with_special_spellings_are_scored_like_any_others(base_model, tmp_path):
    """From a file of rows to the predictions, by the command line."""
    rows = [{"sentence": f"the {word} lady _classify_", "label": n % 2} for n, word in enumerate(SPELLINGS)]
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "data" / "nyu-mll" / "glue" / "sst2" / f"{split}.jsonl", rows)
    argv = ["finetune", "--task", "sst2", "--model", base_model, "--data_dir", str(tmp_path / "data")]
    assert main([*argv, "--output_dir", str(tmp_path / "run"), "--use_cpu", "--max_steps", "1"]) == 0
    lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == len(SPELLINGS) and not any(json.loads(line)["truncated"] for line in lines)
