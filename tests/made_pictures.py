"""Pictures of one colour, and a provider that makes them at once."""

import io

from PIL import Image

from rlli_jax.generation import Made
from rlli_jax.generation.base import in_parts


def picture(colour=(200, 30, 30), size=(32, 24), kind="PNG"):
    """The bytes of a file."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


class Painter:
    """Makes what ``paint(prompt)`` says, and remembers which prompts it was given."""

    def __init__(self, name="painter", paint=lambda prompt: Made(picture()), price=0.0, batch=2):
        self.name, self.price, self.paint, self.batch = name, price, paint, batch
        self.asked = []

    def settings(self, prompt):
        return {"kind": self.name, "prompt": prompt}

    def batches(self, prompts):
        return in_parts(prompts, self.batch)

    def steps(self, prompts):
        return 10 * len(prompts), 0

    def make(self, prompts):
        for prompt in prompts:
            self.asked.append(prompt)
            yield prompt, self.paint(prompt)


def prompts(count):
    return [f"prompt {i}" for i in range(count)]
