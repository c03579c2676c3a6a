"""Benchmarks: the same block or model in several runtimes, each in a process of its own.

Only the modules named after a runtime import it; the rest needs NumPy and ONNX at most.
"""
