"""transformers' own module of an encoder, with all of its weights, in memory of its own.

transformers takes seconds to import: only ranks that serve an encoder do.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from moe_serve.encoders.families import architecture_of, encoder_family
from moe_serve.errors import CheckpointError, UnsupportedError
from moe_serve.even_steps import unwatched_imports
from moe_serve.types import Task
from moe_serve.weights.config_files import read_config
from moe_serve.weights.files import find_tensors

_HEADS: dict[Task, str] = {"embed": "Model", "rerank": "ForSequenceClassification"}


def load_module(path: Path, task: Task, dtype: torch.dtype, device: torch.device) -> Any:
    """The encoder of a checkpoint directory, for inference; no code of the checkpoint runs.

    Raises:
        CheckpointError: weights are missing, misshapen, truncated or pickled.
        UnsupportedError: the installed transformers does not have the model.
    """
    config = read_config(path)
    kind = module_class(encoder_family(config) + _HEADS[task])
    # Says what is wrong with the files; transformers would make up what is missing.
    find_tensors(path)
    # BERT's pooler is no part of an embedding, and many checkpoints lack it.
    has_pooler = "add_pooling_layer" in inspect.signature(kind).parameters
    try:
        with _quietly():
            module, found = _born_in(dtype, kind).from_pretrained(
                str(path),
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **({"add_pooling_layer": False} if has_pooler else {}),
            )
    except Exception as error:
        # It raises what it pleases, also errors of libraries that it checks its configs with.
        why = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"transformers cannot read {path}: {why}") from error
    if missing := sorted(found["missing_keys"]):
        raise CheckpointError(
            f"checkpoint {path} lacks {len(missing)} tensors of {architecture_of(config)}, "
            f"{missing[0]} among them; copy it again"
        )
    _leave_files(module)
    return module.requires_grad_(False).eval().to(device)


def module_class(name: str) -> Any:
    """transformers' class of a name; UnsupportedError where it has none."""
    import transformers

    try:
        # It imports a model's modules when they are asked for.
        with unwatched_imports():
            return getattr(transformers, name)
    except AttributeError:
        raise UnsupportedError(
            f"model: transformers {transformers.__version__} has no {name}; install a newer one"
        ) from None


def _born_in(dtype: torch.dtype, kind: Any) -> Any:
    """The class with weights of a dtype from the start.

    transformers would have all threads make tensors of that dtype meanwhile, and some compute.
    """

    def get_init_context(cls: Any, _dtype: torch.dtype, *rest: Any, **options: Any) -> Any:
        return kind.get_init_context.__func__(cls, torch.get_default_dtype(), *rest, **options)

    def make(self: Any, *rest: Any, **options: Any) -> None:
        kind.__init__(self, *rest, **options)
        for parameter in self.parameters():
            parameter.data = parameter.data.to(dtype)

    members = {"get_init_context": classmethod(get_init_context), "__init__": make}
    # Under the names of the original it gets the original's ways with checkpoints.
    return type(kind.__name__, (kind,), {**members, "__module__": kind.__module__})


def _leave_files(module: torch.nn.Module) -> None:
    """Weights whose dtype is the file's are views of it, which would follow its changes."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()


@contextmanager
def _quietly() -> Iterator[None]:
    """Heads that are not used are no news; what is missing is said by us."""
    from transformers.utils import logging as transformers_logging

    # Not all of its functions are annotated.
    logging: Any = transformers_logging
    verbosity, shows_progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_progress:
            logging.enable_progress_bar()
