"""HDF5 with hdf5plugin's filters, and with no others: import both from here.

For a filter that it does not know HDF5 loads every library in the folders that HDF5_PLUGIN_PATH names, or a default;
hdf5plugin asks for filters while it is imported, so that those folders have to be forgotten before.
"""

import h5py

while h5py.h5pl.size():
    h5py.h5pl.remove(0)

import hdf5plugin  # noqa: E402

__all__ = ["h5py", "hdf5plugin"]
