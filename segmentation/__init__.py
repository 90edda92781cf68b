"""Three-way segmentation: five-slice views, 2D U-Nets, training, prediction, metrics, quantification.

DOI 10.1109/TMI.2020.3001810, section III-D.
"""
