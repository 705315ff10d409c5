"""
Parts of other libraries that they do not promise to keep, one module for each library.

The rest of the package touches none of them itself. Each function says what it reads, which
versions have it, and what happens where it is missing: something slower in its place, or an error
that names the version.
"""
