"""Frames that wait leave in one piece, in their order, and whoever waits for them goes on in that order."""

import asyncio

from aiormq.abc import ChannelFrame

from leveret_runtime.gathered_frames import MOST, GatheredFrames


def queue_of(*frames: ChannelFrame) -> "asyncio.Queue[ChannelFrame]":
    queue: asyncio.Queue[ChannelFrame] = asyncio.Queue()
    for frame in frames:
        queue.put_nowait(frame)
    return queue


async def test_what_waits_leaves_together_and_is_drained_in_order() -> None:
    loop = asyncio.get_running_loop()
    drained = [loop.create_future() for _ in range(3)]
    order: list[int] = []
    for number, future in enumerate(drained):
        future.add_done_callback(lambda _, number=number: order.append(number))
    frames = [ChannelFrame(b"a", False, drained[0]), ChannelFrame(b"b", False), ChannelFrame(b"c", False, drained[1])]
    piece = await anext(GatheredFrames(queue_of(*frames, ChannelFrame(b"d", False, drained[2]))))
    assert (piece.payload, piece.should_close, piece.should_drain) == (b"abcd", False, True)
    piece.drain()
    async with asyncio.timeout(5):
        await asyncio.gather(*drained)
    assert order == [0, 1, 2]
    assert not piece.should_drain


async def test_nothing_follows_the_last_frame_of_a_connection() -> None:
    source = GatheredFrames(queue_of(ChannelFrame(b"a", False), ChannelFrame(b"bye", True), ChannelFrame(b"c", False)))
    piece = await anext(source)
    assert (piece.payload, piece.should_close) == (b"abye", True)
    source.close_event.set()
    assert [frame async for frame in source] == []


async def test_a_piece_has_its_bounds() -> None:
    frames = [ChannelFrame(bytes(MOST // 2), False) for _ in range(5)]
    source = GatheredFrames(queue_of(*frames))
    assert [len((await anext(source)).payload) for _ in range(3)] == [MOST, MOST, MOST // 2]
    assert source.queue.empty()
