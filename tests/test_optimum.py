"""Where the best point lies: edges of the grid, the points beyond them, and the rate fitted over the grid."""

from typing import Any

import numpy as np
import pytest
from report_fixtures import make_view
from sweep_files import config_of

from sweeper.optimum.edge import edges_of, points_beyond
from sweeper.optimum.fit import Trained, fit_best_rate
from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.optimum_text import optimum_sentences


def make_record(number: int, **facts: Any) -> TrialRecord:
    """Return a completed trial."""
    return TrialRecord(number=number, state=TrialState.COMPLETE, **{"point_id": f"p{number}", **facts})


RATES = np.array([1e-5, 3e-5, 1e-4, 3e-4, 1e-3])
BATCHES = np.array([8, 32, 128])


def surface(
    rng: np.random.Generator, *, exponent: float = 0.5, noise: float = 0.05, bend: float = -0.1
) -> list[Trained]:
    """Return a grid whose best rate is 1e-4 at batch 32 and goes as batch ** exponent."""
    return [
        Trained(
            rate=float(rate), batch=int(batch),
            value=float(
                bend * (np.log(rate / 1e-4) - exponent * np.log(batch / 32)) ** 2 + 0.02 * np.log(batch)
                + noise * rng.standard_normal()
            ),
        )
        for rate in RATES for batch in BATCHES
    ]  # fmt: skip


def test_a_parabola_without_noise_is_found_exactly() -> None:
    fit = fit_best_rate(surface(np.random.default_rng(0), noise=0.0), maximize=True)
    assert fit is not None
    assert fit.exponent is not None
    assert fit.exponent.value == pytest.approx(0.5)
    assert [rate.value for rate in fit.rates.values()] == pytest.approx([5e-5, 1e-4, 2e-4])
    assert fit.r_squared == pytest.approx(1.0)


def test_negated_values_minimised_give_the_same_fit() -> None:
    trained = surface(np.random.default_rng(0))
    negated = [one._replace(value=-one.value) for one in trained]
    assert fit_best_rate(trained, maximize=True) == fit_best_rate(negated, maximize=False)


def test_the_intervals_hold_the_truth_in_95_of_100_grids() -> None:
    rng = np.random.default_rng(1)
    held = {"exponent": 0, "rate": 0}
    n_fits = 0
    for _ in range(400):
        fit = fit_best_rate(surface(rng), maximize=True)
        if fit is None:
            continue
        n_fits += 1
        assert fit.exponent is not None
        held["exponent"] += fit.exponent.low <= 0.5 <= fit.exponent.high
        held["rate"] += fit.rates[32].low <= 1e-4 <= fit.rates[32].high
    assert n_fits > 390
    assert 0.92 < held["exponent"] / n_fits < 0.98
    assert 0.92 < held["rate"] / n_fits < 0.98


def test_a_grid_without_a_bend_has_no_fit() -> None:
    rng = np.random.default_rng(0)
    told = sum(fit_best_rate(surface(rng, bend=0.0), maximize=True) is not None for _ in range(200))
    assert told <= 10  # by chance the bend looks sure in one of 40


@pytest.mark.parametrize("value", [0.0, 0.25, 0.35, 1.0])
def test_equal_values_have_no_fit(value: float) -> None:
    trained = [
        Trained(rate, batch, value) for batch in (8, 32, 128) for rate in (1e-5, 1e-4, 3e-4, 1e-3, 1e-2)
    ]
    assert fit_best_rate(trained, maximize=True) is None


@pytest.mark.parametrize("n_rates", [1, 2])
def test_too_few_rates_have_no_fit(n_rates: int) -> None:
    trained = [one for one in surface(np.random.default_rng(0)) if one.rate in RATES[:n_rates]]
    assert fit_best_rate(trained, maximize=True) is None


def test_one_batch_size_has_a_rate_and_no_exponent() -> None:
    rng = np.random.default_rng(0)
    trained = [one for _ in range(3) for one in surface(rng, noise=0.01) if one.batch == 32]
    fit = fit_best_rate(trained, maximize=True)
    assert fit is not None
    assert fit.exponent is None
    assert fit.rates[32].value == pytest.approx(1e-4, rel=0.1)


