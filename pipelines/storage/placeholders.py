"""Files that lie where another was to be: what a download or a clone leaves when it fetches not the file itself."""

from pathlib import Path

_LFS = b"version https://git-lfs"
_ANNEX = b"/annex/objects/"
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")


def placeholder(head: bytes) -> tuple[str, str] | None:
    """What a file is that begins with `head`, and what to do; None where it is nothing of this kind."""
    if head.startswith(_LFS):
        return "it is a Git LFS pointer, not the file itself", "fetch the file with `git lfs pull`"
    if head.startswith(_ANNEX):
        return "it is a git-annex pointer, not the file itself", "fetch the file with `git annex get`"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        return "it is a web page, not the file itself", "download the file that the page links to"
    return None


def placeholder_in(path: Path) -> str:
    """What the file at `path` is and what to do, as the end of a sentence; "" where it is nothing of this kind, or
    cannot be read."""
    try:
        with path.open("rb") as file:
            found = placeholder(file.read(512))
    except OSError:
        return ""
    return f"{found[0]}: {found[1]}" if found else ""
