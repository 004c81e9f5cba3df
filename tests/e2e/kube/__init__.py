"""A package, so that what is made for all of its tests ends with the last of them."""
