// SPDX-License-Identifier: Apache-2.0
// Streams, events, graphs and device memory. Needs FLASHINFER_TEST_DEVICE=cuda; fakeDriver.test.ts runs it without a
// GPU. Uses copies and fills only, whose results show a wrong order or a block freed too early.
import { pbkdf2 } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { native } from '../../src/native/load.ts';
import * as cuda from '../../src/runtime/cuda.ts';
import { deviceIndex } from '../../src/runtime/device.ts';
import { currentStream } from '../../src/runtime/stream.ts';
import { workspace, zeroedCounters } from '../../src/runtime/workspace.ts';
import { empty, full, ones, tensor, zeros } from '../../src/tensor/create.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { testDevice as device, onCuda } from '../device.ts';
import { normalArray } from '../reference/random.ts';
import { expectRejects, expectThrows } from '../thrownBy.ts';

const index = deviceIndex(device);
const count = 1 << 16;
if (!onCuda) console.log('skipped: FLASHINFER_TEST_DEVICE is not cuda');

function uploaded(values: Float32Array): Tensor<'float32'> {
  return tensor(values, { dtype: 'float32', device });
}

function blank(value = 0): Tensor<'float32'> {
  return full(count, value, { device });
}

function liveBlocks(): number {
  return cuda.memoryStats(device).blocks;
}

