"""Text in, opinions out: contracts, tasks, prompts, calibration and one classifier per runtime."""
