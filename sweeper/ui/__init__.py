"""`sweeper ui`: the report of a study, served live to a browser. It reads the study and writes nothing."""
