// SPDX-License-Identifier: Apache-2.0
import { randomInt } from 'node:crypto';
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { arange, empty, tensor, zeros } from '../../src/tensor/create.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { testDevice as device, onCuda } from '../device.ts';
import { normalArray } from '../reference/random.ts';
import { expectRejects, expectThrows } from '../thrownBy.ts';

/** int32 0, 1, 2, … whose values say where they came from. */
function counted(...shape: number[]): Tensor<'int32'> {
  return arange(shape, { dtype: 'int32', device });
}

/** Element at `index` of row-major `values`. */
function at(values: ArrayLike<number>, shape: readonly number[], index: readonly number[]): number {
  return values[shape.reduce((position, extent, d) => position * extent + index[d]!, 0)]!;
}

describe('views', () => {
  it('share memory with their base', async () => {
    using base = zeros([2, 6], { dtype: 'int32', device });
    using view = base.view(3, -1);
    expect([view.shape, view.strides, view.dataPtr]).toEqual([[3, 4], [4, 1], base.dataPtr]);
    using ones = tensor([1, 2, 3, 4], { dtype: 'int32', device });
    using row = view.select(0, 1);
    row.copy_(ones);
    expect(await base.toArray()).toEqual(new Int32Array([0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0]));
  });

  it('slice, select and transpose in any combination as indices say', async () => {
    for (let round = 0; round < 40; round++) {
      const shape = [randomInt(1, 6), randomInt(1, 6), randomInt(1, 6)];
      using base = counted(...shape);
      const values = base.toArraySync();
      const [d0, d1, cut] = [randomInt(3), randomInt(3), randomInt(3)];
      using swapped = base.transpose(d0 - 3, d1);
      const extent = swapped.shape[cut]!;
      const start = randomInt(extent + 1);
      const end = start + randomInt(extent - start + 1);
      using part = swapped.slice(cut, start, end);
      const result = part.toArraySync();
      expect(result.length).toBe(part.size);
      for (let i = 0; i < part.shape[0]!; i++) {
        for (let j = 0; j < part.shape[1]!; j++) {
          for (let k = 0; k < part.shape[2]!; k++) {
            const source = [i, j, k];
            source[cut]! += start;
            [source[d0], source[d1]] = [source[d1]!, source[d0]!];
            expect(at(result, part.shape, [i, j, k])).toBe(at(values, shape, source));
          }
        }
      }
      expect(await part.toArray()).toEqual(result);
    }
  });

  it('know whether they are contiguous', () => {
    using base = counted(4, 3, 2);
    const contiguous = (view: Tensor) => {
      using held = view;
      return held.isContiguous;
    };
    expect(contiguous(base.slice(0, 1, 3))).toBe(true);
    expect(contiguous(base.slice(1, 0, 2))).toBe(false);
    expect(contiguous(base.transpose(0, 2))).toBe(false);
    expect(contiguous(base.select(0, -1))).toBe(true);
    expect(contiguous(base.select(1, 0))).toBe(false);
    expect(contiguous(base.slice(1, 2, 2))).toBe(true);
  });

  it('count negative indices from the end, and drop dims of select', async () => {
    using base = counted(3, 4);
    using column = base.select(-1, -2);
    expect([column.shape, await column.toArray()]).toEqual([[3], new Int32Array([2, 6, 10])]);
    using rest = base.slice(0, -2);
    expect(rest.shape).toEqual([2, 4]);
    using middle = base.slice(1, 1, -1);
    expect(await middle.toArray()).toEqual(new Int32Array([1, 2, 5, 6, 9, 10]));
  });

  it('refuse shapes and indices that do not fit', () => {
    using t = counted(3, 4);
    expectThrows(
      () => t.view(5, -1),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'Tensor.view',
      '[5, -1]',
      'int32[3, 4]',
      '12 elements',
    );
    expectThrows(() => t.view(-1, -1), 'ERR_FLASHINFER_INVALID_SHAPE', 'at most one -1');
    expectThrows(() => t.view(0, -1), 'ERR_FLASHINFER_INVALID_SHAPE', '[0, -1]');
    expectThrows(() => t.view(-3, -4), 'ERR_FLASHINFER_INVALID_SHAPE', '[-3, -4]');
    using transposed = t.transpose(0, 1);
    expectThrows(() => transposed.view(12), 'ERR_FLASHINFER_NON_CONTIGUOUS', 'strides [1, 4]', 'contiguous()');
    expectThrows(() => t.slice(0, 2, 1), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'start 2 and end 1', '<= 3');
    expectThrows(() => t.slice(0, 0, 4), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'end 4');
    expectThrows(() => t.slice(2, 0, 1), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'dim 2', '-2 to 1');
    expectThrows(() => t.slice(0, 0.5, 1), 'ERR_FLASHINFER_INVALID_ARGUMENT', '0.5');
    expectThrows(() => t.select(1, 4), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'index 4', '-4 to 3');
    expectThrows(() => t.transpose(0, -3), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'dim -3');
  });

  it('of empty tensors are empty', async () => {
    using none = zeros([2, 0, 3], { device });
    using view = none.view(0, 7);
    using slice = view.slice(1, 7, 7);
    expect([view.shape, slice.shape, (await slice.toArray()).length]).toEqual([[0, 7], [0, 0], 0]);
  });
});

