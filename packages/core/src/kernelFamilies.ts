// SPDX-License-Identifier: Apache-2.0
// Every operator family's kernels, once: what compile checks, prebuilt packages and warmups enumerate.
import { activationModelSpecs, activationSpecs } from './activation/activationKernel.ts';
import { attentionModelSpecs } from './attention/modelSpecs.ts';
import { attentionSpecs } from './attention/specs.ts';
import type { AotRequest } from './jit/aotRequest.ts';
import type { KernelSpec } from './jit/spec.ts';
import { normModelSpecs, normSpecs } from './norm/normKernel.ts';
import { pageModelSpecs, pageSpecs } from './page/pageKernel.ts';
import { fp8ModelSpecs, fp8Specs } from './quantization/fp8Kernel.ts';
import { packBitsSpecs } from './quantization/packBitsKernel.ts';
import { ropeModelSpecs, ropeSpecs } from './rope/ropeKernel.ts';
import { samplingModelSpecs, samplingSpecs } from './sampling/samplingKernel.ts';
import { elementwiseModelSpecs, elementwiseSpecs } from './tensor/elementwise.ts';
import { topKModelSpecs, topKSpecs } from './topk/topkKernel.ts';

interface KernelFamily {
  /** Every template, element type and option at least once, not every combination: few, for any architecture. */
  readonly samples: () => KernelSpec[];
  /** The kernels that models launch on an architecture, where they are more than the samples. */
  readonly forModels?: (request: AotRequest) => KernelSpec[];
}

/** One line a family. */
export const kernelFamilies: readonly KernelFamily[] = [
  { samples: attentionSpecs, forModels: attentionModelSpecs },
  { samples: elementwiseSpecs, forModels: elementwiseModelSpecs },
  { samples: normSpecs, forModels: normModelSpecs },
  { samples: activationSpecs, forModels: activationModelSpecs },
  { samples: packBitsSpecs },
  { samples: pageSpecs, forModels: pageModelSpecs },
  { samples: fp8Specs, forModels: fp8ModelSpecs },
  { samples: ropeSpecs, forModels: ropeModelSpecs },
  { samples: topKSpecs, forModels: topKModelSpecs },
  { samples: samplingSpecs, forModels: samplingModelSpecs },
];
