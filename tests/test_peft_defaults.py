"""PEFT's methods know GPT-1's layers without `target_modules`, whichever package is imported first."""

import subprocess
import sys

import pytest


pytest.importorskip("peft")

SCRIPT = """
import sys
sys.argv = ["x"]
{first}
assert ("peft" in sys.modules) is {eager}
{second}
import torch, transformers
from peft import AdaLoraConfig, IA3Config, LNTuningConfig, LoraConfig, PrefixTuningConfig, get_peft_model

sizes = dict(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=32)
config = transformers.AutoConfig.for_model("gpt1", **sizes, num_labels=2, pad_token_id=0)
heads = {{
    "CAUSAL_LM": transformers.AutoModelForCausalLM,
    "SEQ_CLS": transformers.AutoModelForSequenceClassification,
    "TOKEN_CLS": transformers.AutoModelForTokenClassification,
}}
methods = {{
    LoraConfig: {{"q_proj", "v_proj"}},
    IA3Config: {{"k_proj", "v_proj", "down_proj"}},
    LNTuningConfig: {{"ln_1", "ln_2"}},
    AdaLoraConfig: {{"q_proj", "v_proj"}},
    PrefixTuningConfig: None,
}}
ids = torch.randint(1, 50, (2, 8))
for task_type, auto_class in heads.items():
    for method, layers in methods.items():
        needed = {{PrefixTuningConfig: {{"num_virtual_tokens": 4}}, AdaLoraConfig: {{"total_step": 10}}}}
        torch.manual_seed(0)
        model = auto_class.from_config(config)
        adapted = get_peft_model(model, method(task_type=task_type, **needed.get(method, {{}})))
        names = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
        if layers is not None:
            assert adapted.peft_config["default"].target_modules == layers, (method, task_type)
            found = {{layer for layer in layers for name in names if f".{{layer}}." in name}}
            assert found == layers, (method, names)
            assert all(f".h.{{block}}." in " ".join(names) for block in (0, 1))
        labels = {{"CAUSAL_LM": ids, "SEQ_CLS": torch.tensor([0, 1]), "TOKEN_CLS": ids % 2}}[task_type]
        adapted(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
        gradients = [weight.grad for weight in adapted.parameters() if weight.grad is not None]
        assert any(gradient.abs().sum() > 0 for gradient in gradients), (method, task_type)
from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as feedforward
assert feedforward["gpt1"] == ["down_proj"]
lstm = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model("gpt1_lstm", vocab_size=50))
try:
    get_peft_model(lstm, LoraConfig(task_type="CAUSAL_LM"))
except ValueError as error:
    assert "target_modules" in str(error)
else:
    raise AssertionError("the LSTM has no such layers")
"""


@pytest.mark.parametrize(
    ("first", "second", "eager"),
    [
        ("import gpt1_hf", "import peft", False),
        ("import peft", "import gpt1_hf", True),
        ("import gpt1_hf, peft.utils.constants", "", True),
    ],
)
def test_methods_find_their_layers_in_either_order_of_import(first, second, eager):
    code = SCRIPT.format(first=first, second=second, eager=eager)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_package_imports_without_peft(tmp_path):
    code = """
import sys
sys.modules["peft"] = None
import gpt1_hf
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
