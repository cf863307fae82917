"""Replies that grow as far as a test lets them, however fast the machine is."""

import asyncio
import re
from collections import Counter


class Steps:
    """How many words the answers to prompts with `steps:N` may have by now. The first of the N
    comes by itself, each other one by a `step` of the test. What has come comes at once where a
    prompt is asked again."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._changed = asyncio.Event()

    @staticmethod
    def asked_for(prompt: str) -> int:
        """N, zero without `steps:N`."""
        match = re.search(r"\bsteps:(\d+)", prompt)
        return int(match[1]) if match else 0

    def step(self, text: str, words: int = 1) -> None:
        """Let the answers to prompts that contain `text` go on."""
        self._taken[text] += words
        self._changed.set()
        self._changed = asyncio.Event()

    def finish(self, text: str) -> None:
        """Let the answers to prompts that contain `text` go on to their ends."""
        self.step(text, self.asked_for(text))

    def reached(self, prompt: str, place: int) -> bool:
        """Whether the word at `place` (from 0) may come."""
        return not self.asked_for(prompt) or place <= self._of(prompt)

    async def reach(self, prompt: str, place: int) -> None:
        """Wait until the word at `place` (from 0) may come."""
        while not self.reached(prompt, place):
            await self._changed.wait()

    def _of(self, prompt: str) -> int:
        return sum(count for text, count in self._taken.items() if text in prompt)


def without_quotes(prompt: str) -> str:
    """What is said in a prompt, without what others said before."""
    return "\n".join(line for line in prompt.split("\n") if not line.startswith("> "))
