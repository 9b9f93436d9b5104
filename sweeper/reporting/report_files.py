"""Names of the files of a report, in its directory. Pure."""

INDEX = "index.html"
MARKDOWN = "report.md"
TRIALS_CSV = "trials.csv"
TRIALS_PARQUET = "trials.parquet"
JSON = "report.json"
BEST = "best.yaml"  # a sweep file of the best point; absent where there is none
