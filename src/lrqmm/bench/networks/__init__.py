"""Networks whose matrix products are measured."""
