"""Upstream frames that a bridge may still need."""

from collections import deque

from letta_matrix.runtimes.keeper.wire import Frame


class FrameBuffer:
    """Frames in order of their sequence numbers, bounded in bytes; the oldest go first."""

    def __init__(self, max_bytes: int) -> None:
        self.seq = 0
        self.lost = 0
        """Highest sequence number dropped for want of room."""
        self._max_bytes = max_bytes
        self._frames: deque[Frame] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def number(self, generation: int, text: bytes, *, keep: bool) -> Frame:
        """Give a frame the next sequence number and, if it is to be kept, store it."""
        self.seq += 1
        frame = Frame(self.seq, generation, text)
        if keep:
            self._frames.append(frame)
            self._bytes += len(text)
            while self._bytes > self._max_bytes:
                self.lost = self._pop().seq
        return frame

    def acknowledge(self, seq: int) -> None:
        """Drop every frame up to and including `seq`."""
        while self._frames and self._frames[0].seq <= seq:
            self._pop()

    def after(self, seq: int, contains: bytes) -> tuple[list[Frame], bool]:
        """Frames after `seq` with `contains` in their text, and whether some are missing."""
        frames = [f for f in self._frames if f.seq > seq and contains in f.text]
        return frames, seq < self.lost

    def _pop(self) -> Frame:
        frame = self._frames.popleft()
        self._bytes -= len(frame.text)
        return frame
