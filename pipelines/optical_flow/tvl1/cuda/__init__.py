"""TV-L1 by a CUDA kernel that keeps a pair on the chip for a whole pyramid level. Its entrance is cuda_engine.py."""
