"""Engines that are asked rather than loaded: vLLM in a process of its own, and any server that speaks OpenAI's API."""
