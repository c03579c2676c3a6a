"""Kernels and schedules for CPUs: TE that states a layer, rules that schedule what it becomes."""
