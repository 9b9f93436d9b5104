"""Wrong sweep files, each an edit of a right one, with all that is told about it."""

from sweep_files import BASE, FUNCTION

# (the right file, what is replaced in it by what, every problem that is told)
CASES: list[tuple[str, list[tuple[str, str]], list[str]]] = [
    (
        BASE,
        [
            ("study: demo", 'study: "a b"'),
        ],
        [
            "sweep.yaml:1: `study` is no valid name, but got the text `a b`. Use letters, digits, "
            "`.`, `_` and `-`, with a letter or digit first, at most 100 of them.",
        ],
    ),
    (
        BASE,
        [
            ("study: demo", "study: 12"),
        ],
        [
            "sweep.yaml:1: `study` must be text, but got 12. Use letters, digits, `.`, `_` and "
            "`-`, with a letter or digit first, at most 100 of them.",
        ],
    ),
    (
        BASE,
        [
            ("study: demo\n", ""),
        ],
        [
            "sweep.yaml:1: `study` is missing. Give the study a name, for example `study: my-sweep`.",
        ],
    ),
    (
        BASE,
        [
            ("metric: dev/loss\n", ""),
        ],
        [
            "sweep.yaml:1: `metric` is missing. Name what is compared in the end, for example "
            "`metric: dev/loss`.",
        ],
    ),
    (
        BASE,
        [
            ("direction: minimize", "direction: minimise"),
        ],
        [
            "sweep.yaml:3: `direction` must be one of the known names, but got `minimise`. Did you "
            "mean `minimize`?",
        ],
    ),
    (
        BASE,
        [
            ("direction: minimize", "mode: min"),
        ],
        [
            ("sweep.yaml:1: `direction` is missing. Write `direction: minimize` or `direction: maximize`."),
            "sweep.yaml:3: unknown key `mode`. Did you mean `direction`?",
        ],
    ),
    (
        BASE,
        [
            ("trial:\n", "trail:\n"),
        ],
        [
            (
                "sweep.yaml:1: `trial` is missing. Say what one trial does: its model, its data "
                "and its budget."
            ),
            "sweep.yaml:4: unknown key `trail`. Did you mean `trial`?",
        ],
    ),
    (
        BASE,
        [
            ("  model: org/model\n", ""),
        ],
        [
            "sweep.yaml:4: `trial.model` is missing. Name a local directory or a model of the hub, "
            "or set `trial.function` to sweep over your own code.",
        ],
    ),
    (
        BASE,
        [
            ("model: org/model", "modle: org/model"),
        ],
        [
            "sweep.yaml:5: unknown key `modle`. Did you mean `model`?",
        ],
    ),
    (
        BASE,
        [
            ("model: org/model", "model:"),
        ],
        [
            "sweep.yaml:4: `trial.model` is missing. Name a local directory or a model of the hub, "
            "or set `trial.function` to sweep over your own code.",
        ],
    ),
    (
        BASE,
        [
            ("  train_data: train.jsonl\n", ""),
        ],
        [
            "sweep.yaml:4: `trial.train_data` is missing. Name a JSONL or Parquet file or a data "
            "set of the hub.",
        ],
    ),
    (
        BASE,
        [
            ("train_data: train.jsonl", "train_data: []"),
        ],
        [
            "sweep.yaml:6: `trial.train_data` must not be empty, but got []. Give it a value or remove it.",
        ],
    ),
    (
        BASE,
        [
            ("train_data: train.jsonl", "train_data: [a.jsonl, {pth: b.jsonl}]"),
        ],
        [
            (
                "sweep.yaml:6: `trial.train_data[1].path` is missing. Name a file, a directory or "
                "a data set of the hub."
            ),
            "sweep.yaml:6: unknown key `pth`. Did you mean `path`?",
        ],
    ),
    (
        BASE,
        [
            ("eval_data: {dev: dev.jsonl}", "eval_data: dev.jsonl"),
        ],
        [
            "sweep.yaml:7: `trial.eval_data` must be a mapping, but got the text `dev.jsonl`. Give "
            "each eval set a name, for example `eval_data: {dev: dev.jsonl}`.",
        ],
    ),
    (
        BASE,
        [
            ("eval_data: {dev: dev.jsonl}", "eval_data: {}"),
        ],
        [
            "sweep.yaml:4: `trial.eval_data` is missing, so nothing can be compared in the end. "
            "Name at least one eval set, for example `eval_data: {dev: dev.jsonl}`.",
        ],
    ),
    (
        BASE,
        [
            ("eval_data: {dev: dev.jsonl}", "eval_data: {a/b: dev.jsonl}"),
        ],
        [
            (
                "sweep.yaml:2: `metric` must name a key of `trial.metrics` or `<eval "
                "set>/<measure>` with `a/b` and `loss`, `token_accuracy` and `exact_match`, but "
                "got the text `dev/loss`. Choose one of these."
            ),
            ("sweep.yaml:7: `a/b` is no valid name of an eval set. Use letters, digits, `_`, `.` and `-`."),
        ],
    ),
    (
        BASE,
        [
            ("budget: {samples: 8192}", "budget: {}"),
        ],
        [
            "sweep.yaml:4: `trial.budget` is missing. Say how long a point trains, for example "
            "`budget: {samples: 8192}`.",
        ],
    ),
    (
        BASE,
        [
            ("budget: {samples: 8192}", "budget: {samples: 8192, epochs: 2}"),
        ],
        [
            "sweep.yaml:8: The budget is given 2 times: `trial.budget.samples`, "
            "`trial.budget.epochs`. Keep one.",
        ],
    ),
    (
        BASE,
        [
            ("budget: {samples: 8192}", "budget: {samples: 1.5}"),
        ],
        [
            "sweep.yaml:8: `trial.budget.samples` must be a whole number, but got 1.5. Write a whole number.",
        ],
    ),
    (
        BASE,
        [
            ("budget: {samples: 8192}", "budget: {steps: 100}"),
        ],
        [
            "sweep.yaml:8: A budget in steps gives points with different `effective_batch_size` "
            "different amounts of data. Write `compare: unequal` in `trial` if that is what you "
            "want to see, or give the budget in samples.",
        ],
    ),
    (
        BASE,
        [
            ("budget: {samples: 8192}", "budget: {epochs: .nan}"),
        ],
        [
            "sweep.yaml:8: `trial.budget.epochs` must be a finite number, but got nan. Write a "
            "finite number.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {micro_batch_size: true}"),
        ],
        [
            "sweep.yaml:9: `trial.settings.micro_batch_size` must be a whole number, but got true. "
            "Write a whole number of at least 1, or `auto`.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {micro_batch_size: automatic}"),
        ],
        [
            "sweep.yaml:9: `trial.settings.micro_batch_size` must be a whole number, but got the text `automatic`. "
            "Write a whole number of at least 1, or `auto`.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {micro_batch_size: 0}"),
        ],
        [
            "sweep.yaml:9: `trial.settings.micro_batch_size` must be at least 1, but got 0. Write a whole number of "
            "at least 1, or `auto`.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {micro_batch_size: auto}"),
            ("gpus_per_trial: 1", "gpus_per_trial: 2"),
        ],
        [
            "sweep.yaml:9: `micro_batch_size: auto` is found by one worker, but a trial has 2. Write the number of "
            "sequences of a pass and worker.",
        ],
    ),
    (
        BASE,
        [
            ("  settings: {micro_batch_size: 8}\n", ""),
            ("effective_batch_size: {grid: [32, 128]}", "micro_batch_size: {grid: [auto, 8]}"),
            ("gpus_per_trial: 1", "gpus_per_trial: 2"),
        ],
        [
            "sweep.yaml:11: `micro_batch_size: auto` is found by one worker, but a trial has 2. Write the number of "
            "sequences of a pass and worker.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {gradient_accumulation_steps: 8}"),
        ],
        [
            "sweep.yaml:9: unknown key `gradient_accumulation_steps`: it follows from "
            "`effective_batch_size` and `micro_batch_size`. Remove it.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {lr_scheduler_type: cosin}"),
        ],
        [
            "sweep.yaml:9: `trial.settings.lr_scheduler_type` must be one of the known names, but "
            "got `cosin`. Did you mean `cosine`?",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {lr_scheduler_type: greedy}"),
        ],
        [
            "sweep.yaml:9: `trial.settings.lr_scheduler_type` cannot be `greedy`: it follows a "
            "metric, not the step, so trials could not be compared; choose for example `constant`, "
            "`linear` or `cosine`.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {optimizer: adam}"),
        ],
        [
            "sweep.yaml:9: `trial.settings.optimizer` must be one of the known names, but got "
            "`adam`. Did you mean `adamw_torch`?",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {warmup_steps: 10, warmup_frac: 0.1}"),
        ],
        [
            "sweep.yaml:9: `warmup_steps` = 10 and `warmup_frac` = 0.1 exclude each other. Remove "
            "one of them.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {max_grad_norm: 0}"),
        ],
        [
            "sweep.yaml:9: `trial.settings.max_grad_norm` must be greater than 0, but got 0. Write "
            "a positive number, or `null` for no clipping.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {packing: yes}"),
        ],
        [
            "sweep.yaml:9: `trial.settings.packing` must be true or false, but got the text `yes`. "
            "YAML 1.2 knows only these two words.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", 'settings: {weight_decay: "0.1"}'),
        ],
        [
            "sweep.yaml:9: `trial.settings.weight_decay` must be a number, but got the text `0.1`. "
            "Remove the quotes.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {micro_batch_size: 24}"),
        ],
        [
            (
                "sweep.yaml:12: `effective_batch_size` must be a multiple of micro_batch_size * "
                "data_parallel_size = 24, but got 32. Nearest valid values: 24 and 48. Or set "
                "`micro_batch_size` to a divisor of 32."
            ),
            (
                "sweep.yaml:12: `effective_batch_size` must be a multiple of micro_batch_size * "
                "data_parallel_size = 24, but got 128. Nearest valid values: 120 and 144. Or set "
                "`micro_batch_size` to a divisor of 128."
            ),
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {learning_rate: 1e-5}"),
        ],
        [
            "sweep.yaml:9: `learning_rate` is fixed in `trial.settings` and varies in "
            "`search_space`. Remove one of the two.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {lora_target_modules: 3}"),
        ],
        [
            "sweep.yaml:9: `trial.settings.lora_target_modules` must be a list, but got 3. Write "
            "`all-linear`, or a list of modules' names.",
        ],
    ),
    (
        BASE,
        [
            ("  learning_rate: {grid: [1e-5, 1e-4]}", "  learning_rte: {grid: [1e-5, 1e-4]}"),
        ],
        [
            "sweep.yaml:11: unknown key `learning_rte`. Did you mean `learning_rate`?",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "grid: [1e-5, 0]"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.grid[1]` must be greater than 0, but got "
            "0. Choose a larger value.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "grid: [1e-5, -1e-4]"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.grid[1]` must be greater than 0, but got "
            "-0.0001. Choose a larger value.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "grid: [1e-5, .nan]"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.grid[1]` must be a finite number, but got "
            "nan. Remove the value.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "grid: [1e-5, .inf]"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.grid[1]` must be a finite number, but got "
            "inf. Remove the value.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", 'grid: [1e-5, "1e-4"]'),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.grid[1]` must be a number, but got the "
            "text `1e-4`. Remove the quotes.",
        ],
    ),
    (
        FUNCTION,
        [
            ("rate: {uniform: [0.1, 0.9]}", "effective_batch_size: {choice: [a, null, 1.5, 0, [], 16]}"),
        ],
        [
            "sweep.yaml:9: `search_space.effective_batch_size.choice[0]` must be a whole number, but "
            "got the text `a`. Write a whole number.",
            "sweep.yaml:9: `search_space.effective_batch_size.choice[1]` has no value. Write a number, or remove it.",
            "sweep.yaml:9: `search_space.effective_batch_size.choice[2]` must be a whole number, but "
            "got 1.5. Write a whole number.",
            "sweep.yaml:9: `search_space.effective_batch_size.choice[3]` must be at least 1, but got "
            "0. Choose a larger value.",
            "sweep.yaml:9: `search_space.effective_batch_size.choice[4]` must be a whole number, but "
            "got []. Write a whole number.",
        ],
    ),
    (
        FUNCTION,
        [
            ("rate: {uniform: [0.1, 0.9]}", "effective_batch_size: {int: [-5, 3]}"),
        ],
        [
            "sweep.yaml:9: `search_space.effective_batch_size.int[0]` must be at least 1, but got -5."
            " Choose a larger value.",
        ],
    ),
    (
        FUNCTION,
        [
            ("rate: {uniform: [0.1, 0.9]}", "effective_batch_size: {uniform: [1, 8]}"),
        ],
        [
            "sweep.yaml:9: `effective_batch_size` is a whole number, but `uniform` draws fractions. "
            "Use `int`, with `log: true` for orders of magnitude, or list the values in `choice`.",
        ],
    ),
    (
        FUNCTION,
        [
            ("{depth: 3}", "{effective_batch_size: 0}"),
        ],
        [
            "sweep.yaml:7: `trial.settings.effective_batch_size` must be at least 1, but got 0. "
            "Choose a larger value.",
        ],
    ),
    (
        FUNCTION,
        [
            ("{depth: 3}", "{effective_batch_size: 16, micro_batch_size: x}"),
        ],
        [
            "sweep.yaml:7: `trial.settings.micro_batch_size` must be a whole number, but got the text"
            " `x`. Write a whole number of at least 1, or `auto`.",
        ],
    ),
    (
        BASE,
        [
            ("sampler: grid", "points: [{learning_rate: 1e-5, effective_batch_size: 32.0}]"),
        ],
        [
            "sweep.yaml:13: `points[0].effective_batch_size` must be a whole number, but got 32.0. "
            "Write a whole number.",
        ],
    ),
    (
        FUNCTION,
        [
            ("rate: {uniform: [0.1, 0.9]}", "rate: {grid: [1, 2]}"),
            ("sampler: {name: tpe, n_trials: 10}", "points: [{rate: 2}, {rate: 2.0}, {rate: true}]"),
        ],
        [
            "sweep.yaml:10: `points[1]` is the same as `points[0]`. Remove one.",
            "sweep.yaml:10: `points[2].rate` = true is not among the values of "
            "`search_space.rate.grid`: [1, 2]. Add it there, or correct it.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "grid: [1e-5, 1e-4]}\n  weight_decay: {grid: [0, 0.0]"),
        ],
        [
            "sweep.yaml:12: `search_space.weight_decay.grid` holds 0 and 0.0, which mean the same. "
            "Remove one of the two; confirm a result over seeds with `seed` instead.",
        ],
    ),
    (
        BASE,
        [
            (
                "grid: [1e-5, 1e-4]",
                "grid: [1e-5, 1e-4]}\n  lr_scheduler_kwargs: {grid: [{num_cycles: 1}, {num_cycles: 1.0}]",
            ),
        ],
        [
            "sweep.yaml:12: `search_space.lr_scheduler_kwargs.grid` holds a mapping twice. Remove one"
            " of the two; confirm a result over seeds with `seed` instead.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "grid: [1e-5, 0.00001]"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.grid` holds 1e-05 twice. Remove one of the "
            "two; confirm a result over seeds with `seed` instead.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "grid: []"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.grid` must not be empty, but got []. Give "
            "it a value or remove it.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "grid: [[1e-5], 1e-4]"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.grid[0]` must be a single value, but got "
            "[1e-05]. Only `lora_target_modules`, `lr_scheduler_kwargs` and `data_weights` take more.",
        ],
    ),
    (
        BASE,
        [
            ("{grid: [1e-5, 1e-4]}", "[1e-5, 1e-4]"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate` must be a mapping, but got [1e-05, "
            "0.0001]. Write a list of values as `{grid: [...]}`.",
        ],
    ),
    (
        BASE,
        [
            ("{grid: [1e-5, 1e-4]}", "{}"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate` must have exactly one of `grid`, "
            "`choice`, `uniform`, `log_uniform` and `int`, but got none. Write for example `grid: "
            "[...]`.",
        ],
    ),
    (
        BASE,
        [
            ("{grid: [1e-5, 1e-4]}", "{grid: [1e-5], choice: [1e-4]}"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate` must have exactly one of `grid`, "
            "`choice`, `uniform`, `log_uniform` and `int`, but got `grid` and `choice`. Remove all "
            "but one.",
        ],
    ),
    (
        BASE,
        [
            ("{grid: [1e-5, 1e-4]}", "{values: [1e-5]}"),
        ],
        [
            "sweep.yaml:11: unknown key `values`. Did you mean `choice`?",
        ],
    ),
    (
        BASE,
        [
            ("{grid: [1e-5, 1e-4]}", "{uniform: [1e-5, 1e-4]}"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.uniform` has no list of values, which the "
            "`grid` sampler needs. List the values in `grid`, or choose a sampler that draws, for "
            "example `sampler: {name: tpe, n_trials: 40}`.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "log_uniform: [1e-4, 1e-5]"),
            ("sampler: grid", "sampler: {name: tpe, n_trials: 5}"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.log_uniform` must have its lower bound "
            "below its upper one, but got [0.0001, 1e-05]. Swap the two.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "log_uniform: [1e-4, 1e-4]"),
            ("sampler: grid", "sampler: {name: tpe, n_trials: 5}"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.log_uniform` must have its lower bound "
            "below its upper one, but got [0.0001, 0.0001]. Fix the value in `trial.settings` "
            "instead.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "log_uniform: [0, 1e-4]"),
            ("sampler: grid", "sampler: {name: tpe, n_trials: 5}"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.log_uniform[0]` must be greater than 0, "
            "but got 0.0. Choose a larger value.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "log_uniform: [1e-4]"),
            ("sampler: grid", "sampler: {name: tpe, n_trials: 5}"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.log_uniform` must be two numbers, [lower, "
            "upper], but got [0.0001]. Write for example `[1e-6, 1e-4]`.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [1e-5, 1e-4]", "uniform: [1e-5, 1e-4], log: true"),
            ("sampler: grid", "sampler: {name: tpe, n_trials: 5}"),
        ],
        [
            "sweep.yaml:11: `search_space.learning_rate.log` is for `int`, but got `uniform`. Use "
            "`log_uniform` instead.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [32, 128]", "uniform: [32, 128]"),
            ("sampler: grid", "sampler: {name: tpe, n_trials: 5}"),
        ],
        [
            "sweep.yaml:12: `effective_batch_size` is a whole number, but `uniform` draws "
            "fractions. Use `int`, with `log: true` for orders of magnitude, or list the values in "
            "`choice`.",
        ],
    ),
    (
        BASE,
        [
            ("grid: [32, 128]", "int: [32, 128], step: 36"),
            ("sampler: grid", "sampler: {name: tpe, n_trials: 5}"),
        ],
        [
            (
                "sweep.yaml:12: `search_space.effective_batch_size`: steps of 36 from 32 do not "
                "reach the upper bound 128. Nearest valid upper bounds: 104 and 140."
            ),
            (
                "sweep.yaml:12: `search_space.effective_batch_size.int` draws 1 sizes that cannot "
                "be cut into whole passes, such as 68: `effective_batch_size` must be a multiple "
                "of micro_batch_size * data_parallel_size = 8, but got 68. Nearest valid values: "
                "64 and 72. Use `choice` with sizes that can, or a fitting `step`."
            ),
        ],
    ),
    (
        BASE,
        [
            ("grid: [32, 128]", "int: [32, 128]"),
        ],
        [
            (
                "sweep.yaml:12: `search_space.effective_batch_size.int` has no list of values, "
                "which the `grid` sampler needs. Add `step`, or choose a sampler that draws, for "
                "example `sampler: {name: tpe, n_trials: 40}`."
            ),
            (
                "sweep.yaml:12: `search_space.effective_batch_size.int` draws 84 sizes that cannot "
                "be cut into whole passes, such as 33, 34, 35: `effective_batch_size` must be a "
                "multiple of micro_batch_size * data_parallel_size = 8, but got 33. Nearest valid "
                "values: 32 and 40. Use `choice` with sizes that can, or a fitting `step`."
            ),
        ],
    ),
    (
        BASE,
        [
            ("grid: [32, 128]", "grid: [12, 32, 60]"),
        ],
        [
            (
                "sweep.yaml:12: `effective_batch_size` must be a multiple of micro_batch_size * "
                "data_parallel_size = 8, but got 12. Nearest valid values: 8 and 16. Or set "
                "`micro_batch_size` to a divisor of 12."
            ),
            (
                "sweep.yaml:12: `effective_batch_size` must be a multiple of micro_batch_size * "
                "data_parallel_size = 8, but got 60. Nearest valid values: 56 and 64. Or set "
                "`micro_batch_size` to a divisor of 60."
            ),
        ],
    ),
    (
        BASE,
        [
            ("effective_batch_size: {grid: [32, 128]}", "epochs: {grid: [1, 2]}"),
            ("budget: {samples: 8192}", "budget: {}"),
        ],
        [
            "sweep.yaml:12: `epochs` in the search space gives points different amounts of data. "
            "Write `compare: unequal` in `trial` if that is what you want to see, or fix the "
            "budget.",
        ],
    ),
    (
        BASE,
        [
            ("sampler: grid", "sampler: {name: grid, n_trials: 4}"),
        ],
        [
            "sweep.yaml:13: `sampler.n_trials` is for samplers that draw; the `grid` sampler takes "
            "every point. Remove it, or choose for example `name: tpe`.",
        ],
    ),
    (
        BASE,
        [
            ("sampler: grid", "sampler: tpe"),
        ],
        [
            "sweep.yaml:13: `sampler.n_trials` is missing: the `tpe` sampler draws that many "
            "points. Add for example `n_trials: 40`.",
        ],
    ),
    (
        BASE,
        [
            ("sampler: grid", "sampler: bayes"),
        ],
        [
            "sweep.yaml:13: `sampler` must be one of the known names, but got `bayes`. Did you mean `tpe`?",
        ],
    ),
    (
        BASE,
        [
            ("sampler: grid", "sampler: {name: cmaes, n_trials: 9}"),
        ],
        [
            "sweep.yaml:13: The `cmaes` sampler needs numbers to move along, but every dimension "
            "is a list of values. Use `uniform`, `log_uniform` or `int` for one of them, or choose "
            "`name: tpe`.",
        ],
    ),
    (
        BASE,
        [
            ("sampler: grid", "sampler: {name: tpe, n_trials: 9, options: {n_startup: 3, seed: 1}}"),
        ],
        [
            (
                "sweep.yaml:13: unknown option of optuna's TPESampler `n_startup`. Did you mean "
                "`n_startup_trials`?"
            ),
            "sweep.yaml:13: `sampler.options.seed` is the study's `seed`. Set that one and remove this.",
        ],
    ),
    (
        BASE,
        [
            ("sampler: grid", "sampler: {name: qmc, n_trials: 9, options: {qmc_type: sobl}}"),
        ],
        [
            "sweep.yaml:13: optuna's QMCSampler does not take these options: The `qmc_type='sobl'` "
            "is invalid. Choose either `halton` or `sobol`. Correct `sampler.options`.",
        ],
    ),
    (
        FUNCTION,
        [
            (
                "sampler: {name: tpe, n_trials: 10}",
                "sampler: {name: tpe, n_trials: 10, options: {n_startup_trials: a, multivariate: 1}}",
            ),
        ],
        [
            "sweep.yaml:10: `sampler.options.n_startup_trials` must be a whole number, but got the text `a`. Write "
            "a whole number.",
            "sweep.yaml:10: `sampler.options.multivariate` must be true or false, but got 1. YAML 1.2 knows only "
            "these two words.",
        ],
    ),
    (
        BASE,
        [
            ("settings: {micro_batch_size: 8}", "settings: {micro_batch_size: 8}\n  checkpoint: {url: a}"),
        ],
        [
            "sweep.yaml:10: `trial.checkpoint.url` must be a URL, but got the text `a`. Write for example "
            "`s3://bucket/path`.",
        ],
    ),
    (
        BASE,
        [
            ("model: org/model", "model: ''"),
            ("resources: {gpus_per_trial: 1}", "resources: {gpus_per_trial: 1}\ndir: ''\nstorage: foo"),
        ],
        [
            "sweep.yaml:5: `trial.model` must not be empty, but got the text ``. Give it a value or remove it.",
            "sweep.yaml:17: `dir` must not be empty, but got the text ``. Give it a value or remove it.",
            "sweep.yaml:18: `storage` must start with postgresql://, mysql:// or sqlite:///, but got foo. Leave it out "
            "to keep the study in a journal file in its directory.",
        ],
    ),
    (
        FUNCTION,
        [
            (
                "sampler: {name: tpe, n_trials: 10}",
                "sampler: {name: tpe, n_trials: 10}\npruner: {name: threshold, options: {upper: .inf}}",
            ),
        ],
        [
            "sweep.yaml:11: `pruner.options.upper` must be a finite number, but got inf. Write a finite number, or "
            "leave the option out.",
        ],
    ),
    (
        FUNCTION,
        [
            (
                "sampler: {name: tpe, n_trials: 10}",
                "sampler: {name: tpe, n_trials: 10, options: {prior_weight: .nan}}",
            ),
        ],
        [
            "sweep.yaml:10: `sampler.options.prior_weight` must be a finite number, but got nan. Write a finite "
            "number, or leave the option out.",
        ],
    ),
    (
        FUNCTION,
        [
            (
                "sampler: {name: tpe, n_trials: 10}",
                "sampler: {name: tpe, n_trials: 10, options: {n_ei_candidates: -1}}",
            ),
        ],
        [
            "sweep.yaml:10: optuna's TPESampler does not take these options: negative dimensions are not allowed. "
            "Correct `sampler.options`.",
        ],
    ),
    (
        FUNCTION,
        [
            (
                "sampler: {name: tpe, n_trials: 10}",
                "sampler: {name: tpe, n_trials: 10, options: {n_ei_candidates: 10000000}}",
            ),
        ],
        [
            "sweep.yaml:10: `sampler.options.n_ei_candidates` must be at most 1,000,000, but got 10000000. Choose a "
            "smaller value.",
        ],
    ),
    (
        FUNCTION,
        [
            (
                "sampler: {name: tpe, n_trials: 10}",
                "sampler: {name: gp, n_trials: 10, options: {n_startup_trials: [1]}}",
            ),
        ],
        [
            "sweep.yaml:10: `sampler.options.n_startup_trials` must be a whole number, but got [1]. Write a whole "
            "number.",
        ],
    ),
    (
        FUNCTION,
        [
            (
                "sampler: {name: tpe, n_trials: 10}",
                "sampler: {name: qmc, n_trials: 10, options: {scramble: {}}}",
            ),
        ],
        [
            "sweep.yaml:10: `sampler.options.scramble` must be true or false, but got a mapping. YAML 1.2 knows only "
            "these two words.",
        ],
    ),
    (
        FUNCTION,
        [
            (
                "sampler: {name: tpe, n_trials: 10}",
                "sampler: {name: cmaes, n_trials: 10, options: {x0: {rat: 0.4}}}",
            ),
        ],
        [
            "sweep.yaml:10: optuna's CmaEsSampler does not take these options: Parameter configuration must contain "
            "all distributions. Correct `sampler.options`.",
        ],
    ),
    (
        FUNCTION,
        [
            (
                "sampler: {name: tpe, n_trials: 10}",
                "sampler: {name: cmaes, n_trials: 10, options: {popsize: -1}}",
            ),
        ],
        [
            "sweep.yaml:10: optuna's CmaEsSampler does not take these options: popsize must be non-zero positive "
            "value. Correct `sampler.options`.",
        ],
    ),
    (
        BASE,
        [
            ("fractions: [0.1, 0.3]", "fractions: [0.3, 0.1]"),
        ],
        [
            "sweep.yaml:14: `rungs.fractions` must grow from value to value, but 0.1 comes after "
            "0.3. Sort the values and remove repeated ones.",
        ],
    ),
    (
        BASE,
        [
            ("fractions: [0.1, 0.3]", "fractions: [0.1, 1.0]"),
        ],
        [
            "sweep.yaml:14: `rungs.fractions[1]` must be less than 1, but got 1.0. Choose a smaller value.",
        ],
    ),
    (
        BASE,
        [
            ("fractions: [0.1, 0.3]", "samples: [512, 8192]"),
        ],
        [
            "sweep.yaml:14: `rungs.samples` must stay below the budget of 8192 samples, but got "
            "8192. Remove the value; the end itself needs no mark.",
        ],
    ),
    (
        BASE,
        [
            ("fractions: [0.1, 0.3]", "samples: [512], steps: [3]"),
        ],
        [
            (
                "sweep.yaml:14: Rungs in steps compare points with different "
                "`effective_batch_size` after different amounts of data. Write `compare: unequal` "
                "in `trial` if that is what you want to see, or give the rungs in samples."
            ),
            (
                "sweep.yaml:14: `rungs` must be given in one form, but got `samples` and `steps`. "
                "Keep one of them."
            ),
        ],
    ),
    (
        BASE,
        [
            ("fractions: [0.1, 0.3]", "first: 512"),
        ],
        [
            "sweep.yaml:14: `rungs.reduction_factor` is missing: `first` and `reduction_factor` go "
            "together. Add it.",
        ],
    ),
    (
        BASE,
        [
            ("fractions: [0.1, 0.3]", "steps: [4, 8]"),
        ],
        [
            "sweep.yaml:14: Rungs in steps compare points with different `effective_batch_size` "
            "after different amounts of data. Write `compare: unequal` in `trial` if that is what "
            "you want to see, or give the rungs in samples.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: medain"),
        ],
        [
            "sweep.yaml:15: unknown pruner `medain`. Did you mean `median`?",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {name: early_dynamics, options: {}}"),
        ],
        [
            "sweep.yaml:15: `pruner.options` belongs to Optuna's pruners and `module:Class`, not "
            "to `early_dynamics`. Remove it, or use `signals`, `keep_frac`, `min_peers`, `mode`, "
            "`max_gpu_hours`, `directions`, `risk`, `tolerance`, `n_calibration`, `skip_waiting`, `set_aside`, "
            "`fill_slots`, `audit_frac` and `prior`.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {name: median, keep_frac: 0.3}"),
        ],
        [
            "sweep.yaml:15: `pruner.keep_frac` belongs to `early_dynamics`, not to `median`. "
            "Remove it, or pass `pruner.options`.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: early_dynamics\ndivergence: {clipped_frac: 1}"),
        ],
        [
            "sweep.yaml:16: `divergence.clipped_frac` must be less than 1, but got 1. Choose a smaller value.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: early_dynamics\ndivergence: {clipped_steps: true}"),
            ("{micro_batch_size: 8}", "{micro_batch_size: 8, max_grad_norm: null}"),
        ],
        [
            "sweep.yaml:16: `divergence.clipped_steps` counts steps whose gradient norm is above `max_grad_norm`, but "
            "no point clips gradients: `max_grad_norm` is null. Give it a number, or remove `clipped_steps`.",
        ],
    ),
    (
        FUNCTION,
        [
            (
                "study: demo",
                "study: demo\npoints: [{rate: 0.2}, {rate: 0.95}, {rate: 0.3}, {rate: 0.2}, {depth: 1}]",
            ),
        ],
        [
            "sweep.yaml:2: `points[1].rate` = 0.95 is not among the values of `search_space.rate.uniform`: [0.1, 0.9]. "
            "Add it there, or correct it.",
            "sweep.yaml:2: `points[3]` is the same as `points[0]`. Remove one.",
            "sweep.yaml:2: `points[4]` must name every dimension of the search space (`rate`) and nothing else, "
            "but names `depth`. Correct it.",
        ],
    ),
    (
        FUNCTION,
        [
            ("study: demo", "study: demo\ndivergence: {clipped_steps: true}"),
        ],
        [
            "sweep.yaml:2: `divergence.clipped_steps` counts steps whose gradient norm is above `max_grad_norm`, but "
            "`trial.function` does not say where it clips gradients. Give `max_grad_norm`, a number above 0, in "
            "`trial.settings`, or remove `clipped_steps`.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {name: median, signal: loss}"),
        ],
        [
            "sweep.yaml:15: `pruner.direction` is missing: say whether a good `loss` is low "
            "(`minimize`) or high (`maximize`).",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {name: median, direction: minimize}"),
        ],
        [
            "sweep.yaml:15: `pruner.direction` is the direction of `pruner.signal`, which is not "
            "set. Remove it, or add `signal`.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {name: percentile}"),
        ],
        [
            "sweep.yaml:15: optuna's PercentilePruner needs the option `percentile`. Add it to "
            "`pruner.options`.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {name: percentile, options: {percentile: 150}}"),
        ],
        [
            "sweep.yaml:15: optuna's PercentilePruner does not take these options: Percentile must "
            "be between 0 and 100 inclusive, but got percentile=150. Correct `pruner.options`.",
        ],
    ),
    (
        BASE,
        [
            (
                "pruner: early_dynamics",
                "pruner: {name: patient, options: {patience: 2, wrapped_pruner: medan}}",
            ),
        ],
        [
            "sweep.yaml:15: `pruner.options.wrapped_pruner` must be a pruner's name or a mapping "
            "with its `name`, but got the text `medan`. Choose one of `nop`, `median`, "
            "`percentile`, `successive_halving`, `hyperband`, `threshold`, `patient` and "
            "`wilcoxon`.",
        ],
    ),
    (
        BASE,
        [
            (
                "pruner: early_dynamics",
                "pruner: {name: patient, options: {patience: 2, wrapped_pruner: [1]}}",
            ),
        ],
        [
            "sweep.yaml:15: `pruner.options.wrapped_pruner` must be a pruner's name or a mapping "
            "with its `name`, but got [1]. Choose one of `nop`, `median`, "
            "`percentile`, `successive_halving`, `hyperband`, `threshold`, `patient` and "
            "`wilcoxon`.",
        ],
    ),
    (
        BASE,
        [
            (
                "pruner: early_dynamics",
                "pruner: {name: patient, options: {patience: 2, wrapped_pruner: {name: {}}}}",
            ),
        ],
        [
            "sweep.yaml:15: `pruner.options.wrapped_pruner` must be a pruner's name or a mapping "
            "with its `name`, but got a mapping. Choose one of `nop`, `median`, "
            "`percentile`, `successive_halving`, `hyperband`, `threshold`, `patient` and "
            "`wilcoxon`.",
        ],
    ),
    (
        BASE,
        [
            (
                "pruner: early_dynamics",
                "pruner: {name: patient, options: {patience: 2, wrapped_pruner: percentile}}",
            ),
        ],
        [
            "sweep.yaml:15: optuna's PercentilePruner needs the option `percentile`. Add it to "
            "`pruner.options.wrapped_pruner`.",
        ],
    ),
    (
        BASE,
        [
            (
                "pruner: early_dynamics",
                "pruner: {name: patient, options: {patience: 2, wrapped_pruner: {name: median, n_warmup_steps: a}}}",
            ),
        ],
        [
            "sweep.yaml:15: `pruner.options.wrapped_pruner.n_warmup_steps` must be a whole number, but got the text "
            "`a`. Write a whole number.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {name: hyperband, options: {reduction_factor: a}}"),
        ],
        [
            "sweep.yaml:15: `pruner.options.reduction_factor` must be a whole number, but got the text `a`. Write a "
            "whole number.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {name: hyperband, options: {reduction_factor: 1}}"),
        ],
        [
            "sweep.yaml:15: optuna's HyperbandPruner does not take these options: float division by zero. Correct "
            "`pruner.options`.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {name: successive_halving, options: {min_resource: [1]}}"),
        ],
        [
            "sweep.yaml:15: `pruner.options.min_resource` must be text or a whole number, but got [1]. Write one of "
            "the two.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {name: threshold, options: {}}"),
        ],
        [
            "sweep.yaml:15: optuna's ThresholdPruner does not take these options: Either lower or upper must be "
            "specified. Correct `pruner.options`.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {signals: {los: {direction: maximize}}}"),
        ],
        [
            "sweep.yaml:15: `pruner.signals` names `los`, which no trial reports. Did you mean `loss`?",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: {signals: {loss: {}}}"),
        ],
        [
            "sweep.yaml:15: `pruner.signals.loss.direction` is missing. Write `direction: "
            "minimize` or `direction: maximize`.",
        ],
    ),
    (
        BASE,
        [
            ("pruner: early_dynamics", "pruner: median"),
            ("  budget:", "  evaluation: {at: end}\n  budget:"),
        ],
        [
            "sweep.yaml:8: The pruner `median` judges `dev/loss` at the rungs, but "
            "`trial.evaluation.at` is `end`. Set it to `rungs`, or let the pruner judge `signal: "
            "loss` with `direction: minimize`.",
        ],
    ),
    (
        BASE,
        [
            ("  budget:", "  evaluation: {at: [512, 256]}\n  budget:"),
        ],
        [
            "sweep.yaml:8: `trial.evaluation.at` must grow from value to value, but 256 comes "
            "after 512. Sort the values and remove repeated ones.",
        ],
    ),
    (
        BASE,
        [
            ("  budget:", "  evaluation: {at: sometimes}\n  budget:"),
        ],
        [
            "sweep.yaml:8: `trial.evaluation.at` must be a list, but got the text `sometimes`. "
            "Write `rungs`, `end`, or a list of sample counts such as `[512, 1024]`.",
        ],
    ),
    (
        BASE,
        [
            ("  budget:", "  evaluation: {at: [9000]}\n  budget:"),
        ],
        [
            "sweep.yaml:8: `trial.evaluation.at` must stay below the budget of 8192 samples, but "
            "got 9000. Remove the value; the end itself needs no mark.",
        ],
    ),
    (
        BASE,
        [
            ("  budget:", "  evaluation: {generate: false}\n  budget:"),
            ("metric: dev/loss", "metric: dev/exact_match"),
        ],
        [
            "sweep.yaml:2: `dev/exact_match` needs generated answers, but "
            "`trial.evaluation.generate` is false. Set it to true or choose another measure.",
        ],
    ),
    (
        BASE,
        [
            ("metric: dev/loss", "metric: dev/accuracy"),
        ],
        [
            "sweep.yaml:2: `metric` names unknown measure `accuracy`. Did you mean `token_accuracy`?",
        ],
    ),
    (
        BASE,
        [
            ("metric: dev/loss", "metric: test/loss"),
        ],
        [
            "sweep.yaml:2: `metric` must name a value of this sweep, but got the text `test/loss`. "
            "Did you mean `dev/loss`?",
        ],
    ),
    (
        BASE,
        [
            ("  budget:", "  metrics: {score: {dev/loss: 1, tset/loss: 1}, bad: {}}\n  budget:"),
        ],
        [
            (
                "sweep.yaml:8: `trial.metrics.score` must name a value of this sweep, but got the "
                "text `tset/loss`. Did you mean `dev/loss`?"
            ),
            (
                "sweep.yaml:8: The weights of `trial.metrics.bad` must be at least 0, with a sum "
                "greater than 0, but got []. Write for example `{dev/exact_match: 1}`."
            ),
        ],
    ),
    (
        BASE,
        [
            ("gpus_per_trial: 1", "gpus_per_trial: 2.5"),
        ],
        [
            "sweep.yaml:16: `resources.gpus_per_trial` above 1 must be a whole number, but got 2.5. Set it to 2 or 3, "
            "or to at most 1 to let trials share a GPU.",
        ],
    ),
    (
        BASE,
        [
            ("gpus_per_trial: 1", "gpus_per_trial: 1, workers_per_trial: 2"),
        ],
        [
            "sweep.yaml:16: `resources.workers_per_trial` = 2 and `gpus_per_trial` = 1 do not go together: every "
            "worker trains on a GPU of its own, or all on CPUs. Leave out `workers_per_trial`, or set "
            "`gpus_per_trial: 0`.",
        ],
    ),
    (
        BASE,
        [
            ("gpus_per_trial: 1", "gpus_per_trial: 4, cpus_per_trial: 6, threads_per_trial: 2"),
        ],
        [
            "sweep.yaml:16: `resources.cpus_per_trial` must be a multiple of the 4 workers of a trial, but got 6. Set "
            "it to 8.",
            "sweep.yaml:16: `resources.threads_per_trial` must be a multiple of the 4 workers of a trial, but got 2. "
            "Set it to 4.",
        ],
    ),
    (
        BASE,
        [
            ("gpus_per_trial: 1", "gpus_per_trial: 1, sharding: fsdp2, placement: spread"),
        ],
        [
            "sweep.yaml:16: `resources.sharding: fsdp2` is for trials of several workers, but a trial has one. Remove "
            "it, or set `gpus_per_trial` or `workers_per_trial` to more than 1.",
            "sweep.yaml:16: `resources.placement: spread` is for trials of several workers, but a trial has one. "
            "Remove it, or set `gpus_per_trial` or `workers_per_trial` to more than 1.",
        ],
    ),
    (
        BASE,
        [
            ("gpus_per_trial: 1", "gpus_per_trial: 2, sharding: fsdp2"),
            ("micro_batch_size: 8", "micro_batch_size: 8, precision: fp16, method: qlora"),
        ],
        [
            "sweep.yaml:16: `resources.sharding: fsdp2` does not go together with `precision: fp16`, whose loss "
            "scaling is not shared between the workers. Use bf16 or fp32.",
            "sweep.yaml:16: `resources.sharding: fsdp2` does not go together with `method: qlora`, whose 4-bit weights "
            "it cannot share out. Use lora, or leave out `sharding`.",
        ],
    ),
    (
        BASE,
        [
            (
                "micro_batch_size: 8",
                "micro_batch_size: 8, precision: fp32, attn_implementation: flash_attention_2",
            )
        ],
        [
            "sweep.yaml:9: `attn_implementation: flash_attention_2` computes in 16 bits, but `precision` is fp32. "
            "Choose bf16 or fp16, or `attn_implementation: sdpa`.",
        ],
    ),
    (
        BASE,
        [("micro_batch_size: 8", "micro_batch_size: 8, precision: fp16, optimizer: adamw_torch_fused")],
        [
            "sweep.yaml:9: `optimizer: adamw_torch_fused` does not go together with `precision: fp16`: it leaves out a "
            "step whose gradient has overflowed without a word, and the trial would be taken for a diverged one. "
            "Choose `adamw_torch`, or bf16 or fp32.",
        ],
    ),
    (
        BASE,
        [
            ("gpus_per_trial: 1", "gpus_per_trial: 3"),
        ],
        [
            "sweep.yaml:12: `effective_batch_size` must be a multiple of micro_batch_size * data_parallel_size = 24, "
            "but got 32. Nearest valid values: 24 and 48. 3 workers cannot share 32 sequences equally.",
            "sweep.yaml:12: `effective_batch_size` must be a multiple of micro_batch_size * data_parallel_size = 24, "
            "but got 128. Nearest valid values: 120 and 144. 3 workers cannot share 128 sequences equally.",
        ],
    ),
    (
        BASE,
        [
            ("gpus_per_trial: 1", "time_budget_s: 0"),
        ],
        [
            "sweep.yaml:16: `resources.time_budget_s` must be greater than 0, but got 0. Choose a larger value.",
        ],
    ),
    (
        BASE,
        [
            ("gpus_per_trial: 1", "gpus: 1"),
        ],
        [
            "sweep.yaml:16: unknown key `gpus`. Allowed: `slots`, `gpus_per_trial`, "
            "`cpus_per_trial`, `threads_per_trial`, `workers_per_trial`, `sharding`, `placement`, "
            "`custom_resources`, `address`, `worker_growth_gb` and `time_budget_s`.",
        ],
    ),
    (
        FUNCTION,
        [
            ("function: my_code:train", "function: my_code.train"),
        ],
        [
            "sweep.yaml:5: `trial.function` must have the form `module:function`, but got the text "
            "`my_code.train`. Write for example `my_training:train`.",
        ],
    ),
    (
        FUNCTION,
        [
            ("function: my_code:train", "function: my_code:train\n  model: org/x"),
        ],
        [
            "sweep.yaml:6: `trial.model` belongs to the built-in fine-tuning, but `trial.function` "
            "is set. Remove one of the two; values for your function go into `trial.settings`.",
        ],
    ),
    (
        FUNCTION,
        [
            ("budget: {samples: 1000}", "budget: {epochs: 3}"),
        ],
        [
            "sweep.yaml:6: A budget in epochs needs data that can be counted, but `trial.function` "
            "reads its own. Give the budget in samples or steps.",
        ],
    ),
    (
        FUNCTION,
        [
            ("function: my_code:train", "function: my_code:train\n  metrics: {a: {dev/loss: 1}}"),
        ],
        [
            "sweep.yaml:6: `trial.metrics` belongs to the built-in fine-tuning, but "
            "`trial.function` is set. Remove one of the two; values for your function go into "
            "`trial.settings`.",
        ],
    ),
    (
        FUNCTION,
        [
            ("settings: {depth: 3}", "settings: {effective_batch_size: 10, micro_batch_size: 4}"),
        ],
        [
            "sweep.yaml:7: `effective_batch_size` must be a multiple of micro_batch_size * "
            "data_parallel_size = 4, but got 10. Nearest valid values: 8 and 12. Or set "
            "`micro_batch_size` to a divisor of 10.",
        ],
    ),
    (
        FUNCTION,
        [
            ("budget: {samples: 1000}", "budget: {samples: 1000}\n  checkpoint: {url: 'ftp://u:s3/x@h/x'}"),
        ],
        [
            "sweep.yaml:7: `trial.checkpoint.url` must not hold a password, since the study keeps and shows it. Give "
            "the password by the store's own environment variables, or by fsspec's configuration files.",
        ],
    ),
    *(
        (
            BASE,
            [
                (
                    "resources: {gpus_per_trial: 1}",
                    f"benchmarks: {{judged: {{a: {{questions: q.jsonl, model: m, base_url: '{url}'}}}}}}",
                ),
            ],
            [
                "sweep.yaml:16: `benchmarks.judged.a.base_url` must not hold a user or a password, since the study "
                "keeps and shows it. Put the key into an environment variable, and name that by `api_key_env`.",
            ],
        )
        for url in ("https://u:s3@h/v1", "https://s3@h/v1", "https://h/v1?password=s3")
    ),
    *(
        (BASE, [("eval_data: {dev: dev.jsonl}", f"eval_data: {{dev: dev.jsonl, {name}: b.jsonl}}")], [told])
        for name, told in (
            (
                "x" * 101,
                "sweep.yaml:7: The name of an eval set may have 100 characters, but `xxxxxxxxxxxxxxxxxxxx…` has 101. "
                "Shorten it.",
            ),
            (
                "bench--mt",
                "sweep.yaml:7: `bench--mt` cannot name an eval set: files of benchmarks begin with `bench--`. Rename "
                "it.",
            ),
            (
                "Dev",
                "sweep.yaml:7: The eval sets `dev` and `Dev` differ only in upper and lower case, so that their files "
                "are one on some disks. Rename one of them.",
            ),
        )
    ),
    (
        BASE,
        [
            (
                "resources: {gpus_per_trial: 1}",
                "resources: {gpus_per_trial: 1}\nbenchmarks: {tasks: {arc: {}, ARC: {}}}",
            ),
        ],
        [
            "sweep.yaml:17: The benchmarks `arc` and `ARC` differ only in upper and lower case, so that their files "
            "are one on some disks. Rename one of them.",
        ],
    ),
]
