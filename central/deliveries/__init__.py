"""Where verdicts and incidents are delivered to: one file per far end, each behind the courier's port."""
