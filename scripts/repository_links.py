"""A hook of mkdocs: links that leave docs/ reach the repository's files on the site, too.

Pages are read in the repository as well as on the site. There `../results/README.md` is a file
beside docs/; here it becomes a page, and anything else (a task, a search space) a file to download.
A link to nothing stays as it is, so that `mkdocs build --strict` refuses it.
"""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?(\))")
_HOME = "repository"  # folder of the site that holds them


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file of the repository that a page links to."""
    waiting = [file for file in files if file.is_documentation_page()]
    while waiting:
        file = waiting.pop()
        for target in re.findall(_LINK, _text_of(file)):
            path = _outside(file.src_uri, target[1])
            if path is None or files.get_file_from_path(_place(path)) is not None:
                continue
            added = File.generated(config, _place(path), abs_src_path=str(ROOT / path))
            files.append(added)
            if added.is_documentation_page():
                waiting.append(added)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point such links at where the files are on the site."""

    def rewrite(match: re.Match[str]) -> str:
        path = _outside(page.file.src_uri, match[2])
        if path is None:
            return match[0]
        link = os.path.relpath(_place(path), PurePosixPath(page.file.src_uri).parent)
        return f"{match[1]}{link}{match[3] or ''}{match[4]}"

    return _LINK.sub(rewrite, markdown)


def _place(path: str) -> str:
    """Where a file of the repository is on the site."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{_HOME}/{path}"


def _text_of(file: File) -> str:
    return Path(str(file.abs_src_path)).read_text(encoding="utf-8")


def _outside(page: str, link: str) -> str | None:
    """Path in the repository of what a page links to, if it is a file beside docs/."""
    here = PurePosixPath(page)
    is_added = here.parts[0] == _HOME
    folder = (
        PurePosixPath(*here.parts[1:-1]) if is_added else PurePosixPath("docs", *here.parts[:-1])
    )
    path = os.path.normpath(folder / link)
    is_inside = path.startswith("docs/") and not is_added
    return None if is_inside or not (ROOT / path).is_file() else path
