// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { allTargets, namedTarget, prebuiltArchs, representativeSpecs } from '../../src/aot.ts';
import { aotKernels } from '../../src/aotKernels.ts';
import { headDimVoOf } from '../../src/attention/request.ts';
import { type ModelFamily, modelShapes, sharedPerBlock } from '../../src/jit/aotRequest.ts';
import { checkSpec } from '../../src/jit/spec.ts';
import { kernelFamilies } from '../../src/kernelFamilies.ts';
import { packageRoot } from '../../src/packageRoot.ts';
import { testDevice } from '../device.ts';

describe('aotKernels', () => {
  const samples = representativeSpecs().map(({ name }) => name);

  it.each(allTargets)('lists valid kernels for %s, each once', (target) => {
    const specs = aotKernels({ arch: target });
    for (const spec of specs) checkSpec(spec);
    expect(new Set(specs.map(({ name }) => name)).size).toBe(specs.length);
    expect(specs.length).toBeGreaterThan(200);
    expect(sharedPerBlock(target)).toBeGreaterThan(48 * 1024);
  });

  it('has a sample of every family, and no two kernels of one name', () => {
    const byName = new Map<string, string>();
    for (const { samples } of kernelFamilies) {
      expect(samples().length).toBeGreaterThan(0);
      for (const { name, entry, prelude } of samples()) {
        expect(byName.get(name) ?? entry + prelude).toBe(entry + prelude);
        byName.set(name, entry + prelude);
      }
    }
    const names = new Set(aotKernels({ arch: '9.0a' }).map(({ name }) => name));
    for (const { name, minArch, exactArch } of representativeSpecs()) {
      if (exactArch === undefined && (minArch ?? 75) <= 90) expect(names).toContain(name);
    }
  });

  it('leaves out what an architecture cannot run', () => {
    expect(aotKernels({ arch: '7.5' }).some(({ minArch = 75 }) => minArch > 75)).toBe(false);
  });

  it('follows families and dtypes', () => {
    const all = aotKernels({ arch: '90' });
    const llama = aotKernels({ arch: '90', families: ['llama3'], dtypes: ['bfloat16'] });
    const own = llama.map(({ name }) => name).filter((name) => !samples.includes(name));
    expect(own.length).toBeGreaterThan(10);
    expect(own.filter((name) => /_f16_|cap|swa/.test(name))).toEqual([]);
    expect(all.map(({ name }) => name)).toEqual(expect.arrayContaining(own));
    expect(own).toContain('batch_decode_paged_bf16_hd128_w8_t16_s2');
    expect(own).toContain('batch_prefill_paged_bf16_hd128_causal_t128x64');
    expect(own).toContain('prefill_fa3_single_e4m3_hd128_causal_o_bf16_t128x192');
  });

  it('has what families differ in', () => {
    const of = (family: ModelFamily): string[] =>
      aotKernels({ arch: '90a', families: [family], dtypes: ['bfloat16'] }).map(({ name }) => name);
    expect(of('deepseek')).toEqual(
      expect.arrayContaining([
        'batch_prefill_ragged_bf16_hd192x128_causal_t128x64',
        'batch_prefill_paged_bf16_hd192x128_causal_t128x64',
        'batch_prefill_fa3_rows_bf16_hd192x128_t128x128_s2',
        'batch_prefill_fa3_pages_bf16_hd192x128_causal_t128x128_s2',
        'rope_bf16_pos_ids_i64_cache_interleave_inplace_v8h4_ahead',
      ]),
    );
    expect(of('gpt-oss')).toContain('batch_decode_paged_bf16_kv_e4m3_hd64_swa_w4_t32_s3');
    expect(of('gpt-oss').filter((name) => /cap|gelu|silu/.test(name) && !samples.includes(name))).toEqual([]);
    expect(of('gemma2')).toContain('batch_prefill_paged_bf16_hd256_custom_cap_t64x64');
  });

  it('takes tiles that fit an architecture', () => {
    const names = aotKernels({ arch: '8.6' }).map(({ name }) => name);
    expect(names).toContain('batch_decode_paged_bf16_hd128_w4_t16_s2');
    expect(names).not.toContain('batch_decode_paged_bf16_hd128_w8_t16_s2');
  });

  it('describes models whose sizes kernels can be chosen for', () => {
    for (const { attention, hidden, innerNorms, intermediate } of modelShapes) {
      expect([hidden, ...innerNorms, intermediate].every((length) => length % 64 === 0)).toBe(true);
      expect(attention.numQoHeads % attention.numKvHeads).toBe(0);
      expect(attention.headDimVo).toBe(headDimVoOf(attention.headDim));
    }
  });

  it('refuses what it does not know', () => {
    expect(() => aotKernels({ arch: '9.0', families: ['gpt2' as 'llama3'] })).toThrow(
      /families has 'gpt2'; expected some of llama3/,
    );
    expect(() => aotKernels({ arch: '9.0', dtypes: ['float32' as 'float16'] })).toThrow(/dtypes has 'float32'/);
    expect(() => aotKernels({ arch: '6.1' })).toThrow(/'6.1' is not known/);
  });

  it.runIf(testDevice === 'cpu')('needs an architecture where there is no GPU', () => {
    expect(() => aotKernels()).toThrow(/pass \{ arch: '9.0a' \}/);
  });

  it('is built for the same architectures by the release workflow', () => {
    const workflow = readFileSync(join(packageRoot(), '../../.github/workflows/packages.yml'), 'utf8');
    const archs = /arch: \[(.*)\]/.exec(workflow)?.[1]?.match(/[\d.]+a?/g) ?? [];
    expect(archs.map(namedTarget)).toEqual(prebuiltArchs.map(namedTarget));
  });
});
