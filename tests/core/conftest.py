from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine, and no deadline: a loaded machine is no failure.
settings.register_profile(
    "tvm-passes", deadline=None, derandomize=True, database=None, max_examples=400
)
settings.load_profile("tvm-passes")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.no_tvm)
