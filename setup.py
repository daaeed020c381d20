"""What pyproject.toml has no words for: an sdist keeps the links of iree_pilot/ to the rooms.

setuptools copies what a link leads to, so that each module would be there twice, and what is edited
would not be what is installed.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist


class Sdist(sdist):
    """Makes the links that MANIFEST.in leaves out."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        for link in filter(Path.is_symlink, Path("iree_pilot").iterdir()):
            Path(base_dir, link).symlink_to(link.readlink())


setup(cmdclass={"sdist": Sdist})
