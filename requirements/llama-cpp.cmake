# Read by llama.cpp's own build right after its `project()`: leaves out the part that only its command line tools use.
# The Python package sets LLAMA_BUILD_COMMON in the cache by force; a plain variable of that name wins over the cache.
set(LLAMA_BUILD_COMMON OFF)
