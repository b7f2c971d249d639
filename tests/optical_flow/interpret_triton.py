"""Computes TV-L1 with the Triton engine's kernels interpreted: a process of its own, as Triton decides when imported.

    TRITON_INTERPRET=1 python interpret_triton.py CASES FLOWS

CASES: a list of (frame0, frame1, parameters as a dict) that `torch.save` has written; FLOWS: the list of their flows.
"""

import sys

import torch

from pipelines.optical_flow import TVL1Parameters, tvl1_flow

torch.set_num_threads(1)
cases = torch.load(sys.argv[1], weights_only=True)
flows = [tvl1_flow(*frames, parameters=TVL1Parameters(**options), engine="triton") for *frames, options in cases]
torch.save(flows, sys.argv[2])
