"""Public data sets in the layouts they are published in (`docs/datasets.md` names the sources).

Each sequence is a `Container`, so that `open_recording` and everything built on it read it like a
bag: event packets, frames and depth as messages. The one exception are folders of ready voxel
grids, which hold no events (`voxel_folder`).
"""
