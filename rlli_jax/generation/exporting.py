"""Generated pictures as a folder of their own, which ``catalog.manifest`` reads."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
from PIL import Image

from rlli_jax.catalog import Catalog
from rlli_jax.catalog.catalog import COLUMNS
from rlli_jax.files import write_bytes, write_text


def export_pictures(catalog: Catalog, folder: Path) -> int:
    """Write every picture as PNG and ``manifest.csv``; returns how many pictures there are.

    The manifest's further column ``settings`` tells how each was made, as JSON.

    Raises:
        InputError: the disk does not take it.
    """
    rows = []
    for r, request in enumerate(catalog.requests):
        for p, provider in enumerate(catalog.providers):
            picture = catalog.picture(r, p)
            if picture is None:
                continue
            file, name = io.BytesIO(), f"{p}/{r}.png"
            Image.fromarray(picture.pixels).save(file, "PNG")
            write_bytes(folder / name, file.getvalue())
            about = catalog.made.get((request, provider), {})
            settings = json.dumps(about.get("settings", {}), ensure_ascii=False)
            rows.append((provider, request, name, settings))
    table = pd.DataFrame(rows, columns=[*COLUMNS, "settings"])
    write_text(folder / "manifest.csv", table.to_csv(index=False))
    return len(rows)
