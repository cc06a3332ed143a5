"""The README as the package's metadata has it: with addresses that lead somewhere.

An index of packages shows the README without the files beside it. Where
``[project.urls]`` names the ``Repository``, its pictures and links get addresses there;
where it does not, pictures are left out and links are plain text.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(
    r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<path>(?!\w+:|#)[^)\s]+)\)"
)
_COMMENT = re.compile(r"<!--.*?-->\n?", re.S)


def detached(readme: str, repository: str) -> str:
    """Return a README that needs no file beside it.

    Parameters
    ----------
    readme : str
        Markdown.
    repository : str
        Address of the repository; "" where there is none.
    """

    def away(link: re.Match[str]) -> str:
        if not repository:
            return "" if link["picture"] else link["text"]
        kind = "raw" if link["picture"] else "blob"
        address = f"{repository.rstrip('/')}/{kind}/HEAD/{link['path']}"
        return f"{link['picture']}[{link['text']}]({address})"

    return _LINK.sub(away, _COMMENT.sub("", readme))


class CustomMetadataHook(MetadataHookInterface):
    """Called by hatchling as it makes a wheel or an sdist."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Write ``readme``."""
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository", "")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": detached(readme, repository),
        }
