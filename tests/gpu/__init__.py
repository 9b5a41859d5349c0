"""What only a GPU can show: kernels agree with those of the CPU, and live well with torch, its streams and its threads."""
