from hypothesis import settings

# The same examples on every machine, and no deadline: a loaded machine is no failure.
settings.register_profile(
    "tvm-passes", deadline=None, derandomize=True, database=None, max_examples=400
)
settings.load_profile("tvm-passes")
