"""Rounding of weights to low-bit grids: to the nearest value, or by GPTQ where inputs are known."""
