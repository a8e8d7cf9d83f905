"""recipes/primer.ipynb: as stored, it has outputs without faults; executed, it runs from top to bottom."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt1_hf.errors import GPT1Error
from gpt1_hf.figures import Figure, Series
from gpt1_hf.inside import notebook
from gpt1_hf.inside.view import look


nbformat = pytest.importorskip("nbformat", reason="needs the extra primer")

ROOT = Path(__file__).resolve().parents[1]
PRIMER = ROOT / "recipes" / "primer.ipynb"
# Replaces the cell of parameters: a run of seconds instead of minutes.
FAST = "UPDATES, EPOCHS, STORIES = 4, 1, 16"
LARGEST = 1_500_000  # bytes
# Starts of absolute paths.
ABSOLUTE = re.compile(
    r"""(?:^|[\s"'(=])(?:/(?:home|Users|root|tmp|work|opt|usr|var|private)/|[A-Z]:\\\\)|file://""", re.MULTILINE
)


@pytest.fixture(scope="module")
def primer():
    return nbformat.read(PRIMER, as_version=4)


def code_cells(content) -> list:
    return [cell for cell in content.cells if cell.cell_type == "code"]


def check_outputs(content):
    """No errors, no warnings, and nothing on standard error but notes on the rows of real data."""
    for cell in code_cells(content):
        for output in cell.outputs:
            assert output.output_type in ("execute_result", "display_data", "stream"), (cell.id, output)
            if output.get("name") == "stderr":
                assert cell.id == "story-cloze-run", (cell.id, output)
            assert "Warning" not in json.dumps(output), cell.id


def test_it_is_valid_and_small(primer):
    nbformat.validate(primer)
    assert PRIMER.stat().st_size < LARGEST
    assert primer.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in primer.cells]
    assert len({*ids}) == len(ids)


def test_it_was_run_from_top_to_bottom_without_faults(primer):
    cells = code_cells(primer)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    check_outputs(primer)
    without = [cell.id for cell in cells if not cell.outputs]
    assert without == ["parameters", "offline", "setup"]  # they only set names
    assert not [cell.id for cell in cells if "execution" in cell.metadata]  # times would change with every run


def test_it_names_nothing_of_one_machine(primer):
    for cell in primer.cells:
        assert not ABSOLUTE.search(cell.source), cell.id
        for output in cell.get("outputs", ()):
            texts = [output.get("text", ""), *(output.get("data") or {}).values()]
            assert not [text for text in texts if ABSOLUTE.search(str(text))], cell.id


def test_the_text_states_no_measured_numbers(primer):
    """Scores change with the model and the hardware; sections of the paper do not."""
    for cell in primer.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"§\d(\.\d)?|figure \d|Table \d", "", cell.source)
            assert not re.search(r"\d[.,]\d|\d\s?%", text), cell.id


def test_a_page_of_it_loads_nothing(primer):
    """With the settings of `make primer`. Formulas are plain text: TeX would need a script from elsewhere."""
    exporters = pytest.importorskip("nbconvert.exporters", reason="needs the extra primer")
    assert not [cell.id for cell in primer.cells if cell.cell_type == "markdown" and "$$" in cell.source]
    settings = dict(re.findall(r"--HTMLExporter\.(\w+)=(\S+)", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert settings.keys() == {"mathjax_url", "require_js_url"}
    page, _ = exporters.HTMLExporter(**settings).from_notebook_node(primer)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=.https?:[^>]+", page)


def test_its_links_do_not_depend_on_its_place(primer):
    """The package and the page of `make primer` are elsewhere than the recipes."""
    targets = [
        t for cell in primer.cells if cell.cell_type == "markdown" for t in re.findall(r"\]\(([^)]+)", cell.source)
    ]
    assert targets and all(target.startswith("https://github.com/") for target in targets)
    for target in targets:
        assert (ROOT / target.rpartition("/blob/main/")[2]).is_file(), target


def test_its_first_example_works_and_is_not_at_chance(primer):
    (first, *_) = [cell for cell in code_cells(primer) if cell.outputs]
    (output,) = first.outputs
    value = re.search(r"^gpt1-tiny  +(\d\d\.\d)", output.data["text/plain"], re.MULTILINE)
    assert float(value[1]) > 60, "Story Cloze, where a guess has 50"


def test_its_code_passes_ruff():
    ruff = shutil.which("ruff", path=Path(sys.executable).parent) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("needs ruff")
    for command in (["check"], ["format", "--check"]):
        result = subprocess.run([ruff, *command, "--no-cache", str(PRIMER)], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_pictures_have_no_background(base_model):
    """They are read on light and on dark pages."""
    view = look(["one two three"], base_model)
    forms = notebook.picture(view, ["attention"])._repr_mimebundle_()
    picture = pytest.importorskip("PIL.Image").open(io.BytesIO(base64.b64decode(forms["image/png"])))
    assert picture.mode == "RGBA" and picture.getpixel((0, 0))[3] == 0
    svg = notebook.plot(Figure("f", "F", "x", "y", [Series("s", [(0, 1), (1, 2)])])).forms["image/svg+xml"]
    assert svg.startswith("<svg") and "#ffffff" not in svg.lower()


def test_tokens_take_the_ink_of_the_page(base_model):
    view = look(["one two", "three"], base_model, input_format="entailment")
    for shown in (notebook.probabilities(view), notebook.formats(view)):
        forms = shown._repr_mimebundle_()
        assert not re.search(r"[;\"]color:", forms["text/html"]) and "background:" in forms["text/html"]
        assert "two" in forms["text/plain"] == str(shown)
    assert 'title="premise, id' in notebook.formats(view).forms["text/html"]
    assert (
        "<script"
        not in notebook.formats(look(["<script>alert(1)</script>"], base_model, input_format="classification")).forms[
            "text/html"
        ]
    )


def test_tables_align_numbers_and_escape_texts():
    forms = notebook.table(("a <b>", "n"), [("x & y", "-1.5 ± 2"), ("z", "")]).forms
    assert '<th style="text-align:left">a &lt;b&gt;</th><th style="text-align:right">n</th>' in forms["text/html"]
    assert '<td style="text-align:left">x &amp; y</td><td style="text-align:right">-1.5 ± 2</td>' in forms["text/html"]
    assert "x & y    -1.5 ± 2" in forms["text/plain"]


def test_a_page_is_shown_in_a_frame(base_model):
    frame = notebook.interactive(look(["one two"], base_model)).forms["text/html"]
    assert frame.startswith("<iframe srcdoc=") and frame.count("<") == 2  # the page is escaped


def test_a_view_without_the_part_says_why(base_model):
    with pytest.raises(GPT1Error, match="nothing to show"):
        notebook.formats(look(["one two"], base_model))


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(primer, tmp_path):
    """With few updates. It must not depend on the working directory, but recorded runs are found beside it."""
    nbclient = pytest.importorskip("nbclient", reason="needs the extra primer")
    pytest.importorskip("ipykernel", reason="needs the extra primer")
    content = nbformat.from_dict(primer)
    (parameters,) = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", ())]
    names = re.findall(r"^(\w+) =", parameters.source, re.MULTILINE)
    assert names == FAST.partition(" =")[0].split(", ")
    parameters.source = FAST
    client = nbclient.NotebookClient(
        content, timeout=900, startup_timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    client.execute(env=environment)
    check_outputs(content)
    assert [cell.id for cell in code_cells(content) if not cell.outputs] == ["parameters", "offline", "setup"]
    assert not list(tmp_path.iterdir())
