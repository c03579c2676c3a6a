from importlib.util import find_spec

collect_ignore_glob = []
if find_spec("tvm") is None or find_spec("tvm.relay") is not None:
    collect_ignore_glob = ["test_gpu_*.py"]
