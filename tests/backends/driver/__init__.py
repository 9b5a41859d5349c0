"""Stand-ins for NVIDIA's driver, so that the code that talks to it is tested where there is no GPU."""
