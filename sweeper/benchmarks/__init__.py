"""What trained models are measured with beside the eval sets: lm-evaluation-harness, and a judge."""
