"""The wheel and the source distribution are built, installed in an empty environment, and used."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
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
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/tests/conftest.py") for name in archive.getnames())


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
