"""Reading a file that a machine starts with: whole, a regular file, of a sane size."""

import os

from ..errors import ImageError

MAXIMUM_FILE_BYTES = 1 << 28


def read_start_file(path: str | os.PathLike[str], what: str, most: int = MAXIMUM_FILE_BYTES) -> bytes:
    """The bytes of a file; `what` says what kind of file is wanted. Raises ImageError."""
    try:
        if not os.path.exists(path):
            raise ImageError(path, "no such file", f"give the path of {what}")
        if not os.path.isfile(path):
            raise ImageError(path, "not a regular file", f"give the path of {what}")
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(path, f"cannot be read ({error})", "check its permissions") from None
    if not content:
        raise ImageError(path, "the file is empty", f"give {what}")
    if len(content) > most:
        raise ImageError(path, f"larger than {most >> 20} MB", f"give {what}")
    return content
