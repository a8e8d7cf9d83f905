"""The app of `model_card/space`: served on this machine, or written to a folder for a Hugging Face Space."""

import importlib.util
import os
import shutil
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType

from ..errors import GPT1Error
from ..files import new_folder, write_text
from ..resources import PACKAGE, space_dir
from ..settings import check_ranges


def load_app() -> ModuleType:
    """
    Import the app, with gradio's analytics off.

    Raises:
        GPT1Error: if gradio is missing.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    if importlib.util.find_spec("gradio") is None:
        raise GPT1Error("this page needs gradio: pip install 'gpt1_hf[demo]'")
    spec = importlib.util.spec_from_file_location("gpt1_hf_space_app", space_dir() / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    return app


def serve(model: str = "gpt1-tiny", choice_model: str | None = None, port: int = 7860):
    """
    Serve the app at 127.0.0.1, to this machine only, until it is interrupted.

    Args:
        model (`str`, *optional*, defaults to `"gpt1-tiny"`):
            Causal language model: folder, Hub id, or `gpt1-tiny`.
        choice_model (`str`, *optional*):
            Checkpoint that was fine-tuned for multiple choice, for the tab of that name.
        port (`int`, *optional*, defaults to 7860):
            Port.

    Raises:
        GPT1Error: if gradio or a model is missing, or the port is in use.
    """
    from .explorer import Explorer

    check_ranges({"port": port}, {"port": (1, 65535)})
    app = load_app()
    explorer = Explorer(model, choice_model)
    _ = (
        explorer.scorer,
        choice_model and explorer.chooser,
    )  # loaded now, so that errors appear here and not in the browser
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
        raise GPT1Error(f"cannot serve at port {port} ({error}): give another --port") from error
    print(f"{model} is served at http://127.0.0.1:{port}; Ctrl-C stops it", flush=True)
    page.block_thread()


def write_space(output_dir: str | Path) -> Path:
    """
    Write a folder that runs as a Hugging Face Space: the app, and this package with `gpt1-tiny`.

    Raises:
        GPT1Error: if the folder is not empty.
    """
    version = metadata(PACKAGE.name)["Version"]
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    with new_folder(output_dir) as folder:
        shutil.copytree(space_dir(), folder, ignore=ignore, dirs_exist_ok=True)
        shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=ignore)
        # The package looks up its own version, which needs the metadata of an installed one.
        content = f"Metadata-Version: 2.1\nName: {PACKAGE.name}\nVersion: {version}\n"
        write_text(folder / f"{PACKAGE.name}-{version}.dist-info" / "METADATA", content)
    return Path(output_dir)
