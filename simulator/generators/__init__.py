"""Rivals of the simulator: published ways to make annotated scans of others, for studies that compare them.

`copy_paste` moves real lesions between scans, `ellipsoids` draws lesions by rules; `items` makes them by ratio,
as `simulator.augmentation_plan` does for the simulator. Nothing here shares code with the simulator's dynamics or
with the phantoms, whose lesions such studies are tested on. Their distributions are not all independent: the
ellipsoids' volumes follow the same 50 masks of MosMedData that the phantoms are calibrated to. Densities have
different sources: the phantoms' a published mixture (Zaffino et al. 2021), the ellipsoids' others, see there. All
describe the same disease: the ellipsoids are told roughly how dense the phantoms' lesions are.
"""
