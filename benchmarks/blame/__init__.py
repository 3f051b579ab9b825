"""Does the matrix name the part at fault? Planted faults and negative controls."""
