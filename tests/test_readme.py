"""README's script for Trainer users runs as it is printed, without this package's commands."""

import re
from pathlib import Path

import pytest


README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.mark.slow
def test_the_script_for_trainer_users_runs(tmp_path, monkeypatch, capsys):
    section = README.read_text(encoding="utf-8").split("## Trainer users\n")[1].split("\n## ")[0]
    (script,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(script.strip().splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(script, "README.md", "exec"), names)
    assert "eval_accuracy" in capsys.readouterr().out
    assert names["trainer"].state.global_step > 0
