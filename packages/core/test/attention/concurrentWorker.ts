// SPDX-License-Identifier: Apache-2.0
// A worker thread of concurrency.test.ts, bundled there.
import { parentPort, workerData } from 'node:worker_threads';
import { runWrappers, type Work } from './concurrentWork.ts';

const { work, gate } = workerData as { work: Work; gate: Int32Array };
parentPort?.postMessage('ready');
Atomics.wait(gate, 0, 0);
parentPort?.postMessage(runWrappers(work));
