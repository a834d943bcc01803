"""Matrices to multiply: packaged networks and pictures, and the layers captured from them."""