SWEEP = """\
study: demo
metric: dev/loss
direction: maximize
trial:
  model: org/model
  train_data: org/train
  eval_data: {dev: org/dev}
  budget: {samples: 10000}
  settings: {micro_batch_size: 8}
search_space:
"""


def view_of(space: str, best: dict[str, Any]) -> Any:
    """Return a finished study in which `best` has the highest value."""
    from sweeper.plan import plan_sweep

    config = config_of(SWEEP + space)
    records = [
        make_record(
            number, params=point.params, value=1.0 if point.params == best else 0.0, settings=point.settings,
            point_id=point.point_id,
        )
        for number, point in enumerate(plan_sweep(config).points)
    ]  # fmt: skip
    return make_view(records, config)


@pytest.mark.parametrize(
    ("space", "best", "beyond"),
    [
        ("  learning_rate: {grid: [1e-5, 1e-4, 1e-3]}", {"learning_rate": 1e-3}, 1e-2),
        ("  learning_rate: {grid: [6e-5, 8e-5, 1e-4]}", {"learning_rate": 1e-4}, 1.5e-4),
        ("  learning_rate: {grid: [1e-6, 5e-6, 2e-5]}", {"learning_rate": 1e-6}, 2e-7),
        ("  effective_batch_size: {grid: [8, 32, 128]}", {"effective_batch_size": 128}, 512),
        ("  effective_batch_size: {grid: [128, 3840, 7680]}", {"effective_batch_size": 128}, 16),
        ("  warmup_steps: {grid: [0, 25, 100]}", {"warmup_steps": 100}, 175),
        ("  adam_beta2: {grid: [0.9, 0.95, 0.99]}", {"adam_beta2": 0.99}, 0.998),
        ("  adam_beta2: {grid: [0.95, 0.99, 0.999]}", {"adam_beta2": 0.999}, 0.9999),
        ("  warmup_frac: {grid: [0.0, 0.5, 0.9]}", {"warmup_frac": 0.9}, 0.98),
        ("  warmup_frac: {grid: [0.1, 0.4, 0.7]}", {"warmup_frac": 0.7}, 0.85),
    ],
)
def test_what_lies_beyond_an_edge_is_one_step_of_the_grid_away(
    space: str, best: dict[str, Any], beyond: float
) -> None:
    view = view_of(space, best)
    ((name, value),) = points_beyond(view)[0].items()
    assert (name, value) == (next(iter(best)), pytest.approx(beyond))


@pytest.mark.parametrize(
    ("space", "best"),
    [
        ("  learning_rate: {grid: [1e-5, 1e-4, 1e-3]}", {"learning_rate": 1e-4}),
        ("  warmup_steps: {grid: [0, 25, 100]}", {"warmup_steps": 0}),  # there is no smaller one
        ("  warmup_frac: {grid: [0.0, 0.5, 1.0]}", {"warmup_frac": 1.0}),
        ("  learning_rate: {grid: [1e-5, 1e-4]}", {"learning_rate": 1e-4}),  # of two, one is always best
        ("  seed: {grid: [0, 1, 2]}", {"seed": 2}),
    ],
)
def test_no_edge_is_told_where_nothing_lies_beyond(space: str, best: dict[str, Any]) -> None:
    view = view_of(space, best)
    assert edges_of(view) == []
    assert optimum_sentences(view) == []


CORNER = "  effective_batch_size: {grid: [8, 16, 32]}\n  learning_rate: {grid: [1e-5, 1e-4, 1e-3]}\n"


@pytest.mark.parametrize(
    ("value_of", "edges"),
    [
        (lambda batch, rate: 0.5, []),
        (lambda batch, rate: 1.0 if rate < 1e-3 else 0.0, []),  # saturated
        (lambda batch, rate: 1.0 if rate < 1e-3 and batch == 8 else 0.0, ["effective_batch_size"]),
        (lambda batch, rate: 1.0 if rate in (1e-5, 1e-3) else 0.0, ["learning_rate"]),
    ],
)
def test_a_value_that_inner_points_have_as_well_is_not_told_as_an_edge(
    value_of: Any, edges: list[str]
) -> None:
    view = view_of(CORNER, {})
    for record in view.records:
        record.value = value_of(*record.params.values())
    assert [edge.name for edge in edges_of(view)] == edges


