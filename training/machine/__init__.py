"""The machine: memory, disk, devices, the parent process."""
