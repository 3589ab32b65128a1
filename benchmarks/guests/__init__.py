"""The guest kernels: sources, images, and the scripts that build and check them."""
