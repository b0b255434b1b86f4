"""vLLM within the process of the tests: on the CPU, on one thread."""

import os

# Before vllm is imported. One thread, bound to nothing: two wait for each other at every step, for ever where somebody
# else wants their core.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("OMP_NUM_THREADS", "1")
