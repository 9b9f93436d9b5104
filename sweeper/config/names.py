"""The names that a sweep file may use for what other libraries offer, and what people call ours elsewhere.

Kept as literals, so that checking a file loads none of those libraries. Tests compare them with these.
"""

# transformers.SchedulerType, version 5.23
SCHEDULER_TYPES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
)

# Those that change the rate by an evaluated metric.
METRIC_SCHEDULES = ("reduce_lr_on_plateau", "greedy")

# transformers.training_args.OptimizerNames, version 5.23
OPTIMIZERS = (
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_xla",
    "adamw_torch_npu_fused",
    "adafactor",
    "adamw_anyprecision",
    "adamw_torch_4bit",
    "adamw_torch_8bit",
    "ademamix",
    "sgd",
    "adagrad",
    "adamw_bnb_8bit",
    "adamw_8bit",
    "ademamix_8bit",
    "lion_8bit",
    "lion_32bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "galore_adamw",
    "galore_adamw_8bit",
    "galore_adafactor",
    "galore_adamw_layerwise",
    "galore_adamw_8bit_layerwise",
    "galore_adafactor_layerwise",
    "lomo",
    "adalomo",
    "grokadamw",
    "schedule_free_radam",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "apollo_adamw",
    "apollo_adamw_layerwise",
    "stable_adamw",
)

# What an eval set is measured by; `<eval set>/<measure>` names one value.
MEASURES = ("loss", "token_accuracy", "exact_match")

MAX_STUDY_NAME = 100  # characters

EARLY_DYNAMICS = "early_dynamics"

# Our names of Optuna's pruners and samplers, and the classes in optuna.pruners and optuna.samplers.
OPTUNA_PRUNERS = {
    "nop": "NopPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "threshold": "ThresholdPruner",
    "patient": "PatientPruner",
    "wilcoxon": "WilcoxonPruner",
}
OPTUNA_SAMPLERS = {
    "random": "RandomSampler",
    "tpe": "TPESampler",
    "qmc": "QMCSampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
}

# What other tools call our keys. Looked up before the nearest spelling.
OTHER_TOOLS_NAMES = {
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "scheduler": "lr_scheduler_type",
    "batch_size": "effective_batch_size",
    "global_batch_size": "effective_batch_size",
    "train_batch_size": "effective_batch_size",
    "per_device_train_batch_size": "micro_batch_size",
    "per_device_batch_size": "micro_batch_size",
    "optim": "optimizer",
    "adam": "adamw_torch",
    "adamw": "adamw_torch",
    "bayes": "tpe",
    "bayesian": "tpe",
    "asha": "successive_halving",
    "warmup_ratio": "warmup_frac",
    "beta2_half_life": "adam_beta2_half_life_tokens",
    "lora_r": "lora_rank",
    "max_seq_length": "max_length",
    "clip_grad_norm": "max_grad_norm",
    "mode": "direction",
    "name": "study",
    "study_name": "study",
    "parameters": "search_space",
    "param_space": "search_space",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "model_name_or_path": "model",
    "dataset": "train_data",
    "num_samples": "n_trials",
    "loguniform": "log_uniform",
    "values": "choice",
    "categorical": "choice",
}

# Each is also the name of the extra that brings its client.
TRACKERS = ("tensorboard", "mlflow", "wandb")
