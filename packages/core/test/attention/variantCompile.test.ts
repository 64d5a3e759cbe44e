// SPDX-License-Identifier: Apache-2.0
// Custom variants as kernels: they compile, once for equal content, and mistakes are shown where they are. Needs no GPU.
import { describe, expect, it } from 'vitest';
import { batchDecodeSpec, batchMergeSpec, batchPrefillSpec } from '../../src/attention/batchKernel.ts';
import { decodeSpec } from '../../src/attention/decodeKernel.ts';
import { hopperSpec } from '../../src/attention/hopperKernel.ts';
import type { KernelOptions } from '../../src/attention/kernelName.ts';
import { mergeSpec, prefillSpec } from '../../src/attention/prefillKernel.ts';
import { type AttentionVariant, defineAttentionVariant } from '../../src/attention/variant.ts';
import { CompileError } from '../../src/errors.ts';
import { runSync } from '../../src/jit/bothWays.ts';
import type { Compiler } from '../../src/jit/compilers/compiler.ts';
import { jitConfig } from '../../src/jit/config.ts';
import { moduleKey } from '../../src/jit/key.ts';
import { resolveModule } from '../../src/jit/resolve.ts';
import type { KernelSpec } from '../../src/jit/spec.ts';
import { requireNvcc, requireNvrtc, testJit } from '../jit/fixture.ts';
import { documentedBlocks, documentedVariant } from './variantExamples.ts';

const nvcc = requireNvcc();
const nvrtc = requireNvrtc();

function jitWith(compiler: Compiler) {
  const jit = testJit(compiler);
  return { ...jit, config: { ...jit.config, includeRoots: jitConfig().includeRoots } };
}

const compile = (compiler: Compiler, spec: KernelSpec) =>
  runSync(resolveModule(jitWith(compiler), spec, 'sm_90a', { blocking: false }));

const plain: KernelOptions = {
  qDtype: 'float16',
  kvDtype: 'float16',
  headDim: 64,
  maskMode: 'causal',
  posEncodingMode: 'NONE',
  windowLeft: -1,
  logitsSoftCap: 0,
};

const decodeTile = { warps: 4, kvTile: 16, stages: 2 };
const kernels: [string, (o: KernelOptions) => KernelSpec][] = [
  ['single prefill', (o) => prefillSpec(o, { mTiles: 1, kvTile: 32 })],
  ['single decode', (o) => decodeSpec(o, decodeTile)],
  ['merge', mergeSpec],
  ['batch prefill, paged', (o) => batchPrefillSpec(o, { mTiles: 1, kvTile: 32 }, true)],
  ['batch decode, paged', (o) => batchDecodeSpec(o, decodeTile, true)],
  ['batch prefill, ragged', (o) => batchPrefillSpec(o, { mTiles: 1, kvTile: 32 }, false)],
  ['batch merge', batchMergeSpec],
];

const allHooks = defineAttentionVariant({
  name: 'all_hooks',
  params: { a: 'float32', b: 'float64', c: 'int32', d: 'uint32', e: 'int64', f: 'bool', g: 'bfloat16[]', h: 'bool[]' },
  queryTransform: 'q * a + dimIdx + qoIdx + qoHeadIdx + kvHeadIdx + batchIdx',
  logitsTransform: 'logits + (float)b + c + d + e + to_float(g[kvIdx]) + qoLen + kvLen + numQoHeads + numKvHeads',
  logitsMask: 'f || h[kvIdx]',
  outputTransform: 'output * exp2f(lse) * smScale // and a comment',
  useSoftmax: true,
});

describe.skipIf(nvcc === undefined)('nvcc compiles', () => {
  it.each(kernels)('every hook in %s', (_, specOf) => {
    const spec = specOf({ ...plain, variant: allHooks });
    const { uri } = compile(nvcc!, spec);
    expect(uri).toContain(allHooks.id);
    expect(allHooks.id).toMatch(/^all_hooks_[0-9a-f]{8}$/);
  });

  it.each([...documentedBlocks.keys()])('the documented variant %s', async (name) => {
    const variant = await documentedVariant(name);
    for (const [, specOf] of kernels.slice(0, 3)) compile(nvcc!, specOf({ ...plain, variant }));
  });
});

