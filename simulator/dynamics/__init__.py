"""The dynamic model of a lung infection: eight parameters, the Markov chain, the fit, the voxel engine."""
