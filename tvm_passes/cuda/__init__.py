"""The cuda target where there is no GPU: compilers, what a kernel takes, and what it executes."""