describe.skipIf(nvrtc === undefined)('NVRTC compiles', () => {
  it('a struct, and every hook it has a place for, in the fa3 template', async () => {
    const tile = { warpgroups: 2, kvTile: 128, stages: 2 } as const;
    const { queryTransform: _, ...hooks } = allHooks.hooks;
    const variant = defineAttentionVariant({ name: 'fa3_hooks', params: allHooks.params, ...hooks });
    compile(nvrtc!, hopperSpec({ ...plain, variant }, tile, 'pages', true));
    compile(nvrtc!, hopperSpec({ ...plain, variant: await documentedVariant('cappedStruct') }, tile, 'gather', true));
  });

  it('every hook', () => {
    for (const [, specOf] of kernels.slice(0, 3)) compile(nvrtc!, specOf({ ...plain, variant: allHooks }));
  });

  it('a struct', async () => {
    compile(
      nvrtc!,
      prefillSpec({ ...plain, variant: await documentedVariant('cappedStruct') }, { mTiles: 1, kvTile: 32 }),
    );
  });
});

/** What the user reads when `variant` is used. */
function failureOf(compiler: Compiler, variant: AttentionVariant): CompileError {
  try {
    compile(compiler, decodeSpec({ ...plain, variant }, decodeTile));
  } catch (error) {
    if (error instanceof CompileError) return error;
    throw error;
  }
  throw new Error('it compiled');
}

const compilers: [string, Compiler | undefined][] = [
  ['nvcc', nvcc],
  ['NVRTC', nvrtc],
];
describe.each(compilers)('a mistake, with %s,', (_, compiler) => {
  it.skipIf(compiler === undefined)('is reported at the expression', () => {
    const { message, log } = failureOf(
      compiler!,
      defineAttentionVariant({ name: 'soft_cap', params: { cap: 'float32' }, logitsTransform: 'capp * tanhf(logits)' }),
    );
    expect(message).toMatch(/<variant soft_cap: logitsTransform>\D*1\D.*capp/);
    expect(log).toContain('capp * tanhf(logits)');
  });

  it.skipIf(compiler === undefined)('is reported at its line, in any hook', () => {
    const variant = defineAttentionVariant({
      name: 'lines',
      queryTransform: 'q',
      outputTransform: '[&] {\n  float x = output;\n  return x * oops;\n}()',
    });
    expect(failureOf(compiler!, variant).message).toMatch(/<variant lines: outputTransform>\D*3\D.*oops/);
  });

  it.skipIf(compiler === undefined)('is reported in a struct', () => {
    const decl = 'struct Broken : AttentionVariantBase {\n  float wrong = missing;\n};';
    const { message } = failureOf(compiler!, defineAttentionVariant({ name: 'Broken', decl }));
    expect(message).toMatch(/<variant Broken: decl>\D*2\D.*missing/);
  });

  it.skipIf(compiler === undefined)('is a macro that no kernel calls', () => {
    const update = 'REGISTER_M_D_UPDATE(params, kv_tile_idx, qo_head_idx, m, d, scale, { d += 1.f; });';
    const decl = `struct Sink : AttentionVariantBase {\n  ${update}\n};`;
    const { message } = failureOf(compiler!, defineAttentionVariant({ name: 'Sink', decl }));
    expect(message).toMatch(/<variant Sink: decl>\D*2\D.*REGISTER_M_D_UPDATE is never called.*sinks/);
  });

  it.skipIf(compiler === undefined)('is reported when a struct and the definition differ about softmax', () => {
    const decl = `struct Plain : AttentionVariantBase {
      float sm_scale_log2;
      template <class P> __device__ __host__ Plain(const P& params, uint32_t, uint8_t*) : sm_scale_log2(1.0f) {}
    };`;
    const variant = defineAttentionVariant({ name: 'Plain', decl, useSoftmax: false });
    expect(failureOf(compiler!, variant).message).toContain('use_softmax of the struct');
  });
});

describe('the module of a variant', () => {
  const uriOf = (variant: AttentionVariant) =>
    moduleKey(decodeSpec({ ...plain, variant }, decodeTile), jitConfig()).uri;
  const define = (factor: string, name = 'Scaled') =>
    defineAttentionVariant({ name, params: { x: 'float32' }, logitsTransform: `logits * ${factor}` });

  it('is the same for equal content', () => {
    expect(uriOf(define('x'))).toBe(uriOf(define('x')));
  });

  it('is another one for another expression, param or name, and named after the variant', () => {
    const params = { x: 'float64' } as const;
    const other = defineAttentionVariant({ name: 'Scaled', params, logitsTransform: 'logits * x' });
    const uris = [define('x'), define('2.0f'), define('x', 'Other'), other].map(uriOf);
    expect(new Set(uris).size).toBe(4);
    expect(uris[0]).toMatch(/_scaled_[0-9a-f]{8}_/);
  });
});
