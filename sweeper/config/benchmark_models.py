"""The `benchmarks` section: what trained models are measured with beside the eval sets."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from sweeper.config.section import Float, Section

BENCH = "bench"  # metrics of benchmarks are `bench/<name>`
SCORE = "score"  # `bench/score` is the one number; no benchmark is called so
DEFAULT_TOP = 3

ScoreWay = Literal["mean", "weighted", "rank_mean"]
BenchmarkName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class TaskBenchmark(Section):
    """One task or group of lm-evaluation-harness."""

    task: str | None = Field(default=None, min_length=1)  # None: the benchmark's own name
    num_fewshot: int | None = Field(default=None, ge=0)  # None: the task's own
    limit: int | None = Field(default=None, ge=1)  # the first rows, of each subtask of a group
    metric: str | None = Field(
        default=None, min_length=1
    )  # `acc_norm`, `exact_match,strict-match`; None: the first
    weight: Float | None = Field(default=None, gt=0)  # in `score: weighted`; None: 1


class JudgedBenchmark(Section):
    """Multi-turn questions, whose answers a judge scores from 1 to 10."""

    questions: str = Field(min_length=1)  # a JSONL file: {"question_id", "category", "turns": [...]}
    base_url: str = Field(pattern=r"^https?://.+")  # of an OpenAI-compatible endpoint
    model: str = Field(min_length=1)  # the judge, as the endpoint calls it
    api_key_env: str | None = Field(
        default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"
    )  # variable with the key
    concurrency: int = Field(default=4, ge=1)  # requests at a time
    attempts: int = Field(default=6, ge=1)  # of one request, the first counted
    timeout_s: Float = Field(default=60.0, gt=0)
    temperature: Float | None = Field(default=0.0, ge=0, le=2)  # of the judge; None: its own
    max_tokens: int | None = Field(
        default=512, ge=1
    )  # of a reply, thoughts counted; None: the endpoint's own limit
    max_new_tokens: int = Field(default=512, ge=1)  # of an answer
    limit: int | None = Field(default=None, ge=1)  # the first questions
    weight: Float | None = Field(default=None, gt=0)


class BenchmarkSection(Section):
    """Which benchmarks, on which trials, and how they become one number."""

    tasks: dict[BenchmarkName, TaskBenchmark] = Field(default_factory=dict)
    judged: dict[BenchmarkName, JudgedBenchmark] = Field(default_factory=dict)
    include_path: str | None = None  # directory of task files beside the harness's own
    # asked: by `sweeper benchmark`; completed: within every trial that completes; finalists: once the sweep ended
    when: Literal["asked", "completed", "finalists"] = "asked"
    top: int | None = Field(default=None, ge=1)  # how many finalists; None: 3
    score: ScoreWay = "mean"
    apply_chat_template: bool = False
    batch_size: int = Field(default=8, ge=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the benchmarks' names, tasks first."""
        return (*self.tasks, *self.judged)

    def weight(self, name: str) -> float:
        """Return a benchmark's weight in the one number; 1 for all unless `score: weighted`."""
        entry = self.tasks.get(name) or self.judged.get(name)
        return 1.0 if entry is None or entry.weight is None else entry.weight
