"""Examples that each command's `--help` ends with, as on a manual page."""

_EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "plan": (
        ("sweeper plan sweep.yaml", "check it; print points, batches, steps and rungs"),
        ("sweeper plan sweep.yaml learning_rate=1e-5 trial.budget.samples=1000", "with other settings"),
        ("sweeper plan sweep.yaml --preflight --json", "also ask model and data, for a program"),
        (
            "sweeper plan sweep.yaml --measure --price 2.5",
            "also train a few steps: hours, GPU-hours and cost",
        ),
    ),
    "launch": (
        ("sweeper launch sweep.yaml", "on this machine"),
        ("sweeper launch sweep.yaml --address auto", "on the Ray cluster that this machine belongs to"),
        ("sweeper launch sweep.yaml --storage postgresql://me@db/sweeps", "with the study in a database"),
    ),
    "resume": (
        ("sweeper resume studies/llama-grid", "after Ctrl-C, a crash or a reboot"),
        ("sweeper resume studies/llama-grid pruner=median", "with another pruner from now on"),
        ("sweeper resume studies/llama-grid --continue 7 trial.budget.samples=76800", "train trial 7 on"),
        ("sweeper resume studies/llama-grid --retry-failed", "once what made trials fail is mended"),
    ),
    "stop": (
        ("sweeper stop studies/llama-grid --trial 7 --trial 9", "end them as PRUNED"),
        ("sweeper stop studies/llama-grid --all", "end the sweep; resume goes on with it"),
    ),
    "keep": (("sweeper keep studies/llama-grid --trial 7", "whatever the pruner thinks of it"),),
    "add": (
        ("sweeper add studies/llama-grid learning_rate=3e-5 effective_batch_size=512", "one more point"),
        (
            "sweeper add studies/llama-grid --suggest",
            "what lies beyond the edge of the grid, if the best does",
        ),
    ),
    "clone": (
        ("sweeper clone studies/llama-grid learning_rate=1e-5 --trial 7", "else as trial 7, from its start"),
        ("sweeper clone studies/llama-grid learning_rate=1e-5 --trial 7 --warm-start", "from its checkpoint"),
    ),
    "pause": (
        ("sweeper pause studies/llama-grid", "start no more trials"),
        ("sweeper pause studies/llama-grid --off", "start them again"),
    ),
    "set": (("sweeper set studies/llama-grid max_concurrent=4", "four trials at a time"),),
    "confirm": (
        ("sweeper confirm studies/llama-grid", "the 3 best with 8 new seeds each, against the best of them"),
        ("sweeper confirm studies/llama-grid --top 2 --baseline 0", "two against trial 0"),
        ("sweeper confirm studies/llama-grid --seeds 10 --test permutation --json", "for a program"),
    ),
    "benchmark": (
        ("sweeper benchmark studies/llama-grid", "the 3 best, with what the sweep file's `benchmarks` names"),
        ("sweeper benchmark studies/llama-grid --trial 7 --checkpoint 128", "a checkpoint of one trial"),
        ("sweeper benchmark studies/llama-grid benchmarks.tasks.arc_easy.limit=100 --json", "another task"),
    ),
    "compare": (
        ("sweeper compare studies/llama-grid 3 7", "is trial 3 better than 7 on the same items?"),
        ("sweeper compare studies/llama-grid 3 7 --json", "and what differs between them, for a program"),
    ),
    "rerun": (
        ("sweeper rerun studies/llama-grid --trial 7", "on a CPU: the identical curve"),
        ("sweeper rerun studies/llama-grid --trial 7 --name once-more --json", "again, for a program"),
    ),
    "status": (
        ("sweeper status studies/llama-grid --watch", "follow it"),
        ("sweeper status studies/llama-grid --json | jq .best", "for a program"),
        ("sweeper status llama-grid --storage postgresql://me@db/sweeps", "from another machine"),
    ),
    "evidence": (("sweeper evidence studies/llama-grid", "which early signal was worth what"),),
    "report": (
        ("sweeper report studies/llama-grid", "into its report/"),
        ("sweeper report studies/llama-grid --out /tmp/r --png", "elsewhere, with pictures for slides"),
    ),
    "doctor": (
        ("sweeper doctor --address auto", "the cluster that this machine belongs to"),
        ("sweeper doctor sweep.yaml --address 10.0.0.1:6379", "and what this sweep needs of it"),
    ),
    "ui": (
        ("sweeper ui studies/llama-grid --open", "on http://127.0.0.1:8266"),
        (
            "sweeper ui studies/llama-grid --host 0.0.0.0",
            "for other machines, with the token that is printed",
        ),
        ("ssh -L 8266:127.0.0.1:8266 head-node", "or reach the first one from afar by a tunnel"),
    ),
    "export": (
        ("sweeper export studies/llama-grid --format trl > sft.yaml", "then: trl sft --config sft.yaml"),
        ("sweeper export studies/llama-grid --format axolotl --trial 7 --out a.yaml", "another trial"),
        (
            "sweeper export studies/llama-grid --model best/ --lock best.lock.json",
            "the model, and what made it",
        ),
    ),
    "ls": (
        ("sweeper ls", "those in studies/"),
        ("sweeper ls --storage postgresql://me@db/sweeps --json", "those of a database, for a program"),
    ),
    "replay": (
        ("sweeper replay studies/full-grid --pruner early_dynamics --pruner median", "compare two pruners"),
        ("sweeper replay curves.parquet --pruner 'early_dynamics keep_frac=0.3'", "recorded curves"),
    ),
}


def examples(command: str) -> str:
    """Return a command's examples in the help's own markup, a line each."""
    lines = [f"[cyan]{words}[/cyan]  [dim]{meaning}[/dim]" for words, meaning in _EXAMPLES[command]]
    return "\n\n".join(["[bold]Examples[/bold]", *lines])
