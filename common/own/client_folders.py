"""A simulation of devices with data of their own: ``<data-dir>/<client>/...``.

Every folder is one client, which is called as it is and reads it as a device reads its
own data. Files beside the folders, and hidden folders, are nobody's.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from common.errors import SettingsError
from common.own.folders import is_hidden
from common.own.found import shown
from common.text import CLIENT_NAME, CLIENT_NAME_RULE, reason

_NAME: TypeAdapter[str] = TypeAdapter(
    Annotated[str, Field(pattern=f"^({CLIENT_NAME})$")]
)


def client_folders(data_dir: str | Path, clients: int | None = None) -> list[Path]:
    """Return the folders of all clients, in the order of their names.

    Parameters
    ----------
    data_dir : str or Path
    clients : int, optional
        How many there have to be.

    Raises
    ------
    SettingsError
        If there is none, they are not as many, or one cannot be a client's name.
    """
    root = Path(data_dir).expanduser()
    where = f"data-dir = {shown(str(data_dir))!r}"
    try:
        inside = [path for path in root.iterdir() if not is_hidden(path.name)]
        found = sorted((p for p in inside if p.is_dir()), key=lambda path: path.name)
    except OSError as error:
        raise SettingsError(f"{where} cannot be read: {reason(error)}") from None
    if not found:
        raise SettingsError(
            f'{where} has no folder: partition = "folders" takes one for each client'
        )
    for path in found:
        try:
            _NAME.validate_python(path.name)
        except ValidationError:
            raise SettingsError(
                f"{where}: the folder {shown(path.name)!r} cannot be the name of a "
                f"client: {CLIENT_NAME_RULE}"
            ) from None
    if clients not in (None, len(found)):
        raise SettingsError(
            f"clients = {clients} is not allowed: {where} has {len(found)} "
            'folders, and with partition = "folders" each is a client'
        )
    return found
