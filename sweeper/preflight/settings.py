"""Settings that only the libraries can judge, tried before anything is trained: on a model without weights."""

import copy
import importlib.util
import re
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.space_values import setting_values
from sweeper.errors import Problem, first_line
from sweeper.extras import install_command
from sweeper.preflight.packages import module_of_optimizer, needed_extras

# Known to work; to look would cost three seconds of imports.
_KNOWN_SCHEDULES = (
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "inverse_sqrt",
)
_KNOWN_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")


def setting_problems(config: SweepConfig, model_config: Any) -> list[Problem]:
    """Return what is wrong with schedules, optimisers, attention, kernels and adapters, whatever values they take."""
    return [
        *_schedule_problems(config),
        *_optimizer_problems(config),
        *_attention_problems(config, model_config),
        *_lora_problems(config, model_config),
        *_liger_problems(config, model_config),
        *_missing_extras(config),
    ]


def empty_model(model_config: Any, *, trust_remote_code: bool, attention: str | None = None) -> Any:
    """Return the model without memory for its weights."""
    import torch
    import transformers

    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(
            copy.deepcopy(model_config), trust_remote_code=trust_remote_code, attn_implementation=attention
        )


def _schedule_problems(config: SweepConfig) -> list[Problem]:
    problems = []
    arguments = setting_values(config, "lr_scheduler_kwargs") or [{}]
    for name in setting_values(config, "lr_scheduler_type"):
        if name in _KNOWN_SCHEDULES and not any(arguments):
            continue
        for kwargs in arguments:
            message = _schedule_problem(name, kwargs)
            if message:
                problems.append(Problem(message))
    return problems


def _schedule_problem(name: str, kwargs: dict[str, Any]) -> str | None:
    import torch
    import transformers

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    try:
        transformers.get_scheduler(
            name,
            optimizer,
            num_warmup_steps=1,
            num_training_steps=100,
            scheduler_specific_kwargs=dict(kwargs),
        )
    except (TypeError, ValueError) as error:
        return f"`lr_scheduler_type: {name}` cannot take `lr_scheduler_kwargs` = {kwargs}: {error}."
    return None


def _optimizer_problems(config: SweepConfig) -> list[Problem]:
    """Ask transformers for each optimiser: many need a package, and some need more than a name.

    What only needs a package is not asked for here where trials run on a cluster: whose packages count are the nodes'.
    """
    is_elsewhere = config.resources.address is not None
    names = [
        name
        for name in setting_values(config, "optimizer")
        if name not in _KNOWN_OPTIMIZERS and not (is_elsewhere and module_of_optimizer(name) is not None)
    ]
    if not names:
        return []
    import torch
    import transformers

    model = torch.nn.Linear(1, 1)  # any will do: none of its weights is trained
    problems = []
    for name in names:
        arguments = transformers.TrainingArguments(
            output_dir=".", optim=name, use_cpu=not torch.cuda.is_available(), report_to=[]
        )
        try:
            transformers.Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        except (ImportError, ValueError, TypeError, NotImplementedError, RuntimeError, OSError) as error:
            remedy = "Install what it needs where the trials run, or choose for example `adamw_torch`."
            problems.append(Problem(f"`optimizer: {name}` cannot be used: {_sentence(error)} {remedy}"))
    return problems


def _attention_problems(config: SweepConfig, model_config: Any) -> list[Problem]:
    """Make the model with each attention: names are made up, and kernels are missing."""
    import torch

    if config.trial.trust_remote_code:
        return []  # such a model may do what cannot be done without weights
    problems = []
    # A cluster's head may lack the GPU, and with it the kernels, that its nodes have.
    is_elsewhere = config.resources.address is not None and not torch.cuda.is_available()
    for name in setting_values(config, "attn_implementation"):
        if name is None:
            continue
        try:
            empty_model(model_config, trust_remote_code=False, attention=name)
        except (ImportError, ValueError, OSError) as error:
            if is_elsewhere and isinstance(error, ImportError):
                continue
            remedy = "Install what it needs where the trials run, choose `sdpa` or `eager`, or leave it out."
            told = f"`attn_implementation: {name}` cannot be used with `{config.trial.model}`: {_sentence(error)}"
            problems.append(Problem(f"{told} {remedy}"))
    return problems


def _missing_extras(config: SweepConfig) -> list[Problem]:
    if config.resources.address is not None:
        return []  # then its nodes are asked
    return [
        Problem(
            f"{needed.by} needs {needed.module}, which is not installed. Install it where the trials run: "
            f"`{install_command(extra)}`."
        )
        for needed, extra in needed_extras(config)
        if importlib.util.find_spec(needed.module) is None
    ]


def _liger_problems(config: SweepConfig, model_config: Any) -> list[Problem]:
    """Ask Liger, where it is installed, whether it has anything for a model: else it does nothing without a word."""
    if (
        True not in setting_values(config, "use_liger_kernel")
        or importlib.util.find_spec("liger_kernel") is None
    ):
        return []
    from sweeper.training.liger import liger_problem

    problem = liger_problem(model_config.model_type)
    return [] if problem is None else [Problem(problem)]


def _lora_problems(config: SweepConfig, model_config: Any) -> list[Problem]:
    """Look up modules that are named or matched; `all-linear` is left to peft."""
    targets = [
        one for one in setting_values(config, "lora_target_modules") if str(one).lower() != "all-linear"
    ]
    if not {"lora", "qlora"} & set(setting_values(config, "method")) or not targets:
        return []
    model = empty_model(model_config, trust_remote_code=config.trial.trust_remote_code)
    names = [name for name, _ in model.named_modules()]
    ends = sorted({name.rpartition(".")[2] for name in names if name.endswith("_proj")})
    has = f"It has for example {', '.join(ends) or 'other names'}; `all-linear` takes all."
    named = dict.fromkeys(name for one in targets if isinstance(one, list) for name in one)
    patterns = dict.fromkeys(one for one in targets if isinstance(one, str))
    return [
        *(
            Problem(f"`lora_target_modules` names `{target}`, which `{config.trial.model}` has not. {has}")
            for target in named
            if not any(name == target or name.endswith(f".{target}") for name in names)
        ),
        *(
            Problem(
                f"`lora_target_modules: {pattern}` is a pattern for the whole name of a module, and matches none of "
                f"`{config.trial.model}`. Write a list, such as `[{pattern}]`. {has}"
            )
            for pattern in patterns
            if not _matches_any(pattern, names)
        ),
    ]


def _matches_any(pattern: str, names: list[str]) -> bool:
    try:
        return any(re.fullmatch(pattern, name) for name in names)
    except re.error:
        return False


def _sentence(error: Exception) -> str:
    """Return a foreign error's first line as a sentence."""
    return first_line(error).rstrip(". ") + "."
