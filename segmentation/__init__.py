"""Three-way segmentation: five-slice views, 2D U-Nets, training, prediction, metrics, quantification.

DOI 10.1109/TMI.2020.3001810, section III-D.
"""

import os

# PyTorch's OpenMP threads spin while they wait. Where the cores are shared (a virtual machine, a second job) that
# makes two threads 10 to 20 times slower than one: measured 85 ms against 9 ms a slice. OpenMP reads this once,
# when PyTorch is first imported; what the user set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
