"""The best learning rate against the batch size, over a study's completed trials."""

from sweeper.optimum.fit import RateFit, Trained, fit_best_rate
from sweeper.params import SEED, is_number
from sweeper.study.view import StudyView

RATE, BATCH = "learning_rate", "effective_batch_size"


def best_rate_of(view: StudyView) -> RateFit | None:
    """Fit the trials that differ from the best one in rate, batch size and seed alone; None if that tells nothing.

    Of trials from scratch: what another one's weights have made of a rate says nothing of it.
    """
    known = view.from_scratch
    if not known or RATE not in view.config.search_space:
        return None
    free = (RATE, BATCH, SEED)
    others = {name: value for name, value in known[0].params.items() if name not in free}
    trained = []
    for record in known:
        rate, batch = (record.params.get(name, record.settings.get(name)) for name in (RATE, BATCH))
        is_alike = all(record.params.get(name) == value for name, value in others.items())
        if record.value is not None and is_alike:
            if rate is None or batch is None or not is_number(rate) or not is_number(batch):
                return None
            trained.append(Trained(rate=float(rate), batch=int(batch), value=record.value))
    return fit_best_rate(trained, maximize=view.config.direction == "maximize")
