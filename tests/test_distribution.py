"""The wheel and the source distribution are built, installed in an empty environment, and used."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement


ROOT = Path(__file__).resolve().parents[1]


def run(*command, cwd, **environment) -> str:
    """Output of a command that cannot find a checkout through its environment."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The source distribution, and the wheel built from it."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
def test_the_wheel_contains_the_files_that_the_package_reads(built):
    sdist, wheel = built
    names = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "gpt1_hf").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(ROOT).as_posix() in names
    assert any(name.startswith("gpt1_hf/model_card/") for name in names)
    recipes = [path for path in (ROOT / "recipes").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    shipped = {path for path in recipes if ROOT / "recipes" / "results" not in path.parents}
    assert {ROOT / name.removeprefix("gpt1_hf/") for name in names if name.startswith("gpt1_hf/recipes/")} == shipped
    assert not [name for name in names if name.startswith("tests/")]
    assert {"gpt1_hf/py.typed", "gpt1_hf/assets/gpt1-tiny/model.safetensors", "gpt1_hf/tasks/cola.yaml"} <= {*names}
    assert [name for name in names if name.endswith("/licenses/LICENSE")]
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "gpt1_hf" in tops  # and its metadata
    assert not [name for name in names if name.endswith((".parquet", ".csv", ".pyc"))]
    assert wheel.stat().st_size < 60e6


@pytest.mark.slow
def test_the_source_distribution_contains_the_project(built):
    sdist, _ = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("LICENSE", "CITATION.cff", "CHANGELOG.md", "Makefile", "README.md", "constraints.txt", "PKG-INFO"):
        assert name in names
    assert {"tests/conftest.py", "tests/test_distribution.py", "recipes/finetune/cola.yaml"} <= names
    assert not [name for name in names if name.startswith((".venv", ".git/", "runs/", "dist/"))]


@pytest.mark.slow
def test_pypi_accepts_the_metadata(built):
    """What `twine check --strict` and PyPI check; of the README, that it is Markdown and not empty."""
    sdist, wheel = built
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    in_wheel = zipfile.ZipFile(wheel).read(name)
    with tarfile.open(sdist) as archive:
        in_sdist = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO").read()
    assert in_wheel == in_sdist
    metadata = Metadata.from_email(in_wheel, validate=True)
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert metadata.license_expression == "MIT" and metadata.license_files == ["LICENSE"]
    assert metadata.project_urls and len(metadata.summary) <= 512 and "\n" not in metadata.summary
    classifiers = pytest.importorskip("trove_classifiers").classifiers
    assert {*metadata.classifiers} <= classifiers
    if importlib.util.find_spec("twine"):
        run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, cwd=ROOT)


@pytest.mark.slow
def test_the_wheel_works_in_its_own_environment(built, tmp_path):
    _, wheel = built
    home = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path)
    python = home / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    # The dependencies are those of the running environment. A .pth file adds their folder, but no links to checkouts.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", "--quiet", wheel, cwd=tmp_path)
    location = run(python, "-c", "import gpt1_hf; print(gpt1_hf.__file__)", cwd=tmp_path).strip()
    assert Path(location).is_relative_to(home)

    gpt1 = home / "bin" / "gpt1"
    assert "usage: gpt1 COMMAND" in run(gpt1, "--help", cwd=tmp_path)
    assert "finetune/cola" in run(gpt1, "recipes", "ls", cwd=tmp_path)
    words = ["It was a dark night", "--model", "gpt1-tiny", "--max_new_tokens", "5", "--temperature", "0"]
    text = run(gpt1, "generate", *words, cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert "dark night" in text.lower() and len(text.split()) > 5


@pytest.mark.slow
def test_installed_versions_are_compatible():
    run(sys.executable, "-m", "pip", "check", cwd=ROOT)


def test_constraints_lowest_has_the_lower_bounds_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [Requirement(line) for line in [*project["dependencies"], *extras["test"]]]
    own = next(need for need in needed if need.name == project["name"])
    needed += [Requirement(line) for extra in own.extras for line in extras[extra]]
    lowest = {
        need.name: f"{need.name}=={next(iter(need.specifier)).version}"
        for need in needed
        if need.name not in (project["name"], "torch")
    }
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert lines == [lowest[name] for name in sorted(lowest)]
