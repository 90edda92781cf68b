"""Rivals of the simulator: published ways to make annotated scans of others, for studies that compare them.

`copy_paste` moves real lesions between scans, `ellipsoids` draws lesions by rules; `items` makes them by ratio,
as `simulator.augmentation_plan` does for the simulator. Nothing here shares code with the simulator's dynamics or
with the phantoms, whose lesions such studies are tested on.
"""
