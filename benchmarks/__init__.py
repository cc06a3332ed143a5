"""Studies and benchmarks: every figure the documents quote is printed by one."""
