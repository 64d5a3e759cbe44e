// SPDX-License-Identifier: Apache-2.0
// Compiles the representative kernels for every architecture with nvcc and prints registers, spills and shared memory.
// Fails on errors, on local memory and on products that ptxas serialises:
// `node scripts/compile-kernels.mjs [--arch sm_90a]... [--filter prefill] [--jobs 2]`; with --models the kernels that
// models launch on each --arch instead, hundreds of them, whatever their local memory.
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import {
  allTargets,
  aotKernels,
  compileSpec,
  compilesFor,
  findNvcc,
  nvccCompiler,
  representativeSpecs,
} from '../packages/core/dist/aot.js';

/**
 * Most bytes of local memory a kernel may use. A tile of 128 queries by 64 keys takes the whole register file.
 * @type {ReadonlyMap<string, number>}
 */
const localMemoryLimit = new Map([
  ['single_prefill_f16_hd128_causal_t128x64', 256],
  ['single_prefill_bf16_hd128_causal_t128x64', 32],
  ['batch_prefill_ragged_f16_hd128_causal_t128x64', 256],
  ['single_prefill_bf16_hd192x128_causal_t128x64', 64],
  ['batch_prefill_ragged_f16_hd192x128_causal_t128x64', 288],
  ['batch_prefill_paged_f16_hd192x128_causal_t128x64', 320],
  ['batch_decode_paged_f16_hd128_w4_t16_s2', 16],
  ['topk_bf16_v8_t1024', 32],
  ['rope_bf16_pos_ids_i32_v8h4', 32],
  // The loading warpgroup gives its registers away, and waits more than it works.
  ['batch_prefill_fa3_gather_f16_hd128_causal_cap_t128x128_s2', 144],
  ['batch_prefill_fa3_rows_f16_hd256_causal_t128x64_s2', 176],
  ['single_prefill_fa3_rows_f16_hd64_causal_swa_t192x128_s2', 72],
  ['prefill_fa3_paged_e4m3_hd256_causal_cap_o_bf16_t128x128', 216],
  // A row's elements take up to 12 of 64 registers, or 24 of 128; what is spilled is out of the loops over them.
  ['sample_probs_f32_v4_t512', 24],
  ['sample_probs_f32_v4_t1024', 256],
  ['sample_probs_f32_v4_t1024_l2', 96],
  ['sample_probs_f32_v1_t512', 24],
  ['sample_probs_f32_v4_plain_t256', 96],
  ['sample_probs_f32_v4_plain_t1024', 96],
  ['sample_logits_f32_v4_t512', 24],
  ['sample_logits_f32_v4_t1024', 320],
  ['sample_logits_f32_v4_t1024_l2', 112],
  ['sample_logits_f32_v4_plain_t256', 72],
  ['sample_logits_f32_v4_plain_t1024', 80],
  ['renorm_probs_f32_v4_t512', 96],
  ['renorm_probs_f32_v4_t1024', 160],
  ['renorm_probs_f32_v4_t1024_l2', 128],
  ['renorm_probs_f32_v1_t1024_l2', 224],
  ['mask_logits_f32_v4_t1024', 32],
  ['mask_logits_bf16_v1_t512', 48],
]);

/** @typedef {{ registers: number, stackBytes: number, spillBytes: number, sharedBytes: number }} Usage */
/** @typedef {{ spec: import('../packages/core/dist/index.js').KernelSpec, target: `sm_${string}` }} Task */

const { values } = parseArgs({
  options: {
    arch: { type: 'string', multiple: true },
    filter: { type: 'string', default: '' },
    models: { type: 'boolean', default: false },
    jobs: { type: 'string', default: String(Math.min(2, availableParallelism())) },
  },
});

/** What `ptxas -v` says. @param {string} log @returns {Usage} */
function readUsage(log) {
  const number = (/** @type {RegExp} */ pattern) => Number(pattern.exec(log)?.[1] ?? 0);
  return {
    registers: number(/Used (\d+) registers/),
    stackBytes: number(/(\d+) bytes stack frame/),
    spillBytes: number(/(\d+) bytes spill stores/) + number(/(\d+) bytes spill loads/),
    sharedBytes: number(/(\d+) bytes smem/),
  };
}

/** @param {Usage} usage */
function formatUsage({ registers, stackBytes, spillBytes, sharedBytes }) {
  const local = stackBytes + spillBytes > 0 ? ` !${stackBytes}/${spillBytes}` : '';
  return `${registers}${sharedBytes > 0 ? ` s${sharedBytes}` : ''}${local}`;
}

/** @param {string[][]} rows */
function printTable(rows) {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  for (const row of rows)
    console.log(
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    );
}

const targets = allTargets.filter((target) => !values.arch || values.arch.includes(target));
const listed = values.models ? targets.flatMap((arch) => aotKernels({ arch })) : representativeSpecs();
const specs = [...new Map(listed.map((spec) => [spec.name, spec])).values()].filter((spec) =>
  spec.name.includes(values.filter),
);
/** @type {Task[]} */
const tasks = specs
  .flatMap((spec) => targets.map((target) => ({ spec, target })))
  .filter(({ spec, target }) => compilesFor(spec, target));
if (tasks.length === 0) throw new Error(`no kernel matches --filter '${values.filter}' --arch ${values.arch ?? 'any'}`);

const nvcc = findNvcc();
if (nvcc.path === undefined || nvcc.release === undefined) {
  console.error(
    `0 of ${tasks.length} kernels compiled, ${tasks.length} skipped: no nvcc (${nvcc.error ?? nvcc.searched.join(', ')})`,
  );
  process.exit(process.env.CI ? 1 : 0);
}
const compiler = nvccCompiler(nvcc.path, nvcc.release);

/** @type {Map<string, string>} cells of the table, by `name target` */
const cells = new Map();
/** @type {string[]} */
const failures = [];

/** @param {Task} task */
async function compile({ spec, target }) {
  const id = `${spec.name} ${target}`;
  try {
    const { log } = await compileSpec(compiler, spec, target);
    const usage = readUsage(log);
    cells.set(id, formatUsage(usage));
    const localBytes = usage.stackBytes + usage.spillBytes;
    const limit = values.models ? Number.POSITIVE_INFINITY : (localMemoryLimit.get(spec.name) ?? 0);
    if (localBytes > limit) failures.push(`${id}: ${localBytes} bytes of local memory; expected ${limit} at most`);
    // ptxas tells of products that it runs one after the other for want of registers, and goes on.
    const serialized = /\(C75\d\d\).*/.exec(log)?.[0];
    if (serialized !== undefined) failures.push(`${id}: ${serialized}`);
  } catch (error) {
    cells.set(id, 'error');
    failures.push(`${id}: ${error instanceof Error ? error.message : error}`);
  }
}

const queue = tasks.values();
await Promise.all(
  Array.from({ length: Number(values.jobs) }, async () => {
    for (const task of queue) await compile(task);
  }),
);

printTable([
  ['kernel', ...targets],
  ...specs.map((spec) => [spec.name, ...targets.map((target) => cells.get(`${spec.name} ${target}`) ?? '-')]),
]);
console.log(`registers, s: bytes of static shared memory, !: bytes of stack/spills; CUDA ${nvcc.release}`);
for (const failure of failures) console.error(failure);
console.log(
  `${tasks.length - failures.length} of ${tasks.length} kernels compiled within their limits of local memory`,
);
process.exitCode = failures.length > 0 ? 1 : 0;
