"""Where the files beside the code lie: models, configuration, launch files.

The same answer in a source tree, an editable installation, a pip installation and a colcon
workspace, without asking ament, which is absent where ROS is.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from dae_ros.errors import ConfigurationError


def share_folder() -> Path:
    """Return the folder that holds `models/`, `config/`, `launch/` and `package.xml`.

    That is the repository root for a source tree or an editable installation (symbolic links
    of `colcon build --symlink-install` included), and `<prefix>/share/dae_ros` otherwise.

    Raises:
        ConfigurationError: the code was copied somewhere without these files.
    """
    code = Path(__file__).resolve().parent
    if (code.parent / "package.xml").is_file():
        return code.parent
    for prefix in code.parents:
        if (prefix / "share" / "dae_ros" / "package.xml").is_file():
            return prefix / "share" / "dae_ros"
    raise ConfigurationError(
        f"the files that belong to dae_ros (share/dae_ros) are not above {code}; install the "
        "package with pip or colcon instead of copying its modules",
        code=str(code),
    )


def version() -> str:
    """Return the version of this package, as its package.xml has it.

    Raises:
        ConfigurationError: there is no package.xml, or none with a version; see `share_folder`.
    """
    path = share_folder() / "package.xml"
    text = ElementTree.parse(path).findtext("version")
    if text is None:
        raise ConfigurationError(f"{path} has no version; install the package again", path=path)
    return text
