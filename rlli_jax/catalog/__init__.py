"""Who offers a picture for what: providers x requests -> images.

``Catalog.studio()`` needs no files; ``Catalog.from_manifest`` and ``Catalog.from_folder`` read
your own. ``features`` measures a picture for judges that do not look at pixels.
"""

from rlli_jax.catalog.catalog import Catalog
from rlli_jax.catalog.pictures import Picture

__all__ = ["Catalog", "Picture"]
