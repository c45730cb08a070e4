"""SHA-256 from the interpreter itself: `hashlib` loads OpenSSL, 3.7 MB in every daemon, for the same digest."""

try:
    from _sha2 import sha256  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]  # CPython before 3.12
    except ImportError:  # another Python
        from hashlib import sha256

__all__ = ["sha256"]
