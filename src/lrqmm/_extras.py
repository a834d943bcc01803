"""What the library does without, by the extra that installs it: `pip install 'lrqmm[bench]'`."""

from collections.abc import Iterable
from importlib.util import find_spec

EXTRAS = {
    "bench": (
        *("pandas", "pyarrow", "pandera", "psutil", "pydantic", "yaml", "threadpoolctl"),
        *("typer", "rich", "platformdirs", "matplotlib", "seaborn", "vl_convert", "snakemake"),
        *("gguf", "huggingface_hub", "safetensors", "tokenizers", "PIL", "scipy", "skimage"),
        "sklearn",
    ),
    "cluster": ("snakemake_executor_plugin_cluster_generic", "snakemake_executor_plugin_slurm"),
    "cuda13": ("cupy",),
    "disk": ("dask",),
    "docs": ("furo", "latex2mathml", "myst_parser", "sphinx", "ziamath"),
    "notebooks": ("ipykernel", "jupyterlab", "papermill"),
    "peers": (
        *("auto_round_kernel", "onnx", "onnx_ir", "onnxruntime", "openvino", "nncf", "torchao"),
    ),
}
"""The modules of each extra; `pyproject.toml` says which versions."""


def absent(modules: Iterable[str]) -> list[str]:
    """Those of the modules that are not installed."""
    return [module for module in modules if find_spec(module) is None]


def missing(extra: str) -> list[str]:
    """Modules of an extra that are not installed."""
    return absent(EXTRAS[extra])


def needs_extra(part: str, extra: str) -> None:
    """Raise ImportError, which names the extra to install, where a module of it is missing."""
    if absent := missing(extra):
        message = f"{part} needs {absent[0]}; install it with: pip install 'lrqmm[{extra}]'"
        raise ImportError(message, name=absent[0])
