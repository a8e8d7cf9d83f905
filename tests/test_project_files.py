"""Files about the project: its metadata, its citation, and the workflow for GitHub."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet


ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
TARGETS = re.findall(r"(?m)^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"))


def test_pypi_knows_every_classifier():
    known = pytest.importorskip("trove_classifiers").classifiers
    assert [name for name in PROJECT["classifiers"] if name not in known] == []
    assert len(PROJECT["classifiers"]) == len({*PROJECT["classifiers"]})


def python_versions() -> list[str]:
    """Python versions that the classifiers name."""
    return re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))


def test_classifiers_name_the_python_versions_that_are_supported_and_tested():
    assert python_versions()[0] == next(iter(SpecifierSet(PROJECT["requires-python"]))).version
    assert yaml.safe_load(WORKFLOW)["jobs"]["tests"]["strategy"]["matrix"]["python"] == python_versions()


def test_the_project_has_urls_of_one_repository():
    urls = PROJECT["urls"]
    assert {"Homepage", "Documentation", "Repository", "Issues", "Changelog"} <= {*urls}
    assert all(url.startswith("https://") for url in urls.values())
    own = [url for name, url in urls.items() if name != "Paper"]
    assert all(url.startswith(urls["Repository"]) for url in own)
    for url in own:
        if "/blob/main/" in url:
            assert (ROOT / url.partition("/blob/main/")[2]).is_file()


def test_the_citation_has_what_its_format_requires():
    """Required keys of https://github.com/citation-file-format/citation-file-format, version 1.2.0."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= {*citation}
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= {*paper}
    assert [author["family-names"] for author in paper["authors"]] == [
        "Radford",
        "Narasimhan",
        "Salimans",
        "Sutskever",
    ]
    assert (paper["year"], paper["url"]) == (2018, PROJECT["urls"]["Paper"])


def steps() -> list[dict]:
    """Steps of all jobs of the workflow."""
    return [step for job in yaml.safe_load(WORKFLOW)["jobs"].values() for step in job["steps"]]


def test_the_workflow_runs_existing_targets():
    called = [name for step in steps() for name in re.findall(r"\bmake ([\w-]+)", step.get("run", ""))]
    assert {"lint", "demo", "test", "test-lowest", "test-newest", "test-versions"} == {*called} <= {*TARGETS}
    assert all("uses" in step or step["run"].startswith("make ") for step in steps())


def test_the_workflow_tests_three_versions_of_transformers_on_linux():
    content = yaml.safe_load(WORKFLOW)
    matrix = content["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["transformers"] == ["lowest", "pinned", "newest"]
    conditions = {step["if"].split("'")[1] for step in content["jobs"]["tests"]["steps"] if "if" in step}
    assert conditions == {*matrix["transformers"]}
    assert all({"python": python, "transformers": "pinned"} not in matrix["exclude"] for python in matrix["python"])
    assert {job["runs-on"] for job in content["jobs"].values()} == {"ubuntu-latest"}
    caches = [step["with"]["cache"] for step in steps() if "setup-python" in step.get("uses", "")]
    assert caches == ["pip"] * len(content["jobs"])


def test_the_workflow_needs_nothing_of_one_machine():
    assert not re.search(r"/work\b|\.\./|GPT1_DATA_DIR|self-hosted|secrets\.", WORKFLOW)


def test_tests_of_the_version_of_transformers_exist():
    found = re.search(r"(?ms)^VERSION_TESTS := \\\n(.*?)\n\n", (ROOT / "Makefile").read_text(encoding="utf-8"))
    files = found[1].replace("\\", "").split()
    assert files == sorted({*files}) and all((ROOT / file).is_file() for file in files)
