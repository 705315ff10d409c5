"""
Private and undocumented parts of other libraries, one module for each library.

The rest of the package uses none of them directly. Each docstring names the part, the versions that
have it, and the fallback where it is missing: a slower replacement, or an error that names the
version.
"""
