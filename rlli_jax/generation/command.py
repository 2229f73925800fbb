"""A provider that is a program: it gets a prompt and the path of the picture to write."""

from __future__ import annotations

import hashlib
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rlli_jax.errors import InputError
from rlli_jax.generation.base import (
    Made,
    NotMade,
    Outcome,
    Refused,
    in_parallel,
    in_parts,
)
from rlli_jax.generation.store import fault_of

PLACEHOLDERS = ("prompt", "output", "seed", "python")
REFUSED = 3  # exit status of a program that refuses a prompt
BATCH = 4  # pictures for each process at a time


def check_command(command: Sequence[str]) -> None:
    """Raises InputError unless a command has a placeholder for prompt and output, and no others."""
    try:
        found = {
            name for word in command for _, name, _, _ in string.Formatter().parse(word) if name
        }
    except ValueError as error:
        raise InputError(
            f"the command has a brace that is no placeholder ({error}); write {{{{ and }}}} for "
            "braces that are meant"
        ) from None
    for name in ("prompt", "output"):
        if name not in found:
            raise InputError(
                f"the command has no {{{name}}}; the placeholders are "
                f"{', '.join(f'{{{each}}}' for each in PLACEHOLDERS)}"
            )
    if unknown := sorted(found - set(PLACEHOLDERS)):
        raise InputError(
            f"the command has a placeholder {{{unknown[0]}}}, which is none of "
            f"{', '.join(f'{{{each}}}' for each in PLACEHOLDERS)}"
        )


class CommandProvider:
    """Runs a program for each picture.

    The program writes a PNG, JPEG or WebP file to ``{output}`` and ends with status 0; with status
    3 it refuses the prompt, and the last line that it writes to standard error is the reason. Every
    other status is a failure, which is tried again the next time. No shell is involved, so nothing
    in a prompt is ever carried out.

    Args:
        name: of the provider.
        command: words with the placeholders {prompt}, {output}, {seed} and {python} (this Python).
        folder: in which it runs. What of its words is a file there is part of every picture's key,
            by its content.
        seed: for {seed}.
        revision: any text; another one makes new pictures.
        timeout: seconds.
        concurrency: processes side by side.
        price: of a picture.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        seed: int = 0,
        revision: str | None = None,
        timeout: float = 600.0,
        concurrency: int = 1,
        price: float | None = 0.0,
    ) -> None:
        check_command(command)
        self.name, self.price = name, price
        self._command, self._folder = tuple(command), folder
        self._seed, self._revision = seed, revision
        self._timeout, self._concurrency = timeout, concurrency

    @cached_property
    def _files(self) -> dict[str, str]:
        """SHA-256 of the files among the words of the command."""
        found = {}
        for word in self._command:
            path = self._folder / word
            if path.is_file():
                with open(path, "rb") as file:
                    found[word] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    def settings(self, prompt: str) -> Mapping[str, Any]:
        """The command with the content of its files, seed and revision."""
        return {
            "kind": "command",
            "command": list(self._command),
            "files": self._files,
            "seed": self._seed,
            "revision": self._revision,
            "prompt": prompt,
        }

    def batches(self, prompts: Sequence[str]) -> list[list[str]]:
        """A few for each process."""
        return in_parts(prompts, BATCH * self._concurrency)

    def steps(self, prompts: Sequence[str]) -> tuple[int, int]:
        """Nobody knows."""
        return 0, 0

    def make(self, prompts: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
        """Run the program for each."""
        return in_parallel(self._make, prompts, self._concurrency)

    def _make(self, prompt: str) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="rlli-picture-") as folder:
            output = Path(folder, "picture.png")
            values = {
                "prompt": prompt,
                "output": str(output),
                "seed": str(self._seed),
                "python": sys.executable,
            }
            words = [word.format(**values) for word in self._command]
            started = time.monotonic()
            try:
                done = subprocess.run(
                    words,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=self._timeout,
                )
            except subprocess.TimeoutExpired:
                return NotMade(f"{words[0]} took longer than {self._timeout:g} s")
            except OSError as error:
                reason = f"{words[0]} cannot be run ({error.strerror})"
                return NotMade(reason, hopeless=True)
            seconds = time.monotonic() - started
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            said = lines[-1].strip()[:300] if lines else ""
            if done.returncode == REFUSED:
                return Refused(said or f"{words[0]} refused the prompt", self.price)
            if done.returncode:
                reason = f"{words[0]} ended with status {done.returncode}"
                return NotMade(f"{reason}: {said}" if said else reason)
            if not output.exists():
                return NotMade(f"{words[0]} ended well but wrote no picture to {{output}}")
            content = output.read_bytes()
        if fault := fault_of(content):
            return NotMade(f"{words[0]} wrote no usable picture: {fault}")
        return Made(content, seconds=seconds, cost=self.price)
