"""A folder with a DICOM series: headers by pydicom, order and spacing by position, pixels as they are stored."""

from standard_space.dicom.reader import DicomSummary, inspect_dicom_folder, read_dicom_folder

__all__ = ["DicomSummary", "inspect_dicom_folder", "read_dicom_folder"]
