"""Any chest CT to the standard embedding space and back (DESIGN 2; paper III-B)."""
