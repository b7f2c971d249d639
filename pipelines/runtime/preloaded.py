"""What the fork server loads once for all worker processes (`worker_pool`).

Nothing of it ever becomes garbage. So no garbage is looked for while it is loaded, nor among it later: looking would
take the server a third of a second of processor time, half of it at its end, and make every worker write to, and so
have copies of, memory that it shares with the server.
"""

import contextlib
import gc
import importlib

gc.disable()
for name in ("numpy", "torch", "cv2", "av", "pipelines.storage.hdf5_plugins"):
    with contextlib.suppress(ImportError):  # the worker processes, which cannot do without, will tell
        importlib.import_module(name)
gc.freeze()
gc.enable()
