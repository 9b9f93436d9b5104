"""Names of what a study itself keeps in its storage; those of its trials are in `sweeper.encoding`."""

CONFIG = "sweeper:config"
FACTS = "sweeper:facts"
DRIVER = "sweeper:driver"
DIRECTORY = "sweeper:directory"
CREATED = "sweeper:created"
VERSIONS = "sweeper:versions"
ENVIRONMENTS = "sweeper:environments"
N_POINTS = "sweeper:n_points"
EXHAUSTED = "sweeper:exhausted"  # the `sampler.n_trials` at which the sampler knew no new point any more
MICRO_BATCHES = "sweeper:micro_batches"
EVIDENCE = "sweeper:evidence"
RUNGS_OF = "sweeper:rungs_of"  # the config whose rungs an extension has kept
PRIOR = "sweeper:prior"  # what an earlier study's finished trials showed
