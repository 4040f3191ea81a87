"""Lattice-free maximum mutual information over phones, with CTC's topology, in plain torch (Povey et al. 2016)."""
