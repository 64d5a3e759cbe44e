// SPDX-License-Identifier: Apache-2.0
// The device buffer a plan is written to: work items, merge items, request records, page ids. One copy a plan.
import { InvalidArgumentError } from '../errors.ts';
import { native } from '../native/load.ts';
import { type Device, deviceIndex } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { empty } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { BufferLayout, PlannedKernels } from './batchCall.ts';
import { type BatchCut, type BatchRequests, type BatchShape, mergeElements, mostCuts, mostItems } from './batchPlan.ts';
import { wordsOfItem, wordsOfRecord, writePlan } from './planWords.ts';

/** What a wrapper in graph mode was made for. */
export interface PlanMaxima {
  readonly batchSize: number;
  readonly numPages: number;
  readonly numTokens: number;
}

/** Plans are written here first; the addon copies them on at once, so one array serves all wrappers. */
let staging = new Int32Array(4096);

export class PlanBuffer {
  private readonly device: Device;
  private readonly maxima: PlanMaxima | undefined;
  private tensor: Tensor | undefined;
  /** Kernel and layout of the first plan in graph mode: they stay. */
  private graphKey = '';

  constructor(device: Device, maxima: PlanMaxima | undefined) {
    this.device = device;
    this.maxima = maxima;
  }

  /** Of the last {@link write}. */
  get written(): Tensor {
    return this.tensor!;
  }

  dispose(): void {
    this.tensor?.dispose();
    this.tensor = undefined;
  }

  /** Exactly what a plan needs, or, for graphs, what any plan within the maxima may need. */
  layOut(
    caller: string,
    cut: BatchCut | undefined,
    kernels: PlannedKernels | undefined,
    batchSize: number,
    numPages: number,
    fixedSplits: boolean,
  ): BufferLayout {
    const { maxima } = this;
    const most = maxima?.numPages ?? numPages;
    if (cut === undefined || kernels === undefined) return layoutOf(prefillWords, 0, 0, 0, most, 0, 0);
    const { shape } = kernels;
    if (maxima === undefined) {
      const { numItems, numMergeItems, partialRows, numCounters } = cut;
      return layoutOf(shape, numItems, numMergeItems, batchSize, numPages, partialRows, numCounters);
    }
    const { batchSize: requests, numTokens } = maxima;
    const items = mostItems(shape, requests, numTokens, fixedSplits);
    // Only items beyond the uncut ones make splits, and a split query tile has at least one of them.
    const splitRows = Math.min(mostCuts(shape) * shape.tileRows * shape.numKvHeads, numTokens * shape.numQoHeads);
    const merges =
      shape.mergesInPlace || shape.neverSplits === true
        ? 0
        : requests + Math.ceil((splitRows * shape.headDimVo) / mergeElements);
    if (cut.numItems > items || cut.numMergeItems > merges) {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `${caller}: fixedSplitSize cuts the batch into ${cut.numItems} pieces; expected at most ${items} with ` +
          'useCudaGraph; use a larger fixedSplitSize, and one in the first plan, too',
      );
    }
    const states = shape.neverSplits === true ? 0 : items * shape.numKvHeads;
    return layoutOf(shape, items, merges, requests, maxima.numPages, states * shape.tileRows, states);
  }

  /** One copy of the whole plan, in stream order. */
  write(
    caller: string,
    layout: BufferLayout,
    pages: Int32Array,
    requests: BatchRequests,
    cut: BatchCut | undefined,
    kernels: PlannedKernels | undefined,
  ): void {
    this.reserve(caller, layout, kernels);
    const { ptr } = this.written;
    const pageBytes = new Uint8Array(pages.buffer, pages.byteOffset, pages.byteLength);
    if (cut === undefined) {
      native().host.write(ptr, pageBytes);
      return;
    }
    if (staging.length < layout.pages) staging = new Int32Array(layout.pages * 2);
    writePlan(staging, layout, cut, requests, kernels!.shape, pages);
    const index = deviceIndex(this.device);
    const work = new Uint8Array(staging.buffer, 0, layout.pages * 4);
    native().cuda.writeBoth(index, ptr, work, pageBytes, currentStream(index));
  }

  private reserve(caller: string, layout: BufferLayout, kernels: PlannedKernels | undefined): void {
    const graph = this.maxima !== undefined;
    const key = graph ? [kernels?.spec.name, ...Object.values(layout)].join('/') : '';
    if (graph && this.graphKey !== '' && key !== this.graphKey) throw changedShape(caller);
    this.graphKey = key;
    if (this.tensor !== undefined && this.tensor.size >= layout.words) return;
    this.tensor?.dispose();
    const room = graph ? layout.words : Math.ceil(layout.words * 1.5);
    this.tensor = empty([Math.max(64, room)], { dtype: 'int32', device: this.device });
  }
}

function changedShape(caller: string): InvalidArgumentError {
  return new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${caller}: heads, headDim, dtype, qLenPerReq or whether there is a fixedSplitSize differ from the first plan; expected the same in every plan with useCudaGraph; ` +
      'make another wrapper for another model',
  );
}

/** Of a plan without kernels. */
const prefillWords = { mergesInPlace: false } as const;

/** Blocks along the y or z of a grid. */
const maxGridYZ = 65535;

/** Items, with those that make them whole rows of a grid: see {@link itemGrid}. */
function paddedItems(numItems: number): number {
  const layers = Math.max(1, Math.ceil(numItems / maxGridYZ));
  return Math.ceil(numItems / layers) * layers;
}

/** The grid's y and z for the items of a layout. */
export function itemGrid(items: number): [y: number, z: number] {
  const layers = Math.max(1, Math.ceil(items / maxGridYZ));
  return [items / layers, layers];
}

function layoutOf(
  shape: Pick<BatchShape, 'mergesInPlace'>,
  numItems: number,
  mergeItems: number,
  batchSize: number,
  numPages: number,
  partialRows: number,
  counters: number,
): BufferLayout {
  const items = paddedItems(numItems);
  const records = items * wordsOfItem(shape) + mergeItems * wordsOfItem(prefillWords);
  const pages = records + batchSize * wordsOfRecord(shape);
  return { items, mergeItems, records, pages, words: pages + numPages, partialRows, counters };
}