describe('contiguous', () => {
  it('copies only where it must', async () => {
    using base = counted(2, 3);
    using same = base.contiguous();
    expect(same.dataPtr).toBe(base.dataPtr);
    using transposed = base.transpose(0, 1);
    using copy = transposed.contiguous();
    expect([copy.strides, copy.dataPtr === base.dataPtr]).toEqual([[2, 1], false]);
    expect(await copy.toArray()).toEqual(new Int32Array([0, 3, 1, 4, 2, 5]));
  });
});

it('is made by functions, not by its constructor', () => {
  const construct = Tensor as unknown as new (...args: unknown[]) => Tensor;
  for (const args of [[], [[1, 2, 3]], [{}, 'float32']]) {
    expectThrows(() => new construct(...args), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'tensor(values');
  }
});

describe('to', () => {
  it('converts dtypes, of views too', async () => {
    using base = tensor([1.5, -2.5, 3, 300], { shape: [2, 2], device });
    using transposed = base.transpose(0, 1);
    using half = transposed.to('float16');
    expect([half.dtype, half.shape, half.isContiguous]).toEqual(['float16', [2, 2], true]);
    expect(await half.toArray()).toEqual(new Float32Array([1.5, 3, -2.5, 300]));
    using integers = half.to('int32');
    expect(await integers.toArray()).toEqual(new Int32Array([1, 3, -2, 300]));
  });

  it('gives a view where nothing changes, which lives by itself', async () => {
    const base = tensor([1, 2], { device });
    using same = base.to('float32');
    using here = base.to(device);
    base.dispose();
    expect(await same.toArray()).toEqual(new Float32Array([1, 2]));
    expect(here.dataPtr).toBe(same.dataPtr);
  });

  it('moves between devices both ways', async () => {
    const values = normalArray(3 * 2 ** 19, 1);
    using host = tensor(values, { shape: [3, -1 + 2 ** 19 + 1], device: 'cpu' });
    using there = host.to(device);
    using back = there.to('cpu');
    expect([there.device, back.device, there.shape]).toEqual([device, 'cpu', [3, 2 ** 19]]);
    expect(Buffer.compare(Buffer.from(back.toArraySync().buffer), Buffer.from(values.buffer))).toBe(0);
    using column = there.select(1, 5);
    using columnBack = column.to('cpu');
    expect(await columnBack.toArray()).toEqual(new Float32Array([0, 1, 2].map((row) => values[row * 2 ** 19 + 5]!)));
  });

  it('refuses what is neither a device nor a dtype', () => {
    using t = empty(1, { device });
    expectThrows(() => t.to('float' as never), 'ERR_FLASHINFER_INVALID_ARGUMENT', "'float'", 'float16');
  });

  it.skipIf(onCuda)('says what is missing where there is no GPU', () => {
    using t = empty(1, { device: 'cpu' });
    expectThrows(() => t.to('cuda'), 'ERR_FLASHINFER_CUDA_UNAVAILABLE', 'Tensor.to', 'cuda:0', "'cpu'");
  });
});

