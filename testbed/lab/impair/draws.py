"""The seeded chances of one direction of a link: what packet number n draws for a purpose, whatever happened before.

A draw depends on the seed, the purpose and the packet's number alone, so that neither the time nor a change of options
in between moves the fates of later packets: packet 4711 draws the same for "loss" in every run with this seed.
"""

from __future__ import annotations

from random import Random

from testbed.lab.impair.shaper import BLOCK_PACKETS, Draw


def seeded_draws(seed: str) -> Draw:
    """Return the draws of one direction of a link; `seed` should name the run, the link and the direction."""

    def draw_block(purpose: str, block: int) -> list[float]:
        # Seeding by text is the same on every version of Python; the generator need not be secret.
        draw = Random(f"{seed}/{purpose}/{block}").random  # noqa: S311
        return [draw() for _ in range(BLOCK_PACKETS)]

    return draw_block
