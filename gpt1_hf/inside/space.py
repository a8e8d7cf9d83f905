"""The demo of `model_card/space`: served on this machine, or written out as a folder for a Hugging Face Space."""

import importlib.util
import os
import shutil
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType

from ..errors import GPT1Error
from ..resources import PACKAGE, space_dir
from ..settings import check_ranges


def load_app() -> ModuleType:
    """
    Import the demo's `app.py`, with gradio's analytics off.

    Raises:
        GPT1Error: if gradio is missing.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    if importlib.util.find_spec("gradio") is None:
        raise GPT1Error("the demo needs gradio: pip install 'gpt1_hf[demo]'")
    spec = importlib.util.spec_from_file_location("gpt1_hf_space_app", space_dir() / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    return app


def serve(model: str = "gpt1-tiny", choice_model: str | None = None, port: int = 7860):
    """
    Serve the demo to this machine alone, at 127.0.0.1, until it is interrupted.

    Args:
        model (`str`, *optional*, defaults to `"gpt1-tiny"`):
            Causal language model: folder, Hub id, or `gpt1-tiny`.
        choice_model (`str`, *optional*):
            Checkpoint fine-tuned for multiple choice, for the tab of that name.
        port (`int`, *optional*, defaults to 7860):
            Port.

    Raises:
        GPT1Error: if gradio, a model, or the port is not to be had.
    """
    from .explorer import Explorer

    check_ranges({"port": port}, {"port": (1, 65535)})
    app = load_app()
    explorer = Explorer(model, choice_model)
    _ = explorer.scorer, choice_model and explorer.chooser  # what is wrong with them is said now, not in the browser
    try:
        page = app.build(explorer)
        page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            **app.LAUNCH,
        )
    except OSError as error:
        raise GPT1Error(f"cannot serve at port {port}: give another one by --port ({error})") from error
    print(f"{model} is to be seen at http://127.0.0.1:{port}; Ctrl-C ends it", flush=True)
    page.block_thread()


def write_space(output_dir: str | Path) -> Path:
    """
    Write a folder that runs as a Hugging Face Space as it is: the demo, and this package beside it with `gpt1-tiny`.

    Raises:
        GPT1Error: if the folder holds something already.
    """
    folder = Path(output_dir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise GPT1Error(f"{folder} is a file or is not empty: give a new folder")
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(space_dir(), folder, ignore=ignore, dirs_exist_ok=True)
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=ignore)
    # The package asks for its own version: it has to be found as an installed one is.
    info = folder / f"{PACKAGE.name}-{metadata(PACKAGE.name)['Version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {PACKAGE.name}\nVersion: {metadata(PACKAGE.name)['Version']}\n",
        encoding="utf-8",
    )
    return folder
