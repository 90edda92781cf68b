"""Child process: decode every DICOM file of a folder with GDCM; run by `codec` as a script.

It imports nothing of the project. A file is renamed before it is decoded, so that one which crashes GDCM is
not tried again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk


def main(folder: Path) -> None:
    """Turn every n.dcm into n.npy (integer array, rows x columns); what cannot be decoded leaves none."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    for source in sorted(folder.glob("*.dcm")):
        current = source.rename(source.with_suffix(".now"))
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(current))
        try:
            values = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError:
            continue
        finally:
            current.unlink()
        finished = source.with_suffix(".tmp.npy")
        np.save(finished, values[0] if values.ndim == 3 and len(values) == 1 else values)
        finished.rename(source.with_suffix(".npy"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
