"""Where the pictures of a study are, or who makes them."""

from pathlib import Path

from pydantic import field_validator, model_validator
from rich.console import Console

from rlli_jax.catalog import Catalog
from rlli_jax.experiments.generate_blocks import GenerateBlock
from rlli_jax.experiments.yaml_blocks import Block, beside_file, exactly_one


class CatalogBlock(Block):
    """Where the pictures are."""

    studio: bool = False
    """Six photographs in four styles, rendered without any file."""
    folder: Path | None = None
    """Of pictures, provider/request.png."""
    manifest: Path | None = None
    """A table of provider, request and image."""
    generate: GenerateBlock | None = None
    """Pictures that providers make of prompts."""
    pictures: bool = True
    """False: the manifest only names images that are not there."""

    _paths = field_validator("folder", "manifest")(beside_file)

    @model_validator(mode="after")
    def _one_source(self) -> "CatalogBlock":
        exactly_one(self, ("studio", "folder", "manifest", "generate"))
        return self

    def load(self, console: Console | None = None) -> Catalog:
        """Open the catalog and check that every picture can be read; what is to be generated is
        made first, and ``console`` told of it. Raises InputError."""
        if self.studio:
            return Catalog.studio()
        if self.folder is not None:
            catalog = Catalog.from_folder(self.folder)
        elif self.generate is not None:
            catalog = self.generate.load(console)
        else:
            assert self.manifest is not None  # one of the four is given
            catalog = Catalog.from_manifest(self.manifest, pictures=self.pictures)
        catalog.check()
        return catalog