@pytest.mark.parametrize(
    ("ended", "best", "is_told"),
    [
        ([1e-5], 1e-5, False),
        ([1e-5, 1e-4], 1e-5, False),
        ([1e-5, 1e-4, 3e-4], 1e-5, True),
        ([1e-5, 1e-4, 3e-4], 3e-4, False),  # 1e-3 is still to be trained
    ],
)
def test_values_that_are_still_to_be_trained_were_not_tried(
    ended: list[float], best: float, is_told: bool
) -> None:
    view = view_of("  learning_rate: {grid: [1e-5, 1e-4, 3e-4, 1e-3]}\n", {"learning_rate": best})
    for record in view.records:
        if record.params["learning_rate"] not in ended:
            record.state, record.value = TrialState.WAITING, None
    assert [edge.value for edge in edges_of(view)] == ([best] if is_told else [])


@pytest.mark.parametrize(
    ("dimension", "tried", "best", "is_told"),
    [
        ("choice: [0, 10, 100]", [0, 10, 100], 0, False),
        ("int: [0, 100]", [0, 30, 100], 0, False),
        ("int: [0, 100]", [3, 30, 99], 3, True),  # the space goes on to 0
        ("int: [0, 100]", [0, 30, 100], 100, True),
    ],
)
def test_of_drawn_values_an_edge_is_told_where_something_lies_beyond_it(
    dimension: str, tried: list[int], best: int, is_told: bool
) -> None:
    config = config_of(f"{SWEEP}  warmup_steps: {{{dimension}}}\nsampler: {{name: tpe, n_trials: 3}}\n")
    records = [
        make_record(number, params={"warmup_steps": n}, value=float(n == best))
        for number, n in enumerate(tried)
    ]
    edges = edges_of(make_view(records, config))
    assert [(edge.value, edge.beyond) for edge in edges] == ([(best, None)] if is_told else [])


def test_a_corner_adds_both_steps_and_the_two_together() -> None:
    space = "  effective_batch_size: {grid: [8, 16, 32]}\n  learning_rate: {grid: [1e-5, 1e-4, 1e-3]}\n"
    view = view_of(space, {"effective_batch_size": 8, "learning_rate": 1e-5})
    assert points_beyond(view) == [
        {"effective_batch_size": 4, "learning_rate": 1e-5},
        {"effective_batch_size": 8, "learning_rate": 1e-6},
        {"effective_batch_size": 4, "learning_rate": 1e-6},
    ]
    assert optimum_sentences(view)[-1] == (
        "`sweeper add STUDY --suggest` adds what lies beyond: effective_batch_size=4 learning_rate=1e-5; "
        "effective_batch_size=8 learning_rate=1e-6; effective_batch_size=4 learning_rate=1e-6."
    )


def test_a_drawn_dimension_is_warned_of_but_nothing_is_added() -> None:
    config = config_of(
        SWEEP + "  learning_rate: {log_uniform: [1e-5, 1e-3]}\nsampler: {name: random, n_trials: 3}\n"
    )
    records = [
        make_record(n, params={"learning_rate": rate}, value=rate)
        for n, rate in enumerate([1e-5, 1e-4, 9e-4])
    ]
    view = make_view(records, config)
    assert [edge.beyond for edge in edges_of(view)] == [None]
    assert points_beyond(view) == []


def test_the_fit_is_told_with_its_intervals() -> None:
    config = config_of(
        SWEEP
        + "  effective_batch_size: {grid: [8, 32, 128]}\n  learning_rate: {grid: [1e-5, 3e-5, 1e-4, 3e-4, 1e-3]}\n"
    )
    trained = surface(np.random.default_rng(0), noise=0.01)
    records = [
        make_record(
            number, value=one.value, params={"effective_batch_size": one.batch, "learning_rate": one.rate},
            settings={"effective_batch_size": one.batch, "learning_rate": one.rate},
        )
        for number, one in enumerate(trained)
    ]  # fmt: skip
    sentence = optimum_sentences(make_view(records, config))[-1]
    assert sentence.startswith("A parabola of dev/loss over the logarithm of learning_rate has its best at ")
    assert "the best rate goes as the batch size to the power 0.5" in sentence
    assert "fitted to 15 complete trials" in sentence