describe('copy_', () => {
  it('converts, moves, and writes through views', async () => {
    using target = zeros([2, 3], { dtype: 'float16', device });
    using columns = target.transpose(0, 1);
    using source = tensor([1, 2, 3, 4, 5, 6.0001], { shape: [3, 2], device: 'cpu' });
    expect(columns.copy_(source)).toBe(columns);
    expect(await target.toArray()).toEqual(new Float32Array([1, 3, 5, 2, 4, 6]));
    using onHost = zeros([2, 3], { dtype: 'int32', device: 'cpu' });
    onHost.copy_(target);
    expect(await onHost.toArray()).toEqual(new Int32Array([1, 3, 5, 2, 4, 6]));
  });

  it.each([
    [0, 8, 8],
    [0, 3, 5],
    [3, 0, 5],
  ])('copes with overlap: from %i to %i, %i elements', async (from, to, count) => {
    const values = Int32Array.from({ length: 16 }, (_, i) => i * i);
    using t = tensor(values, { device });
    using source = t.slice(0, from, from + count);
    using target = t.slice(0, to, to + count);
    target.copy_(source);
    expect(await t.toArray()).toEqual(values.slice().copyWithin(to, from, from + count));
  });

  it('transposes in place', async () => {
    using t = counted(3, 3);
    using transposed = t.transpose(0, 1);
    t.copy_(transposed);
    expect(await t.toArray()).toEqual(new Int32Array([0, 3, 6, 1, 4, 7, 2, 5, 8]));
  });

  it('refuses another shape', () => {
    using a = empty([2, 3], { device });
    using b = empty([3, 2], { device });
    expectThrows(() => a.copy_(b), 'ERR_FLASHINFER_INVALID_SHAPE', 'copy_', '[3, 2]', '[2, 3]');
  });
});

describe('reading', () => {
  it.each<[DType, unknown]>([
    ['float16', Float32Array],
    ['bfloat16', Float32Array],
    ['float8_e4m3fn', Float32Array],
    ['float8_e5m2', Float32Array],
    ['int64', BigInt64Array],
    ['bool', Uint8Array],
    ['uint32', Uint32Array],
  ])('gives %s as its host array', async (dtype, type) => {
    using t = tensor([1, 0, 1, 1], { dtype, device });
    const array = await t.toArray();
    expect(array).toBeInstanceOf(type);
    expect(t.toArraySync()).toEqual(array);
    expect(Array.from<number | bigint, number>(array, Number)).toEqual([1, 0, 1, 1]);
  });

  it('goes on when the tensor is disposed of and its memory used again meanwhile', async () => {
    const values = normalArray(1 << 18, 2);
    const t = tensor(values, { device });
    const reading = t.toArray();
    t.dispose();
    using reused = zeros([1 << 18], { device });
    expect(await reading).toEqual(values);
    expect((await reused.toArray()).every((v) => v === 0)).toBe(true);
  });
});

describe('dispose', () => {
  it('is idempotent, and leaves views and bases alone', async () => {
    const base = counted(4);
    const view = base.slice(0, 1, 3);
    base.dispose();
    base.dispose();
    expect([base.disposed, view.disposed]).toEqual([true, false]);
    expect(await view.toArray()).toEqual(new Int32Array([1, 2]));
    const nested = view.view(2, 1);
    view.dispose();
    expect(await nested.toArray()).toEqual(new Int32Array([1, 2]));
    nested.dispose();
  });

  it('makes every use an error that names the tensor', async () => {
    const t = empty([2, 3], { dtype: 'bfloat16', device });
    using other = empty([2, 3], { dtype: 'bfloat16', device });
    t.dispose();
    const uses: Record<string, () => unknown> = {
      view: () => t.view(6),
      slice: () => t.slice(0, 0, 1),
      select: () => t.select(0, 0),
      transpose: () => t.transpose(0, 1),
      contiguous: () => t.contiguous(),
      to: () => t.to('float32'),
      ptr: () => t.dataPtr,
      copy_: () => t.copy_(other),
      toArraySync: () => t.toArraySync(),
    };
    for (const [method, use] of Object.entries(uses)) {
      expectThrows(use, 'ERR_FLASHINFER_DISPOSED', `Tensor.${method}`, `bfloat16[2, 3]@${device}`);
    }
    expectThrows(() => other.copy_(t), 'ERR_FLASHINFER_DISPOSED', 'bfloat16[2, 3]');
    await expectRejects(t.toArray(), 'ERR_FLASHINFER_DISPOSED', 'toArray');
    await expectRejects(t.bits(), 'ERR_FLASHINFER_DISPOSED', 'bits');
    expect(inspect(t)).toBe(`Tensor bfloat16[2, 3]@${device} (disposed)`);
  });
});
