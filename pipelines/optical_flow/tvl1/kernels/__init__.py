"""The parts of TV-L1 that Numba compiles for the CPU.

What makes them fast, as measured on cores with AVX2 (Zen 3) and AVX-512 (Zen 4):
* Kernels are given pointers to single lines (`rows.py`) and LLVM is told that these do not overlap, so that it
  vectorises every loop without asking at run time.
* Loops over pixels count with unsigned integers: Numba's handling of negative indices stops the vectoriser (20 ns a
  pixel and iteration instead of 2).
* One loop updates the flow of a row and the dual of the row above, in vectors as long as the processor has
  (`iteration.py`); and where nobody looks at the change between iterations, up to four of them go through the rows one
  behind the other (`solve.py`).
* The median filter does for two rows at once what their windows share (`median.py`).
* Nothing is gathered: neighbouring pixels are warped together wherever they move alike (`warp.py`).
* Rows are computed in whole vectors, and begin with a cache line.

Letters: H W pixels of a level. All images and flows are float32.
"""
