"""The sweep as four calls: next_trial, on_report, on_end, on_lost.

It owns no truth: what it holds in memory was read from the study or was written there before it was acted on. It
knows no Ray and no torch; an executor carries out what it says.

state.py     what all rooms share: the study, the records, what runs; and telling the listeners
queue.py     what is started next, and the sampler's new points
longest.py   which waiting trial takes longest
starting.py  one attempt: its spec, and the curve that it goes on from
judging.py   windows come in, rungs are reached, the judge is asked
ending.py    how a trial ends: pruned, complete, interrupted, set aside
failing.py   what counts as a failure, and what follows from it
recording.py what of a running trial is written to the study, and when
sweep.py     the calls themselves
"""

from sweeper.orchestrator.sweep import Orchestrator

__all__ = ["Orchestrator"]
