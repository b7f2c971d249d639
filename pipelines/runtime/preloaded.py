"""What the fork server loads once for all worker processes (`worker_pool`).

Nothing of it ever becomes garbage. So no garbage is looked for while it is loaded, nor among it later: that takes the
server a third of a second of processor time, half of it at its end, and makes every worker write to, and so have copies
of, memory that it would share with the server.
"""

import contextlib
import gc
import importlib

gc.disable()
try:
    with contextlib.suppress(ImportError):  # the worker processes, which cannot do without, will tell
        for name in ("numpy", "torch", "cv2", "av", "pipelines.storage.hdf5_plugins"):
            importlib.import_module(name)
    gc.freeze()
finally:
    gc.enable()