describe.runIf(onCuda)('the device', () => {
  it('is described', () => {
    expect(cuda.isAvailable()).toBe(true);
    expect(cuda.deviceCount()).toBeGreaterThan(index);
    const properties = cuda.getDeviceProperties(index);
    expect(properties.major).toBeGreaterThanOrEqual(7);
    expect(properties.multiProcessorCount).toBeGreaterThan(0);
    expect(cuda.getDeviceProperties(device)).toBe(properties);
    const none = cuda.deviceCount();
    expectThrows(() => cuda.getDeviceProperties(none), 'ERR_FLASHINFER_INVALID_ARGUMENT', `${none}`, 'deviceCount()');
    expectThrows(
      () => empty(1, { device: `cuda:${none}` }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'empty',
      `below ${none}`,
    );
  });

  it('accounts for memory', async () => {
    const before = cuda.memoryStats(device);
    const t = empty([3, 1000], { dtype: 'float16', device });
    const view = t.view(-1);
    const during = cuda.memoryStats(device);
    expect(during.allocatedBytes - before.allocatedBytes).toBe(6000);
    expect(during.blocks - before.blocks).toBe(1);
    expect(during.peakBytes).toBeGreaterThanOrEqual(during.allocatedBytes);
    expect(during.pool!.totalBytes).toBeGreaterThanOrEqual(during.pool!.freeBytes);
    t.dispose();
    expect(cuda.memoryStats(device).blocks).toBe(during.blocks);
    view.dispose();
    cuda.resetPeakMemoryStats(device);
    const { allocatedBytes, peakBytes, blocks } = cuda.memoryStats(device);
    expect([allocatedBytes, peakBytes, blocks]).toEqual([before.allocatedBytes, before.allocatedBytes, before.blocks]);
    await cuda.synchronize(device);
    cuda.synchronizeSync(device);
  });

  it('says how much was asked for when memory runs out', () => {
    const bytes = 2 ** 46;
    expectThrows(
      () => empty(bytes, { dtype: 'uint8', device }),
      'ERR_FLASHINFER_OUT_OF_MEMORY',
      'empty',
      `${bytes} bytes`,
    );
  });
});

describe.runIf(onCuda)('freed memory', () => {
  const address = (bytes: number): bigint => {
    using t = empty(bytes, { dtype: 'uint8', device });
    return t.dataPtr;
  };
  const used = (): number => {
    cuda.synchronizeSync(device);
    return cuda.memoryStats(device).pool!.usedBytes;
  };

  it('serves the next tensor of its size on its stream', () => {
    const first = empty(3000, { dtype: 'uint8', device });
    const second = empty(3000, { dtype: 'uint8', device });
    const addresses = [first.dataPtr, second.dataPtr];
    first.dispose();
    second.dispose();
    const before = used();
    expect([address(3001), address(2600)]).toEqual([addresses[1], addresses[1]]);
    using other = new cuda.Stream({ device });
    expect(addresses).not.toContain(cuda.withStream(other, () => address(3000)));
    expect(addresses).not.toContain(address(3073));
    expect(used()).toBe(before + 3072 + 3584);
  });

  it('holds what is written before and after in order', async () => {
    const a = blank(1);
    using b = empty(count, { device });
    b.copy_(a);
    a.dispose();
    using c = blank(2);
    expect([(await b.toArray())[0], (await c.toArray())[0]]).toEqual([1, 2]);
  });

  it('goes back where it is large, and with its stream', () => {
    const before = used();
    address(cuda.getDeviceProperties(device).totalMemory / 1024 + 1);
    expect(used()).toBe(before);
    const stream = new cuda.Stream({ device });
    cuda.withStream(stream, () => address(5000));
    expect(used()).toBe(before + 5120);
    stream.dispose();
    expect(used()).toBe(before);
  });

  it('is not kept where several streams used it', async () => {
    using a = new cuda.Stream({ device });
    using target = blank();
    const source = blank(3);
    await cuda.synchronize(device);
    cuda.withStream(a, () => target.copy_(source));
    const before = used();
    source.dispose();
    expect(used()).toBe(before - 4 * count);
  });

  it('goes back before memory runs out', () => {
    address(2 ** 20);
    const before = used();
    expectThrows(() => empty(2 ** 46, { dtype: 'uint8', device }), 'ERR_FLASHINFER_OUT_OF_MEMORY');
    expect(used()).toBeLessThanOrEqual(before - 2 ** 20);
  });
});

describe.runIf(onCuda)('streams', () => {
  afterEach(() => cuda.setStream(device));

  it('are current inside withStream, nested and after a throw', () => {
    using a = new cuda.Stream({ device });
    using b = new cuda.Stream({ device, priority: -1 });
    const initial = currentStream(index);
    const seen = cuda.withStream(a, () => {
      const inner = cuda.withStream(b, () => currentStream(index));
      return [inner, currentStream(index)];
    });
    expect(seen).toEqual([b.ptr, a.ptr]);
    expect(() =>
      cuda.withStream(a, () => {
        throw new Error('stop');
      }),
    ).toThrow('stop');
    expect(currentStream(index)).toBe(initial);
    expect(new Set([initial, a.ptr, b.ptr]).size).toBe(3);
  });

  it('stay with their async function while others run', async () => {
    using a = new cuda.Stream({ device });
    using b = new cuda.Stream({ device });
    const initial = currentStream(index);
    const follow = async (stream: cuda.Stream) =>
      cuda.withStream(stream, async () => {
        const seen = [currentStream(index)];
        for (let turn = 0; turn < 3; turn++) {
          await setImmediate();
          seen.push(currentStream(index));
        }
        return seen;
      });
    const both = Promise.all([follow(a), follow(b)]);
    expect(currentStream(index)).toBe(initial);
    expect(await both).toEqual([new Array(4).fill(a.ptr), new Array(4).fill(b.ptr)]);
    expect(currentStream(index)).toBe(initial);
  });

  it('are set for the thread, or for the rest of a scope', () => {
    using a = new cuda.Stream({ device });
    using b = new cuda.Stream({ device });
    const initial = currentStream(index);
    cuda.setStream(a);
    const inside = cuda.withStream(a, () => {
      cuda.setStream(b);
      return currentStream(index);
    });
    expect([inside, currentStream(index)]).toEqual([b.ptr, a.ptr]);
    cuda.setStream(device);
    expect(currentStream(index)).toBe(initial);
  });

  it('order each other by events', async () => {
    using a = new cuda.Stream({ device });
    using b = new cuda.Stream({ device });
    const values = normalArray(count, 1);
    using source = uploaded(values);
    using middle = blank();
    using target = blank();
    using start = new cuda.Event().record();
    a.waitEvent(start);
    b.waitStream(a);
    cuda.withStream(a, () => middle.copy_(source));
    using ready = new cuda.Event().record(a);
    b.waitEvent(ready);
    cuda.withStream(b, () => target.copy_(middle));
    expect(await cuda.withStream(b, () => target.toArray())).toEqual(values);
    await ready.synchronize();
    expect(ready.query()).toBe(true);
    expect(start.elapsedTime(ready)).toBeGreaterThanOrEqual(0);
    await a.synchronize();
    b.synchronizeSync();
  });

  it('free memory only when every stream that used it is done', async () => {
    const values = normalArray(count, 2);
    using a = new cuda.Stream({ device });
    using target = blank();
    const source = uploaded(values);
    await cuda.synchronize(device);
    cuda.withStream(a, () => target.copy_(source));
    source.dispose();
    using reused = blank(7);
    expect((await reused.toArray()).every((v) => v === 7)).toBe(true);
    expect(await cuda.withStream(a, () => target.toArray())).toEqual(values);
  });

  it('may be disposed of before the tensors made on them', async () => {
    const values = normalArray(count, 3);
    const a = new cuda.Stream({ device });
    const t = cuda.withStream(a, () => uploaded(values));
    const blocks = liveBlocks();
    a.dispose();
    a.dispose();
    expect([a.disposed, await t.toArray()]).toEqual([true, values]);
    t.dispose();
    expect(liveBlocks()).toBe(blocks - 1);
    expectThrows(() => cuda.withStream(a, () => 1), 'ERR_FLASHINFER_DISPOSED', 'withStream');
    expectThrows(() => cuda.setStream(a), 'ERR_FLASHINFER_DISPOSED');
    await expectRejects(a.synchronize(), 'ERR_FLASHINFER_DISPOSED', 'Stream.synchronize');
  });

  it('give the default stream back when the current one is disposed of', () => {
    const initial = currentStream(index);
    const a = new cuda.Stream({ device });
    cuda.setStream(a);
    a.dispose();
    expect(currentStream(index)).toBe(initial);
  });
});

describe.runIf(onCuda)('events', () => {
  it('refuse what cannot be answered', async () => {
    const event = new cuda.Event({ timing: false });
    expectThrows(() => event.query(), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'Event.query', 'record()');
    event.record();
    await event.synchronize();
    using timed = new cuda.Event().record();
    timed.synchronizeSync();
    expectThrows(() => timed.elapsedTime(event), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'elapsedTime', 'timing');
    event.dispose();
    event.dispose();
    expectThrows(() => event.record(), 'ERR_FLASHINFER_DISPOSED', 'Event.record');
  });
});

describe.runIf(onCuda)('graphs', () => {
  it('replay with new inputs, on any stream, and hold what they use', async () => {
    const blocks = liveBlocks();
    const values = normalArray(count, 4);
    using stream = new cuda.Stream({ device });
    using input = blank();
    await cuda.synchronize(device);
    let output: Tensor<'float32'> | undefined;
    const graph = cuda.capture(stream, () => {
      const temporary = empty(count, { device });
      temporary.copy_(input);
      output = zeros(count, { device });
      output.copy_(temporary);
      temporary.dispose();
    });
    expect(graph.nodeCount).toBe(3);
    using decoy = blank(5);
    for (const [launchStream, scale] of [
      [undefined, 1],
      [stream, -2],
    ] as const) {
      using next = uploaded(values.map((v) => v * scale));
      input.copy_(next);
      await cuda.synchronize(device);
      graph.launch(launchStream);
      await cuda.synchronize(device);
      expect(await output!.toArray()).toEqual(values.map((v) => v * scale));
    }
    expect((await decoy.toArray()).every((v) => v === 5)).toBe(true);
    graph.dispose();
    graph.dispose();
    expectThrows(() => graph.launch(), 'ERR_FLASHINFER_DISPOSED', 'Graph.launch');
    expect((await output!.toArray())[0]).toBe(values[0]! * -2);
    output!.dispose();
    expect(liveBlocks()).toBe(blocks + 2);
  });

  it('keep inputs that the caller disposes of', async () => {
    const blocks = liveBlocks();
    const values = normalArray(count, 5);
    using stream = new cuda.Stream({ device });
    using target = blank();
    const input = uploaded(values);
    await cuda.synchronize(device);
    const graph = cuda.capture(stream, () => target.copy_(input));
    input.dispose();
    expect(liveBlocks()).toBe(blocks + 2);
    using other = blank(3);
    expect(other.disposed).toBe(false);
    graph.launch();
    expect(await target.toArray()).toEqual(values);
    graph.dispose();
    expect(liveBlocks()).toBe(blocks + 2);
  });

  it('defer what is disposed of inside without being used there', async () => {
    using stream = new cuda.Stream({ device });
    const onStream = cuda.withStream(stream, () => blank(1));
    const elsewhere = blank(2);
    cuda.withStream(stream, () => elsewhere.copy_(onStream));
    const blocks = liveBlocks();
    let zeroed: Tensor | undefined;
    using graph = cuda.capture(stream, () => {
      onStream.dispose();
      elsewhere.dispose();
      expect(liveBlocks()).toBe(blocks);
      zeroed = zeros(count, { device });
    });
    expect([graph.nodeCount, liveBlocks()]).toEqual([1, blocks - 1]);
    graph.launch();
    expect((await zeroed!.toArray()).every((v) => v === 0)).toBe(true);
    zeroed!.dispose();
  });

  it('and waits for the device of other threads keep off each other', async () => {
    using stream = new cuda.Stream({ device });
    using t = blank();
    using one = ones(count, { device });
    await cuda.synchronize(device);
    for (let round = 0; round < 3; ++round) {
      // Four tasks hold libuv's threads up, so that the driver's part of the wait falls into the capture.
      for (let i = 0; i < 4; ++i) pbkdf2('a', 'b', 20_000, 64, 'sha512', () => undefined);
      const waited = cuda.synchronize(device);
      using graph = cuda.capture(stream, () => {
        t.copy_(one);
        for (const end = performance.now() + 100; performance.now() < end; );
      });
      await waited;
      expect(graph.nodeCount).toBe(1);
    }
  });

  it('refuse work that no replay could repeat, and leave the stream usable', async () => {
    using stream = new cuda.Stream({ device });
    using t = blank();
    await cuda.synchronize(device);
    const capture = (fn: () => unknown) => () => cuda.capture(stream, fn as () => void);
    const code = 'ERR_FLASHINFER_UNSUPPORTED';
    expectThrows(
      capture(() => tensor([1], { device })),
      code,
      'tensor:',
      'before the capture',
    );
    expectThrows(
      capture(() => t.toArraySync()),
      code,
      'Tensor.toArraySync',
      'graph.launch()',
    );
    expectThrows(
      capture(() => t.to('cpu')),
      code,
      'Tensor.to',
    );
    expectThrows(
      capture(() => cuda.synchronizeSync(device)),
      code,
      'synchronizeSync',
    );
    expectThrows(
      capture(async () => undefined),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'Promise',
      'synchronous',
    );
    expectThrows(capture(capture(() => undefined)), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'inside a capture');
    let rejected: Promise<unknown> | undefined;
    using empty = cuda.capture(stream, () => {
      rejected = t.toArray();
    });
    await expectRejects(rejected!, code, 'Tensor.toArray');
    expect(empty.nodeCount).toBe(0);
    expect(() =>
      cuda.capture(stream, () => {
        throw new RangeError('mine');
      }),
    ).toThrow(RangeError);
    const values = normalArray(count, 6);
    using graphInput = uploaded(values);
    await cuda.synchronize(device);
    using graph = cuda.capture(stream, () => t.copy_(graphInput));
    graph.launch();
    expect(await t.toArray()).toEqual(values);
  });
});

describe.runIf(onCuda)('workspace', () => {
  it('belongs to its stream, grows and is kept', () => {
    using a = new cuda.Stream({ device });
    const first = workspace(index, 1000);
    expect(workspace(index, 1 << 20)).toBe(first);
    expect(workspace(index, 10)).toBe(first);
    expect(first % 256).toBe(0);
    const other = cuda.withStream(a, () => workspace(index, 1000));
    expect(other).not.toBe(first);
    const grown = workspace(index, 3 << 20);
    expect(workspace(index, 1000)).toBe(grown);
  });

  it('gives zeroed counters', async () => {
    const read = async (address: number, length: number) => {
      using copy = empty(length, { dtype: 'int32', device });
      native().cuda.copyDtoD(copy.ptr, address, 4 * length, currentStream(index));
      return copy.toArray();
    };
    const address = zeroedCounters(index, 100);
    expect(zeroedCounters(index, 50)).toBe(address);
    expect(await read(address, 100)).toEqual(new Int32Array(100));
    const more = zeroedCounters(index, 5000);
    expect(await read(more, 5000)).toEqual(new Int32Array(5000));
    using stream = new cuda.Stream({ device });
    let captured = 0;
    using graph = cuda.capture(stream, () => {
      captured = zeroedCounters(index, 100);
    });
    expect([graph.nodeCount, captured !== more]).toEqual([0, true]);
    expect(await read(captured, 100)).toEqual(new Int32Array(100));
  });

  it('of a graph is its own, lives as long, and is freed with it', async () => {
    using stream = new cuda.Stream({ device });
    const eager = cuda.withStream(stream, () => workspace(index, 100));
    await cuda.synchronize(device);
    const blocks = liveBlocks();
    const seen: number[] = [];
    const graph = cuda.capture(stream, () => {
      seen.push(workspace(index, 100), workspace(index, 200), workspace(index, 2 << 20));
    });
    expect(seen[1]).toBe(seen[0]);
    expect(new Set([eager, ...seen]).size).toBe(3);
    expect(liveBlocks()).toBe(blocks + 2);
    expect(cuda.withStream(stream, () => workspace(index, 100))).toBe(eager);
    graph.dispose();
    expect(liveBlocks()).toBe(blocks);
  });
});

describe.runIf(onCuda)('several devices', () => {
  it.runIf(onCuda && cuda.deviceCount() > 1)('copy tensors between each other', async () => {
    const values = normalArray(count, 7);
    using here = uploaded(values);
    using there = here.to(`cuda:${index === 0 ? 1 : 0}`);
    expect(there.device).not.toBe(device);
    using mirror = ones(count, { device });
    mirror.copy_(there);
    expect(await mirror.toArray()).toEqual(values);
    using stream = new cuda.Stream({ device: there.device });
    using event = new cuda.Event().record(stream);
    using local = new cuda.Stream({ device });
    expectThrows(() => event.record(local), 'ERR_FLASHINFER_DEVICE_MISMATCH', device);
    local.waitEvent(event);
    await local.synchronize();
  });
});
